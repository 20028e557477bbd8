"""From the voxels of a label to its seeds: the same for SEG objects and label-mask files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from oncofm.errors import SegmentEmptyError
from oncofm.notices import Notice
from oncofm.seeds.runs import Runs, connected_components
from oncofm.seeds.seed import RejectedSeed, Seed, SeedSource

Per = Literal["segment", "component"]

PATCH_EDGE_MM = 50.0
"""What the encoder sees of a lesion; a longer one is cut off at both ends."""

_INSIDE_TOLERANCE = 1e-6
"""In voxels: a centroid on the face of a voxel lies in it, whatever rounding does."""


@dataclass(frozen=True, eq=False)
class MaskGrid:
    """Where the planes of a mask lie.

    Attributes
    ----------
    column_step_mm, row_step_mm : numpy.ndarray
        Shape (3,) float64: from one voxel to the next along a row, and along a column.
    origins_mm : numpy.ndarray
        Shape (n_planes, 3) float64: LPS position of the first voxel of each plane.
    thickness_mm : numpy.ndarray
        Shape (n_planes,) float64: depth of the voxels of each plane.
    layers : numpy.ndarray
        Shape (n_planes,) int64, increasing: planes whose layers differ by one are neighbours.
    """

    column_step_mm: np.ndarray
    row_step_mm: np.ndarray
    origins_mm: np.ndarray
    thickness_mm: np.ndarray
    layers: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the planes."""
        normal = np.cross(self.column_step_mm, self.row_step_mm)
        return normal / np.linalg.norm(normal)


@dataclass(frozen=True)
class Measurement:
    """Centre and size of a set of voxels.

    Attributes
    ----------
    centroid_mm : tuple of float
        LPS millimetres.
    extent_mm : tuple of float
        Size of the box along the world axes that holds the voxels to their outer corners.
    volume_mm3 : float
        Sum of the voxels' volumes.
    """

    centroid_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    volume_mm3: float


def measure(runs: Runs, grid: MaskGrid) -> Measurement:
    """Measure a set of voxels.

    Each voxel weighs by its volume, so where planes are uneven a thick one counts more; on an
    even grid the centroid is the mean of the voxel centres.

    Parameters
    ----------
    runs : Runs
        At least one.
    grid : MaskGrid
        Where they lie.

    Returns
    -------
    Measurement
        Exact for any orientation, sheared stacks included.
    """
    length = runs.stop - runs.start
    thickness_mm = grid.thickness_mm[runs.plane]
    middles_mm = (
        grid.origins_mm[runs.plane]
        + ((runs.start + runs.stop - 1) / 2)[:, None] * grid.column_step_mm
        + runs.row[:, None] * grid.row_step_mm
    )
    weight = length * thickness_mm
    reach_mm = (
        length[:, None] * np.abs(grid.column_step_mm)
        + np.abs(grid.row_step_mm)
        + thickness_mm[:, None] * np.abs(grid.normal)
    ) / 2
    extent_mm = (middles_mm + reach_mm).max(axis=0) - (middles_mm - reach_mm).min(axis=0)
    pixel_area_mm2 = np.linalg.norm(np.cross(grid.column_step_mm, grid.row_step_mm))
    return Measurement(
        centroid_mm=_vector(weight @ middles_mm / weight.sum()),
        extent_mm=_vector(extent_mm),
        volume_mm3=float(weight.sum() * pixel_area_mm2),
    )


def seeds_per_segment(
    runs: Runs, grid: MaskGrid, lesion_id: str, source: SeedSource, min_volume_mm3: float
) -> list[Seed | RejectedSeed]:
    """Make one seed at the centroid of all voxels of a label.

    Parameters
    ----------
    runs : Runs
        Voxels of the label, sorted; none gives a `RejectedSeed`.
    grid : MaskGrid
        Where they lie.
    lesion_id : str
        Id of the seed.
    source : SeedSource
        Where the label comes from.
    min_volume_mm3 : float
        A smaller label counts as empty; smaller components count as nothing.

    Returns
    -------
    list of Seed or RejectedSeed
        One. Notices: ``multifocal_segment``, ``seed_outside_segment``, ``lesion_exceeds_patch``.
    """
    if len(runs) == 0:
        return [_empty(lesion_id, source, min_volume_mm3)]
    whole = measure(runs, grid)
    if round(whole.volume_mm3, 6) < min_volume_mm3:
        return [_empty(lesion_id, source, min_volume_mm3)]
    notices = _notices(runs, grid, whole, lesion_id)
    volumes_mm3 = _component_volumes_mm3(runs, grid, connected_components(runs, grid.layers))
    n_foci = int(np.sum(volumes_mm3 >= min_volume_mm3))
    if n_foci > 1:
        message = (
            f"{lesion_id} consists of {n_foci} separate parts, the largest with "
            f"{volumes_mm3.max() / whole.volume_mm3:.0%} of the volume; "
            "its seed may lie between them."
        )
        notices = (Notice("multifocal_segment", message), *notices)
    return [_seed(whole, lesion_id, source, notices)]


def seeds_per_component(
    runs: Runs, grid: MaskGrid, lesion_id: str, source: SeedSource, min_volume_mm3: float
) -> list[Seed | RejectedSeed]:
    """Make one seed at the centroid of each 26-connected component of a label.

    Parameters
    ----------
    runs, grid, source
        As for `seeds_per_segment`.
    lesion_id : str
        Ids are ``<lesion_id>-component-<rank>``.
    min_volume_mm3 : float
        Smaller components give no seed; the others carry a notice that says how many.

    Returns
    -------
    list of Seed or RejectedSeed
        By falling volume; of equal volumes the one whose first voxel comes first. A single
        `RejectedSeed` if there is no component. Notices: ``small_components_left_out``,
        ``seed_outside_segment``, ``lesion_exceeds_patch``.
    """
    if len(runs) == 0:
        return [_empty(lesion_id, source, min_volume_mm3)]
    numbers = connected_components(runs, grid.layers)
    volumes_mm3 = _component_volumes_mm3(runs, grid, numbers)
    ranked = np.argsort(-volumes_mm3, kind="stable")
    kept = ranked[volumes_mm3[ranked] >= min_volume_mm3]
    if len(kept) == 0:
        return [_empty(lesion_id, source, min_volume_mm3)]
    left_out: tuple[Notice, ...] = ()
    if len(kept) < len(ranked):
        message = (
            f"{len(ranked) - len(kept)} of {len(ranked)} components of {lesion_id} are under "
            f"{min_volume_mm3:g} mm3 and have no seed."
        )
        left_out = (Notice("small_components_left_out", message),)
    seeds: list[Seed | RejectedSeed] = []
    for rank, component in enumerate(kept, start=1):
        voxels = runs.where(numbers == component)
        name, measured = f"{lesion_id}-component-{rank}", measure(voxels, grid)
        notices = left_out + _notices(voxels, grid, measured, name)
        seeds.append(_seed(measured, name, replace(source, component=rank), notices))
    return seeds


SEED_MAKERS: dict[
    Per, Callable[[Runs, MaskGrid, str, SeedSource, float], list[Seed | RejectedSeed]]
] = {"segment": seeds_per_segment, "component": seeds_per_component}
"""How the voxels of one label become seeds."""


def _component_volumes_mm3(runs: Runs, grid: MaskGrid, numbers: np.ndarray) -> np.ndarray:
    """Volume of each component, rounded so that equal sizes compare as equal."""
    pixel_area_mm2 = np.linalg.norm(np.cross(grid.column_step_mm, grid.row_step_mm))
    depths_mm = (runs.stop - runs.start) * grid.thickness_mm[runs.plane]
    return np.round(np.bincount(numbers, weights=depths_mm) * pixel_area_mm2, 6)


def _notices(runs: Runs, grid: MaskGrid, measurement: Measurement, name: str) -> tuple[Notice, ...]:
    notices = []
    if not _contains(runs, grid, np.array(measurement.centroid_mm)):
        message = f"The centroid of {name} is not on one of its voxels."
        notices.append(Notice("seed_outside_segment", message))
    if max(measurement.extent_mm) > PATCH_EDGE_MM:
        size = " x ".join(f"{edge:.0f}" for edge in measurement.extent_mm)
        message = f"{name} measures {size} mm; the patch shows {PATCH_EDGE_MM:g} mm of it."
        notices.append(Notice("lesion_exceeds_patch", message))
    return tuple(notices)


def _contains(runs: Runs, grid: MaskGrid, point_mm: np.ndarray) -> bool:
    """Whether a point lies in one of the voxels, faces included."""
    offsets_mm = point_mm - grid.origins_mm[runs.plane]
    column = offsets_mm @ grid.column_step_mm / (grid.column_step_mm @ grid.column_step_mm)
    row = offsets_mm @ grid.row_step_mm / (grid.row_step_mm @ grid.row_step_mm)
    depth = offsets_mm @ grid.normal / grid.thickness_mm[runs.plane]
    reach = 0.5 + _INSIDE_TOLERANCE
    return bool(
        np.any(
            (column >= runs.start - reach)
            & (column <= runs.stop - 1 + reach)
            & (np.abs(row - runs.row) <= reach)
            & (np.abs(depth) <= reach)
        )
    )


def _seed(
    measurement: Measurement, lesion_id: str, source: SeedSource, notices: tuple[Notice, ...]
) -> Seed:
    return Seed(
        lesion_id=lesion_id,
        position_mm=measurement.centroid_mm,
        source=source,
        extent_mm=measurement.extent_mm,
        volume_mm3=measurement.volume_mm3,
        notices=notices,
    )


def _empty(lesion_id: str, source: SeedSource, min_volume_mm3: float) -> RejectedSeed:
    limit = f" of at least {min_volume_mm3:g} mm3" if min_volume_mm3 > 0 else ""
    message = (
        f"{lesion_id} has no voxels{limit}; draw the lesion, or leave the segment out of the input."
    )
    return RejectedSeed(lesion_id, source, SegmentEmptyError(message))


def _vector(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return (x, y, z)
