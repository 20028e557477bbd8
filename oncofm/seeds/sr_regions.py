"""The graphics of a report, measured: points, outlines on parallel planes, ellipsoids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oncofm.errors import ContourUnsupportedError, ReportInvalidError

Vector = tuple[float, float, float]

_OUTLINES = ("POLYGON", "POLYLINE", "ELLIPSE")

_FARTHEST_MM = 1e6
"""No patient is a kilometre away: beyond, the numbers are damaged."""

_PLANE_TOLERANCE_MM = 0.1
"""How far the vertices of a planar outline may lie from their plane: coordinates come as 32-bit
floats or were rounded to a tenth of a millimetre."""

_SAME_PLANE_MM = 0.05
"""Outlines this close together along their normal lie on one plane; thinner slices do not occur."""

_PARALLEL_COSINE = 0.9998
"""About one degree between the planes of one lesion."""

_SMALLEST_AREA_MM2 = 1e-6
"""Below, an outline is a line or a point."""

_AXES_OFFSET = 0.02
"""How far the middle of an axis may lie from the centre, as a share of the longest axis."""


@dataclass(frozen=True, eq=False)
class Graphic:
    """One set of coordinates in the patient.

    Attributes
    ----------
    graphic_type : str
        Graphic Type (0070,0023) as for SCOORD3D (PS3.3 C.18.9.1.2).
    points_mm : numpy.ndarray
        LPS millimetres, shape (n, 3) float64.
    """

    graphic_type: str
    points_mm: np.ndarray


@dataclass(frozen=True)
class Place:
    """Where a lesion is, and how large if the graphics say so.

    Attributes
    ----------
    position_mm : tuple of float
        LPS millimetres.
    extent_mm : tuple of float or None
        Size of the box along the world axes; None for a point.
    volume_mm3 : float or None
        None for a point and for outlines on a single plane.
    """

    position_mm: Vector
    extent_mm: Vector | None = None
    volume_mm3: float | None = None


def find_place(graphics: Sequence[Graphic], name: str) -> Place:
    """Measure the graphics of one lesion.

    What encloses a lesion counts before what only marks it: an ellipsoid, else closed outlines,
    else a point. Outlines on parallel planes make up a volume: each stands for a slab as thick
    as the median step between planes. Several outlines on one plane add up.

    Parameters
    ----------
    graphics : sequence of Graphic
        At least one; the same graphic twice counts once.
    name : str
        What is measured, for messages.

    Returns
    -------
    Place
        The point itself; the centre of the ellipsoid; or the centroid of the enclosed area.

    Raises
    ------
    ReportInvalidError
        If coordinates are not finite, or too many or too few for their graphic type.
    ContourUnsupportedError
        If there is more than one point or ellipsoid, or an outline that is open, not planar,
        crosses itself or encloses nothing.
    """
    for graphic in graphics:
        _check(graphic, name)
    graphics = _distinct(graphics)
    ellipsoids = [graphic for graphic in graphics if graphic.graphic_type == "ELLIPSOID"]
    if len(ellipsoids) > 1:
        raise ContourUnsupportedError(
            f"{name} has {len(ellipsoids)} ellipsoids; give each lesion a group of its own."
        )
    if ellipsoids:
        return _ellipsoid(ellipsoids[0].points_mm, name)
    closed = [graphic for graphic in graphics if _is_closed(graphic)]
    if closed:
        return _stack([_outline(graphic, name) for graphic in closed], name)
    marks = [graphic for graphic in graphics if graphic.graphic_type != "POLYLINE"]
    if not marks:
        raise ContourUnsupportedError(
            f"{name} is an open line, which encloses no lesion; outline the lesion or mark its "
            "centre."
        )
    points_mm = np.unique(np.concatenate([graphic.points_mm for graphic in marks]), axis=0)
    if len(points_mm) > 1:
        raise ContourUnsupportedError(
            f"{name} marks {len(points_mm)} points, and which of them is the lesion is not said; "
            "give each lesion a group of its own."
        )
    return Place(_vector(points_mm[0]))


def _check(graphic: Graphic, name: str) -> None:
    """Refuse coordinates that nothing can be made of."""
    fewest = {"POINT": 1, "MULTIPOINT": 1, "POLYLINE": 2, "POLYGON": 3, "ELLIPSE": 4}
    fewest["ELLIPSOID"] = 6
    if graphic.graphic_type not in fewest:
        raise ReportInvalidError(
            f"{name} has coordinates of an unknown graphic type; export the report again."
        )
    n_points, needed = len(graphic.points_mm), fewest[graphic.graphic_type]
    exact = graphic.graphic_type in ("POINT", "ELLIPSE", "ELLIPSOID")
    if n_points < needed or (exact and n_points > needed):
        raise ReportInvalidError(
            f"{name} has a {graphic.graphic_type} of {n_points} points instead of "
            f"{needed}{'' if exact else ' or more'}; export the report again."
        )
    # Written so that NaN fails as well.
    if not (np.abs(graphic.points_mm) < _FARTHEST_MM).all():
        raise ReportInvalidError(
            f"{name} has coordinates that are not finite or farther than {_FARTHEST_MM:g} mm; "
            "export the report again."
        )


def _distinct(graphics: Sequence[Graphic]) -> list[Graphic]:
    """Drop repetitions: each measurement of a region may come with its own copy of it."""
    by_content = {
        (graphic.graphic_type, graphic.points_mm.tobytes()): graphic for graphic in graphics
    }
    return list(by_content.values())


def _is_closed(graphic: Graphic) -> bool:
    """Whether a graphic is an outline; a POLYLINE is one if it ends where it began."""
    if graphic.graphic_type == "POLYLINE":
        return np.array_equal(graphic.points_mm[0], graphic.points_mm[-1])
    return graphic.graphic_type in _OUTLINES


@dataclass(frozen=True, eq=False)
class _Outline:
    """A closed planar curve: LPS mm, shape (3,) each, and the area in it."""

    centroid_mm: np.ndarray
    normal: np.ndarray
    low_mm: np.ndarray
    high_mm: np.ndarray
    area_mm2: float


def _outline(graphic: Graphic, name: str) -> _Outline:
    if graphic.graphic_type == "ELLIPSE":
        return _ellipse(graphic.points_mm, name)
    return _polygon(graphic.points_mm, name)


def _polygon(points_mm: np.ndarray, name: str) -> _Outline:
    """Measure a polygon as the sum of signed triangles around its first vertex."""
    first_mm = points_mm[0]
    sides_mm = np.roll(points_mm, -1, axis=0) - first_mm
    offsets_mm = points_mm - first_mm
    crosses = np.cross(offsets_mm, sides_mm) / 2
    area_mm2, normal = _area(crosses.sum(axis=0), name)
    if np.abs(offsets_mm @ normal - np.mean(offsets_mm @ normal)).max() > _PLANE_TOLERANCE_MM:
        raise ContourUnsupportedError(
            f"{name} has an outline that does not lie in one plane; draw it on a single slice."
        )
    weights = crosses @ normal / area_mm2
    centroid_mm = first_mm + weights @ (offsets_mm + sides_mm) / 3
    low_mm, high_mm = points_mm.min(axis=0), points_mm.max(axis=0)
    # Where loops run in opposite ways, they weigh against each other.
    margin_mm = _PLANE_TOLERANCE_MM
    if (centroid_mm < low_mm - margin_mm).any() or (centroid_mm > high_mm + margin_mm).any():
        raise ContourUnsupportedError(
            f"{name} has an outline that crosses itself; draw it without crossings."
        )
    return _Outline(centroid_mm, normal, low_mm, high_mm, area_mm2)


def _ellipse(points_mm: np.ndarray, name: str) -> _Outline:
    centre_mm, semi_axes_mm = _semi_axes(points_mm, name)
    area_mm2, normal = _area(np.pi * np.cross(*semi_axes_mm), name)
    reach_mm = _reach_mm(semi_axes_mm)
    return _Outline(centre_mm, normal, centre_mm - reach_mm, centre_mm + reach_mm, area_mm2)


def _area(area_vector_mm2: np.ndarray, name: str) -> tuple[float, np.ndarray]:
    """Split a vector area into its size and its direction."""
    area_mm2 = float(np.linalg.norm(area_vector_mm2))
    if area_mm2 < _SMALLEST_AREA_MM2:
        raise ContourUnsupportedError(
            f"{name} has an outline that encloses no area; outline the lesion or mark its centre."
        )
    return area_mm2, area_vector_mm2 / area_mm2


def _ellipsoid(points_mm: np.ndarray, name: str) -> Place:
    centre_mm, semi_axes_mm = _semi_axes(points_mm, name)
    volume_mm3 = float(4 / 3 * np.pi * abs(np.linalg.det(semi_axes_mm)))
    if volume_mm3 < _SMALLEST_AREA_MM2:
        raise ContourUnsupportedError(
            f"{name} has an ellipsoid without volume; outline the lesion or mark its centre."
        )
    return Place(_vector(centre_mm), _vector(2 * _reach_mm(semi_axes_mm)), volume_mm3)


def _semi_axes(points_mm: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Centre, shape (3,), and semi-axes, shape (axes, 3), from the ends of the axes.

    The axes need not be at right angles: an ellipse on pixels that are not square has conjugate
    diameters in the patient, which describe it just as well.
    """
    begins_mm, ends_mm = points_mm[0::2], points_mm[1::2]
    middles_mm, semi_axes_mm = (begins_mm + ends_mm) / 2, (ends_mm - begins_mm) / 2
    centre_mm = middles_mm.mean(axis=0)
    longest_mm = 2 * np.linalg.norm(semi_axes_mm, axis=1).max()
    apart_mm = np.linalg.norm(middles_mm - centre_mm, axis=1).max()
    if apart_mm > max(_PLANE_TOLERANCE_MM, _AXES_OFFSET * longest_mm):
        raise ContourUnsupportedError(
            f"{name} has an ellipse or ellipsoid whose axes do not halve each other; export the "
            "report again."
        )
    return centre_mm, semi_axes_mm


def _reach_mm(semi_axes_mm: np.ndarray) -> np.ndarray:
    """Half the edges of the box around an ellipse or ellipsoid; shape (3,)."""
    return np.sqrt((semi_axes_mm**2).sum(axis=0))


def _stack(outlines: Sequence[_Outline], name: str) -> Place:
    """Put outlines on parallel planes together."""
    normal = max(outlines, key=lambda outline: outline.area_mm2).normal
    if any(abs(outline.normal @ normal) < _PARALLEL_COSINE for outline in outlines):
        raise ContourUnsupportedError(
            f"{name} has outlines on planes that are not parallel; draw them on the slices of one "
            "series."
        )
    areas_mm2 = np.array([outline.area_mm2 for outline in outlines])
    centroids_mm = np.stack([outline.centroid_mm for outline in outlines])
    steps_mm = np.diff(np.sort(centroids_mm @ normal))
    steps_mm = steps_mm[steps_mm > _SAME_PLANE_MM]
    thickness_mm = float(np.median(steps_mm)) if len(steps_mm) else 0.0
    edges_mm = np.max([outline.high_mm for outline in outlines], axis=0) - np.min(
        [outline.low_mm for outline in outlines], axis=0
    )
    return Place(
        position_mm=_vector(areas_mm2 @ centroids_mm / areas_mm2.sum()),
        extent_mm=_vector(edges_mm + thickness_mm * np.abs(normal)),
        volume_mm3=float(areas_mm2.sum() * thickness_mm) if len(steps_mm) else None,
    )


def _vector(values: np.ndarray) -> Vector:
    x, y, z = values.tolist()
    return (x, y, z)
