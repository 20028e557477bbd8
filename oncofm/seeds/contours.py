"""From the contours of an ROI to its seeds: slabs between axial planes, measured exactly."""

from dataclasses import dataclass, replace

import numpy as np

from oncofm.errors import ContourUnsupportedError, SegmentEmptyError
from oncofm.notices import Notice
from oncofm.seeds.measure import PATCH_EDGE_MM, Measurement, Per
from oncofm.seeds.polygons import TooIntricateError, Trapezoids, enclosed
from oncofm.seeds.runs import Runs, connected_components
from oncofm.seeds.seed import Seed, SeedSource

SAME_PLANE_MM = 0.1
"""How far the points of a contour, and contours of one plane, may be apart in z: less than any
slice spacing, more than the rounding and slight obliqueness of exported contours."""

_SEPARATING_GAP = 1.5
"""A gap of more than this many usual spacings separates: at least one plane was not drawn on."""
_WIDEST_SPACING_MM = 15.0
"""No CT has slices this far apart; a wider gap between contours says nothing about spacing."""
_ASSUMED_THICKNESS_MM = 3.0
"""Depth of a lone plane where the object tells nothing about its slices."""
_CELL_MM = 0.5
"""Cells by which parts are told apart; all measures are exact and know no cells."""
_MOST_CELLS_PER_ROW = 1000
"""Where an ROI is so wide that it would take more, cells are larger."""
_SPECK_MM3 = 0.1
"""Smaller parts are slivers between outlines that should meet; a CT voxel is larger."""
_INSIDE_TOLERANCE_MM = 1e-6


@dataclass(frozen=True, eq=False)
class Outlines:
    """The closed contours of an ROI.

    Attributes
    ----------
    points_mm : numpy.ndarray
        Shape (n, 3) float64: corners in LPS mm, one contour behind the other, in any order of
        planes.
    lengths : numpy.ndarray
        Shape (n_contours,) int64: how many points each contour has; not empty.
    exclusive : numpy.ndarray
        Shape (n_contours,) bool: whether the type is CLOSEDPLANAR_XOR. One such contour makes
        its plane combine by exclusive or.
    lone_thickness_mm : float or None
        Depth of the ROI where no neighbouring planes tell it.
    """

    points_mm: np.ndarray
    lengths: np.ndarray
    exclusive: np.ndarray
    lone_thickness_mm: float | None


@dataclass(frozen=True, eq=False)
class _Region:
    """What the contours enclose: area in planes, each as thick as the spacing around it.

    `low_mm`, `high_mm` and `layers` go by plane; planes whose layers differ by one are neighbours.
    """

    area: Trapezoids
    low_mm: np.ndarray
    high_mm: np.ndarray
    layers: np.ndarray
    notices: tuple[Notice, ...]

    def where(self, chosen: np.ndarray) -> "_Region":
        return replace(self, area=self.area.where(chosen))

    def volumes_mm3(self) -> np.ndarray:
        """Volume of each trapezoid over the depth of its plane."""
        return self.area.moments()[0] * (self.high_mm - self.low_mm)[self.area.sheet]


def outline_seeds(
    outlines: Outlines, per: Per, lesion_id: str, source: SeedSource, min_volume_mm3: float
) -> list[Seed]:
    """Make the seeds of an ROI.

    Area, centroid, box and volume are exact: a plane is as thick as half the way to the
    neighbouring planes on both sides, at its ends half the usual spacing. A gap of more than 1.5
    usual spacings separates. Parts of an ROI that come closer than about a millimetre count as
    one, parts of neighbouring planes where they overlap.

    Parameters
    ----------
    outlines : Outlines
        The contours.
    per : {"segment", "component"}
        One seed for all, or one per connected part, by falling volume.
    lesion_id : str
        Id of the seed; parts are called ``<lesion_id>-component-<rank>``.
    source : SeedSource
        Where the contours come from.
    min_volume_mm3 : float
        A smaller ROI counts as empty; smaller parts count as nothing.

    Returns
    -------
    list of Seed
        At least one. Notices: ``slab_thickness_assumed``, ``multifocal_segment`` or
        ``small_components_left_out``, ``seed_outside_segment``, ``lesion_exceeds_patch``.

    Raises
    ------
    ContourUnsupportedError
        If a contour is not axial, or the contours are too intricate to be measured.
    SegmentEmptyError
        If the contours enclose no volume, or less than `min_volume_mm3`.
    """
    try:
        region = _region(outlines, lesion_id)
        if len(region.area) == 0:
            raise empty(lesion_id, min_volume_mm3)
        make = _seeds_per_component if per == "component" else _seeds_per_roi
        return make(region, lesion_id, source, min_volume_mm3)
    except TooIntricateError as error:
        raise ContourUnsupportedError(
            f"The contours of {lesion_id} are too intricate to be measured ({error} in one "
            "plane); simplify them, or export the lesion as a SEG."
        ) from error


def empty(lesion_id: str, min_volume_mm3: float) -> SegmentEmptyError:
    """Say that an ROI encloses nothing."""
    limit = f" of at least {min_volume_mm3:g} mm3" if min_volume_mm3 > 0 else ""
    return SegmentEmptyError(
        f"{lesion_id} encloses no volume{limit}; draw the lesion, or leave the ROI out of the "
        "input."
    )


def plane_spacing_mm(heights_mm: np.ndarray) -> float | None:
    """Smallest distance between contour planes, or None if they do not tell.

    Parameters
    ----------
    heights_mm : numpy.ndarray
        Shape (n,) float64: z of contours.
    """
    gaps_mm = np.diff(np.sort(heights_mm))
    gaps_mm = gaps_mm[(gaps_mm > SAME_PLANE_MM) & (gaps_mm <= _WIDEST_SPACING_MM)]
    return float(gaps_mm.min()) if len(gaps_mm) else None


def _region(outlines: Outlines, lesion_id: str) -> _Region:
    starts = np.cumsum(outlines.lengths) - outlines.lengths
    z_mm = outlines.points_mm[:, 2]
    heights_mm = np.add.reduceat(z_mm, starts) / outlines.lengths
    depths_mm = np.maximum.reduceat(z_mm, starts) - np.minimum.reduceat(z_mm, starts)
    tilted = int(np.sum(depths_mm > SAME_PLANE_MM))
    if tilted:
        raise ContourUnsupportedError(
            f"{tilted} of {len(heights_mm)} contours of {lesion_id} are not axial: their points "
            f"differ in z by more than {SAME_PLANE_MM:g} mm; export the lesion as a SEG."
        )
    planes = _planes(heights_mm)
    area = enclosed(
        outlines.points_mm[:, :2],
        outlines.lengths,
        planes,
        np.unique(planes[outlines.exclusive]),
    )
    kept, sheets = np.unique(area.sheet, return_inverse=True)
    planes_mm = np.bincount(planes, heights_mm) / np.bincount(planes)
    return _slabs(
        replace(area, sheet=sheets), planes_mm[kept], outlines.lone_thickness_mm, lesion_id
    )


def _planes(heights_mm: np.ndarray) -> np.ndarray:
    """Tell in which plane each contour lies, counted from below; shape (n_contours,)."""
    order = np.argsort(heights_mm, kind="stable")
    planes = np.zeros(len(order), np.int64)
    planes[order[1:]] = np.cumsum(np.diff(heights_mm[order]) > SAME_PLANE_MM)
    return planes


def _slabs(
    area: Trapezoids, z_mm: np.ndarray, lone_thickness_mm: float | None, lesion_id: str
) -> _Region:
    """Give each plane its depth."""
    gaps_mm = np.diff(z_mm)
    telling_mm = gaps_mm[gaps_mm <= _WIDEST_SPACING_MM]
    notices: tuple[Notice, ...] = ()
    if len(telling_mm):
        usual_mm = float(np.median(telling_mm))
    elif lone_thickness_mm is not None:
        usual_mm = lone_thickness_mm
    else:
        usual_mm = _ASSUMED_THICKNESS_MM
        message = (
            f"{lesion_id} lies in a single plane of unknown thickness; "
            f"{_ASSUMED_THICKNESS_MM:g} mm are assumed for its extent and volume."
        )
        notices = (Notice("slab_thickness_assumed", message),)
    near = (gaps_mm <= _SEPARATING_GAP * usual_mm) & (gaps_mm <= _WIDEST_SPACING_MM)
    half_mm = np.where(near, gaps_mm, usual_mm) / 2
    ends_mm = np.array([usual_mm / 2])
    return _Region(
        area=area,
        low_mm=z_mm - np.concatenate([ends_mm, half_mm])[: len(z_mm)],
        high_mm=z_mm + np.concatenate([half_mm, ends_mm])[: len(z_mm)],
        layers=np.concatenate([[0], np.cumsum(np.where(near, 1, 2))])[: len(z_mm)],
        notices=notices,
    )


def _measure(region: _Region) -> Measurement:
    area_mm2, x_moment, y_moment = region.area.moments()
    low_mm, high_mm = region.low_mm[region.area.sheet], region.high_mm[region.area.sheet]
    depth_mm = high_mm - low_mm
    volume_mm3 = float(area_mm2 @ depth_mm)
    z_moment = area_mm2 * (low_mm + high_mm) / 2
    x, y, z = (float(moment @ depth_mm) / volume_mm3 for moment in (x_moment, y_moment, z_moment))
    boxes_mm = region.area.boxes()
    width, height = (boxes_mm[:, 2:].max(axis=0) - boxes_mm[:, :2].min(axis=0)).tolist()
    return Measurement((x, y, z), (width, height, float(high_mm.max() - low_mm.min())), volume_mm3)


def _seeds_per_roi(
    region: _Region, lesion_id: str, source: SeedSource, min_volume_mm3: float
) -> list[Seed]:
    whole = _measure(region)
    if round(whole.volume_mm3, 6) < min_volume_mm3:
        raise empty(lesion_id, min_volume_mm3)
    notices = region.notices
    volumes_mm3 = _part_volumes_mm3(region, _parts(region))
    n_foci = int(np.sum(volumes_mm3 >= _smallest_part_mm3(volumes_mm3, min_volume_mm3)))
    if n_foci > 1:
        message = (
            f"{lesion_id} consists of {n_foci} separate parts, the largest with "
            f"{volumes_mm3.max() / whole.volume_mm3:.0%} of the volume; "
            "its seed may lie between them."
        )
        notices = (*notices, Notice("multifocal_segment", message))
    return [_seed(region, whole, lesion_id, source, notices)]


def _seeds_per_component(
    region: _Region, lesion_id: str, source: SeedSource, min_volume_mm3: float
) -> list[Seed]:
    parts = _parts(region)
    volumes_mm3 = _part_volumes_mm3(region, parts)
    smallest_mm3 = _smallest_part_mm3(volumes_mm3, min_volume_mm3)
    ranked = np.argsort(-volumes_mm3, kind="stable")
    kept = ranked[volumes_mm3[ranked] >= smallest_mm3]
    if len(kept) == 0:
        raise empty(lesion_id, min_volume_mm3)
    notices = region.notices
    if len(kept) < len(ranked):
        message = (
            f"{len(ranked) - len(kept)} of {len(ranked)} components of {lesion_id} are under "
            f"{smallest_mm3:g} mm3 and have no seed."
        )
        notices = (*notices, Notice("small_components_left_out", message))
    seeds = []
    for rank, part in enumerate(kept.tolist(), start=1):
        focus = region.where(parts == part)
        name = f"{lesion_id}-component-{rank}"
        seeds.append(_seed(focus, _measure(focus), name, replace(source, component=rank), notices))
    return seeds


def _part_volumes_mm3(region: _Region, parts: np.ndarray) -> np.ndarray:
    """Volume of each part, rounded so that equal sizes compare as equal."""
    return np.round(np.bincount(parts, weights=region.volumes_mm3()), 6)


def _smallest_part_mm3(volumes_mm3: np.ndarray, min_volume_mm3: float) -> float:
    """From which volume on a part counts; the largest is never a speck."""
    return max(min_volume_mm3, min(_SPECK_MM3, float(volumes_mm3.max())))


def _seed(
    region: _Region,
    measured: Measurement,
    name: str,
    source: SeedSource,
    notices: tuple[Notice, ...],
) -> Seed:
    if not _contains(region, measured.centroid_mm):
        message = f"The centroid of {name} is not inside its contours."
        notices = (*notices, Notice("seed_outside_segment", message))
    if max(measured.extent_mm) > PATCH_EDGE_MM:
        size = " x ".join(f"{edge:.0f}" for edge in measured.extent_mm)
        message = f"{name} measures {size} mm; the patch shows {PATCH_EDGE_MM:g} mm of it."
        notices = (*notices, Notice("lesion_exceeds_patch", message))
    return Seed(
        lesion_id=name,
        position_mm=measured.centroid_mm,
        source=source,
        extent_mm=measured.extent_mm,
        volume_mm3=measured.volume_mm3,
        notices=notices,
    )


def _contains(region: _Region, point_mm: tuple[float, float, float]) -> bool:
    x, y, z = point_mm
    area = region.area
    level = (z >= region.low_mm[area.sheet] - _INSIDE_TOLERANCE_MM) & (
        z <= region.high_mm[area.sheet] + _INSIDE_TOLERANCE_MM
    )
    return bool((level & area.contain(x, y, _INSIDE_TOLERANCE_MM)).any())


def _parts(region: _Region) -> np.ndarray:
    """Tell connected parts apart: part of each trapezoid, counted from 0; shape (n,).

    Trapezoids are laid on cells, every cell that one touches; so what is connected stays
    connected, and runs of cells are what `connected_components` takes.
    """
    area = region.area
    boxes_mm = area.boxes()
    corner_mm = boxes_mm[:, :2].min(axis=0)
    extent_mm = float((boxes_mm[:, 2:].max(axis=0) - corner_mm).max())
    cell_mm = max(_CELL_MM, extent_mm / _MOST_CELLS_PER_ROW)
    low, high = (area.low - corner_mm[1]) / cell_mm, (area.high - corner_mm[1]) / cell_mm
    first = np.floor(low).astype(np.int64)
    n_rows = np.maximum(np.ceil(high).astype(np.int64) - first, 1)
    owner = np.repeat(np.arange(len(area)), n_rows)
    starts = np.cumsum(n_rows) - n_rows
    row = np.arange(len(owner)) - np.repeat(starts - first, n_rows)

    height = (high - low)[owner]
    share_low = np.clip((row - low[owner]) / height, 0, 1)
    share_high = np.clip((row + 1 - low[owner]) / height, 0, 1)
    ends = []
    for at_low, at_high, outer in (
        (area.left_low, area.left_high, np.minimum),
        (area.right_low, area.right_high, np.maximum),
    ):
        begin, way = at_low[owner], (at_high - at_low)[owner]
        ends.append(outer(begin + share_low * way, begin + share_high * way) - corner_mm[0])
    start = np.maximum(np.floor(ends[0] / cell_mm).astype(np.int64), 0)
    stop = np.maximum(np.ceil(ends[1] / cell_mm).astype(np.int64), start + 1)

    runs, run_of = _merge(Runs(area.sheet[owner], row, start, stop))
    return connected_components(runs, region.layers)[run_of[starts]]


def _merge(touched: Runs) -> tuple[Runs, np.ndarray]:
    """Join runs of a row that overlap or touch; also gives the new run of each old one."""
    order = np.lexsort((touched.start, touched.row, touched.plane))
    runs = touched.where(order)
    # A line's own offset keeps the running maximum from reaching into the next line.
    width = int(runs.stop.max()) + 2
    line = np.zeros(len(runs), np.int64)
    line[1:] = np.cumsum((np.diff(runs.plane) != 0) | (np.diff(runs.row) != 0))
    reached = np.maximum.accumulate(line * width + runs.stop)
    is_new = np.ones(len(runs), bool)
    is_new[1:] = line[1:] * width + runs.start[1:] > reached[:-1]
    run_of = np.empty(len(runs), np.int64)
    run_of[order] = np.cumsum(is_new) - 1
    last = np.append(np.flatnonzero(is_new)[1:] - 1, len(runs) - 1)
    firsts = runs.where(is_new)
    return replace(firsts, stop=reached[last] - line[last] * width), run_of
