"""Points of 3D Slicer's markups files, by the published schema 1.0.0 to 1.0.3."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oncofm.seeds.point_draft import PointDraft, UnusableError, Vector, numbers, text

SCHEMA_MARK = "markups-schema"
"""Part of the address under ``@schema`` in every version."""

_SIGNS_TO_LPS = {"LPS": (1.0, 1.0, 1.0), "RAS": (-1.0, -1.0, 1.0)}
_NUMBERED_SYSTEMS = ("RAS", "LPS")
"""What 0 and 1 stood for in the files of older releases."""

_MM_PER_UNIT = {"mm": 1.0, "um": 1e-3}

_NOT_PLACED = ("undefined", "preview", "missing")
_NOT_POINTS = ("Line", "Angle", "Curve", "ClosedCurve", "Plane")

_ROTATION_TOLERANCE = 1e-3
"""How far an orientation may be from orthonormal; Slicer writes full precision."""

_IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def is_markups(document: Any) -> bool:
    """Recognise a markups file by its ``@schema`` and its ``markups``."""
    if not isinstance(document, dict) or not isinstance(document.get("markups"), list):
        return False
    schema = document.get("@schema")
    return isinstance(schema, str) and SCHEMA_MARK in schema


def markups_points(document: Mapping[str, Any]) -> Iterator[PointDraft]:
    """Yield the lesions of a markups file in its order.

    Parameters
    ----------
    document : mapping
        For which `is_markups` is true.

    Yields
    ------
    PointDraft
        Each control point of a Fiducial, the centre of each ROI; for every other markup one
        draft with a fault.
    """
    for index, markup in enumerate(document["markups"], start=1):
        place = f"markup {index}"
        if not isinstance(markup, dict):
            yield PointDraft(place, fault="it is no JSON object; export the markups again")
        elif markup.get("type") == "Fiducial":
            yield from _fiducial(markup, place)
        elif markup.get("type") == "ROI":
            yield _roi(markup, place)
        else:
            yield _not_a_point(markup, place)


def _fiducial(markup: dict[str, Any], place: str) -> Iterator[PointDraft]:
    points = markup.get("controlPoints", [])
    if not isinstance(points, list):
        fault = "its controlPoints are no list; export the markups again"
        yield PointDraft(place, description=text(markup.get("name")), fault=fault)
        return
    for index, point in enumerate(points, start=1):
        yield _control_point(markup, point, f"control point {index} of {place}")


def _control_point(markup: dict[str, Any], point: Any, place: str) -> PointDraft:
    name = text(markup.get("name"))
    if not isinstance(point, dict):
        fault = "it is no JSON object; export the markups again"
        return PointDraft(place, description=name, fault=fault)
    label = text(point.get("label"))
    description = text(point.get("description")) or name
    try:
        _require_placed(point)
        position_mm = _frame(markup).to_lps_mm(numbers(point.get("position"), 3, "position"))
    except UnusableError as error:
        return PointDraft(place, label, description, fault=str(error))
    hidden = _hidden(markup) or point.get("visibility") is False
    return PointDraft(place, label, description, position_mm, hidden=hidden)


def _roi(markup: dict[str, Any], place: str) -> PointDraft:
    """Read a box: one lesion, whose control points are mere handles."""
    name = text(markup.get("name"))
    try:
        center = _roi_center(markup)
        frame = _frame(markup)
        position_mm = frame.to_lps_mm(center)
        extent_mm = _roi_extent_mm(markup, frame)
    except UnusableError as error:
        return PointDraft(place, name, fault=str(error))
    return PointDraft(place, name, "", position_mm, "", extent_mm, _hidden(markup))


def _roi_center(markup: dict[str, Any]) -> list[float]:
    handles = markup.get("controlPoints", [])
    if not isinstance(handles, list) or not all(isinstance(handle, dict) for handle in handles):
        raise UnusableError("its controlPoints are no list of objects; export the markups again")
    for handle in handles:
        _require_placed(handle)
    if "center" not in markup and markup.get("roiType", "Box") == "Box" and len(handles) == 1:
        # Boxes written by hand often have no center; the one handle of a Box lies there.
        return numbers(handles[0].get("position"), 3, "position")
    return numbers(markup.get("center"), 3, "center")


def _roi_extent_mm(markup: dict[str, Any], frame: "_Frame") -> Vector | None:
    """Bounding box of the box along the world's axes; None where no size is given."""
    if "size" not in markup:
        return None
    size = numbers(markup["size"], 3, "size")
    if min(size) <= 0:
        raise UnusableError("its size is not above 0 on all axes; draw the ROI again")
    # Column j is the direction of the box's axis j. Signs do not matter for an extent, so the
    # orientation serves RAS and LPS alike.
    rotation = numbers(markup.get("orientation", _IDENTITY), 9, "orientation")
    columns = [rotation[axis::3] for axis in range(3)]
    for i, first in enumerate(columns):
        for j, second in enumerate(columns):
            product = sum(a * b for a, b in zip(first, second, strict=True))
            if abs(product - (i == j)) > _ROTATION_TOLERANCE:
                raise UnusableError("its orientation is no rotation; draw the ROI again")
    x, y, z = (
        frame.mm_per_unit * sum(abs(rotation[3 * row + axis]) * size[axis] for axis in range(3))
        for row in range(3)
    )
    return x, y, z


def _not_a_point(markup: dict[str, Any], place: str) -> PointDraft:
    kind = markup.get("type")
    shown = f"type {kind}" if kind in _NOT_POINTS else "a type that is not known here"
    return PointDraft(
        place,
        text(markup.get("name")),
        fault=f"it is of {shown}, which does not mark one lesion; place a Fiducial point in "
        "the lesion's centre or draw an ROI around it",
    )


def _require_placed(point: dict[str, Any]) -> None:
    status = point.get("positionStatus", "defined")
    if status in _NOT_PLACED:
        raise UnusableError(
            f"its position is {status}, not defined; place the point in 3D Slicer or delete it"
        )
    if status != "defined":
        raise UnusableError("its positionStatus is not known; export the markups again")


def _hidden(markup: dict[str, Any]) -> bool:
    display = markup.get("display")
    return isinstance(display, dict) and display.get("visibility") is False


@dataclass(frozen=True)
class _Frame:
    """Coordinates of a markup: signs that make them LPS, and the length of their unit."""

    signs_to_lps: Vector
    mm_per_unit: float

    def to_lps_mm(self, position: list[float]) -> Vector:
        # Adding 0.0 turns -0.0 into 0.0.
        x, y, z = (
            sign * value * self.mm_per_unit + 0.0
            for sign, value in zip(self.signs_to_lps, position, strict=True)
        )
        return x, y, z


def _frame(markup: dict[str, Any]) -> _Frame:
    system = markup.get("coordinateSystem", "LPS")
    if type(system) is int and system in (0, 1):
        system = _NUMBERED_SYSTEMS[system]
    if not isinstance(system, str) or system not in _SIGNS_TO_LPS:
        raise UnusableError("its coordinateSystem is neither LPS nor RAS; export it as LPS")
    units = markup.get("coordinateUnits", "mm")
    if isinstance(units, list) and len(units) == 3 and units[1] == "UCUM":
        units = units[0]
    if not isinstance(units, str) or units not in _MM_PER_UNIT:
        raise UnusableError("its coordinateUnits are neither mm nor um; export it in mm")
    return _Frame(_SIGNS_TO_LPS[system], _MM_PER_UNIT[units])
