"""The patch around a seed, sampled straight from the slices that hold it.

Upstream resamples the whole volume to 1 mm and cuts 50 x 50 x 50 voxels out of the result. The
same voxels come from the few slices around the seed once it is known where the resampled grid
would lie: `_world_grid` and `_own_grid` work that out, the rest is linear interpolation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from oncofm.errors import SeedOutsideVolumeError, SeriesGapError
from oncofm.imaging.geometry import Geometry
from oncofm.imaging.interpolation import trilinear
from oncofm.imaging.volume import Volume
from oncofm.notices import Notice

HU_OFFSET, HU_RANGE = 1024.0, 3072.0
"""Intensity = (HU + 1024) / 3072, not clipped; 0 is air, and what lies outside the volume."""

_AFFINE_TOLERANCE = 1e-3
"""MONAI keeps a spacing, or a whole grid, that differs from the target by less (AFFINE_TOL)."""
_ALLCLOSE_RTOL = 1e-5
"""Relative tolerance of torch.allclose, by which MONAI compares grids."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""One coordinate or index per axis (x, y, z or i, j, k) of the points of a patch, as arrays that
broadcast to (z, y, x): an axis-aligned grid needs a value per plane, not per point."""


@dataclass(frozen=True)
class PatchSpec:
    """What patch a model was made for.

    Attributes
    ----------
    profile : str
        ``mhub``: world-axis-aligned grid, as in FMCIB's public inference. ``paper``: the
        image's own grid, rounded to whole HU, as its published heads were trained. The two
        differ by up to 2 voxels of grid phase; features of both must not be mixed.
    size : int
        Voxels along each side.
    spacing_mm : float
        Distance between voxels.
    """

    profile: Literal["mhub", "paper"] = "mhub"
    size: int = 50
    spacing_mm: float = 1.0

    def __post_init__(self) -> None:
        if self.profile not in ("mhub", "paper"):
            raise ValueError(f"profile must be mhub or paper, not {self.profile!r}")


@dataclass(frozen=True, eq=False)
class Patch:
    """The voxels around a seed.

    Attributes
    ----------
    voxels : numpy.ndarray
        Shape (1, size, size, size) = (C, Z, Y, X), float32, scaled intensity; x grows to the
        patient's left, y to the back, z to the head.
    padded_fraction : float
        Share of the voxels that lie outside the volume.
    notices : tuple of Notice
        ``patch_padded`` if that share is not zero.
    """

    voxels: np.ndarray
    padded_fraction: float
    notices: tuple[Notice, ...] = ()


def sample_patch(volume: Volume, position_mm: tuple[float, float, float], spec: PatchSpec) -> Patch:
    """Sample the patch around a seed.

    Parameters
    ----------
    volume : Volume
        Only the slices that the patch touches are read.
    position_mm : tuple of float
        The seed, LPS millimetres.
    spec : PatchSpec
        Profile, size and spacing.

    Returns
    -------
    Patch
        Near the border of the volume the seed is not in the middle of the patch: what is left
        inside the volume is padded evenly on both sides, as upstream does.

    Raises
    ------
    SeedOutsideVolumeError
        If the seed lies beyond the outer edges of the voxels.
    SeriesGapError
        If slices are missing where the patch would need them.
    SliceUndecodableError
        If a slice that the patch needs cannot be decoded.
    """
    seed_mm = np.array(position_mm, dtype=np.float64)
    if not volume.geometry.holds(seed_mm):
        raise outside_error(volume, position_mm)
    sample = {"mhub": _sample_mhub, "paper": _sample_paper}[spec.profile]
    voxels, inside = sample(volume, seed_mm, spec)
    if voxels.size == 0:
        raise outside_error(volume, position_mm)
    n_padded = spec.size**3 - np.count_nonzero(inside)
    padded_fraction = n_padded / spec.size**3
    notices = ()
    if n_padded:
        text = f"{padded_fraction:.1%} of the patch lie outside volume {volume.volume_id}."
        notices = (Notice("patch_padded", text),)
    return Patch(_pad(voxels, spec.size)[None], padded_fraction, notices)


def outside_error(
    volume: Volume, position_mm: tuple[float, float, float]
) -> SeedOutsideVolumeError:
    """Say that a seed (LPS mm) does not lie inside a volume."""
    x, y, z = position_mm
    return SeedOutsideVolumeError(
        f"Seed ({x:.1f}, {y:.1f}, {z:.1f}) mm lies outside volume {volume.volume_id}; check that "
        "it is in LPS millimetres and belongs to this scan."
    )


def _pad(voxels: np.ndarray, size: int) -> np.ndarray:
    """Pad with 0 evenly on both sides, the odd voxel behind."""
    missing = [size - have for have in voxels.shape]
    return np.pad(voxels, [(gap // 2, gap - gap // 2) for gap in missing])


def _crop(seed_index: np.ndarray, grid_size: np.ndarray, size: int) -> list[np.ndarray]:
    """Grid indices around the seed per axis, clamped to the grid; int() truncates towards 0."""
    half = size // 2
    return [
        np.arange(max(int(centre) - half, 0), min(int(centre) + half, int(n)))
        for centre, n in zip(seed_index, grid_size, strict=True)
    ]


# --- profile mhub -------------------------------------------------------------------------


def _sample_mhub(
    volume: Volume, seed_mm: np.ndarray, spec: PatchSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (z, y, x) of the resampled volume around the seed, and which are inside."""
    geometry = volume.geometry
    affine, size, is_unchanged = _world_grid(geometry, spec.spacing_mm)
    # The grid runs to the right, front and head; the patch runs to the left, back and head.
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    to_lps[:2, 3] = size[:2] - 1
    seed_ras = np.append(seed_mm * (-1, -1, 1), 1)
    crop = _crop((np.linalg.inv(affine @ to_lps) @ seed_ras)[:3], size, spec.size)
    if 0 in map(len, crop):
        return np.empty(0), np.empty(0)

    grid = _spread(size[0] - 1 - crop[0], size[1] - 1 - crop[1], crop[2])
    if is_unchanged and geometry.is_regular:
        index = grid
    else:
        x, y, z = (_row(affine, row, grid) for row in range(3))
        index = geometry.to_index_axes(-x, -y, z)
    inside = _inside(index, geometry.shape)
    _check_gaps(volume, index, inside)
    return _interpolate_over_edge(volume, index), inside


def _world_grid(geometry: Geometry, spacing_mm: float) -> tuple[np.ndarray, np.ndarray, bool]:
    """Where MONAI's ``Spacing(diagonal=True)`` lays the resampled grid.

    Returns
    -------
    affine : numpy.ndarray
        Shape (4, 4): grid index -> RAS mm.
    size : numpy.ndarray
        Shape (3,), int.
    is_unchanged : bool
        Whether MONAI takes the grid for the volume's own and does not resample.
    """
    source = _LPS_TO_RAS @ geometry.affine
    shape = np.array(geometry.shape)
    # MONAI pairs the spacing of the i-th voxel axis with the i-th world axis.
    spacings_mm = np.linalg.norm(source[:3, :3], axis=0)
    keep = np.abs(spacings_mm - spacing_mm) <= _AFFINE_TOLERANCE
    target = np.diag(np.append(np.where(keep, spacings_mm, spacing_mm), 1.0))

    ends = np.stack(np.meshgrid(*[(0.0, n - 1.0) for n in shape], indexing="ij")).reshape(3, 8)
    ends = np.vstack([ends, np.ones(8)])
    on_grid = (np.linalg.solve(target, source) @ ends)[:3]
    size = np.round(np.ptp(on_grid, axis=1) + 1).astype(int)
    lowest = _lowest_corner(on_grid)
    if lowest is not None:
        target[:3, 3] = (source @ ends)[:3, lowest]
    else:
        middle = source[:3, :3] @ (shape / 2) + source[:3, 3]
        target[:3, 3] = middle - target[:3, :3] @ (size / 2)

    to_source = np.linalg.solve(source, target)
    is_unchanged = np.array_equal(size, shape) and (
        _close(source, target) or _close(to_source, np.eye(4))
    )
    return (source if is_unchanged else source @ to_source), size, is_unchanged


def _lowest_corner(corners: np.ndarray) -> int | None:
    """Find the first corner that is the smallest on all axes; corners (3, 8)."""
    for which in range(corners.shape[1]):
        if np.allclose((corners - corners[:, which : which + 1]).min(axis=1), 0.0, rtol=1e-3):
            return which
    return None


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return np.allclose(a, b, rtol=_ALLCLOSE_RTOL, atol=_AFFINE_TOLERANCE)


def _interpolate_over_edge(volume: Volume, index: Axes) -> np.ndarray:
    """Interpolate intensities linearly, against 0 at the outermost voxels, as grid_sample does."""
    shape = volume.geometry.shape
    # One voxel out everything is 0; further out it stays so.
    index = _map(lambda axis, n: axis.clip(-1, n), index, shape)
    low, high = _box(index)
    start, stop = np.clip(low, 0, shape), np.clip(high, 0, shape)
    # A point on the last voxel has a neighbour of weight 0 behind it, which need not be read.
    box = np.zeros((high - low + 1)[::-1])
    if (start < stop).all():
        i, j, k = (slice(*ends) for ends in zip(start - low, stop - low, strict=True))
        hu = volume.read_box(_triple(start), _triple(stop))
        box[k, j, i] = (hu + np.float32(HU_OFFSET)) / np.float32(HU_RANGE)
    return trilinear(box, _map(np.subtract, index, _triple(low))).astype(np.float32)


# --- profile paper ------------------------------------------------------------------------


def _sample_paper(
    volume: Volume, seed_mm: np.ndarray, spec: PatchSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (z, y, x) of the volume resampled on its own axes, and which are inside."""
    geometry = volume.geometry
    affine, size = _own_grid(geometry, spec.spacing_mm)
    seed_index = _invert_like_itk(affine, seed_mm.tolist())
    crop = _crop(np.array(seed_index), size, spec.size)
    if 0 in map(len, crop):
        return np.empty(0), np.empty(0)

    index = _itk_index(geometry, affine, size, crop)
    inside = _inside(index, geometry.shape)
    _check_gaps(volume, index, inside)
    hu = np.trunc(_interpolate_to_edge(volume, index))
    voxels = np.where(inside, (hu + HU_OFFSET) / HU_RANGE, 0).astype(np.float32)
    return _to_lps_axes(voxels, affine[:3, :3]), inside


def _own_grid(geometry: Geometry, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Grid that starts at the first voxel and runs along the volume's own axes.

    Returns
    -------
    affine : numpy.ndarray
        Shape (4, 4): grid index -> LPS mm.
    size : numpy.ndarray
        Shape (3,), int.
    """
    affine = geometry.affine.copy()
    spacings_mm = np.linalg.norm(affine[:3, :3], axis=0)
    size = [round(n * old / spacing_mm) for n, old in zip(geometry.shape, spacings_mm, strict=True)]
    affine[:3, :3] = affine[:3, :3] / spacings_mm * spacing_mm
    return affine, np.array(size)


def _itk_index(
    geometry: Geometry, affine: np.ndarray, size: np.ndarray, crop: list[np.ndarray]
) -> Axes:
    """Where in the volume the grid points lie.

    The values are cut to whole HU later, so rounding matters: like ITK's resampling, only the
    two ends of each row are transformed and the points between them interpolated.
    """
    x, y, z = crop
    ends = [_spread(np.array([end]), y, z) for end in (0, size[0])]
    first, behind = (_to_index(geometry, [_row(affine, r, end) for r in range(3)]) for end in ends)
    along = x / size[0]
    return _map(lambda a, b: a + along * (b - a), first, behind)


def _to_index(geometry: Geometry, points_mm: Sequence[np.ndarray]) -> Axes:
    if geometry.is_regular:
        return _invert_like_itk(geometry.affine, points_mm)
    x, y, z = points_mm
    return geometry.to_index_axes(x, y, z)


def _invert_like_itk(affine: np.ndarray, points_mm: Sequence[Any]) -> Axes:
    """Index of points, to the last bit as ITK computes it; its inverse matrix comes from ITK."""
    import SimpleITK as sitk  # takes long to import; only this profile needs it

    spacings_mm = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.Image(1, 1, 1, sitk.sitkUInt8)
    image.SetSpacing(spacings_mm.tolist())
    image.SetDirection((affine[:3, :3] / spacings_mm).ravel().tolist())
    columns = [image.TransformPhysicalPointToContinuousIndex(unit) for unit in np.eye(3).tolist()]
    inverse = np.eye(4)
    inverse[:3, :3] = np.transpose(columns)
    offset_mm = _map(np.subtract, points_mm, affine[:3, 3].tolist())
    i, j, k = (_row(inverse, row, offset_mm) for row in range(3))
    return i, j, k


def _interpolate_to_edge(volume: Volume, index: Axes) -> np.ndarray:
    """Interpolate Hounsfield units linearly; beyond the outermost centres they stay as there."""
    index = _map(lambda axis, n: axis.clip(0, n - 1), index, volume.geometry.shape)
    low, high = _box(index)
    box = volume.read_box(_triple(low), _triple(high)).astype(np.float64)
    box = np.pad(box, [(0, 1)] * 3, mode="edge")  # neighbours of weight 0
    return trilinear(box, _map(np.subtract, index, _triple(low)))


def _to_lps_axes(voxels: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Permute and flip (z, y, x) voxels until each axis points closest to L, P and S."""
    strength = np.abs(directions)
    world_of = [0, 0, 0]
    for _ in range(3):
        world, axis = np.unravel_index(np.argmax(strength), (3, 3))
        world_of[axis] = int(world)
        strength[world, :] = strength[:, axis] = -1
    flips = tuple(axis for axis in range(3) if directions[world_of[axis], axis] < 0)
    xyz = np.flip(voxels.transpose(2, 1, 0), flips).transpose(np.argsort(world_of))
    return xyz.transpose(2, 1, 0)


# --- shared -------------------------------------------------------------------------------


def _spread(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Axes:
    """Let three lists of values broadcast to (z, y, x)."""
    return x[None, None, :], y[None, :, None], z[:, None, None]


def _row(affine: np.ndarray, row: int, values: Axes) -> np.ndarray:
    """One row of an affine applied to points; axes of weight 0 do not widen the result."""
    terms = [
        weight * axis for weight, axis in zip(affine[row, :3], values, strict=True) if weight != 0
    ]
    return np.asarray(sum(terms, start=affine[row, 3]))


def _map(function: Callable[..., np.ndarray], *axes: Sequence[Any]) -> Axes:
    i, j, k = (function(*values) for values in zip(*axes, strict=True))
    return i, j, k


def _inside(index: Axes, shape: tuple[int, int, int]) -> np.ndarray:
    """Whether points lie within the outer edges of the voxels (the last one excluded, as ITK)."""
    i, j, k = _map(lambda axis, n: (axis >= -0.5) & (axis < n - 0.5), index, shape)
    return i & j & k


def _box(index: Axes) -> tuple[np.ndarray, np.ndarray]:
    """First voxel and the one behind the last that interpolation at `index` needs."""
    low = [int(np.floor(axis.min())) for axis in index]
    high = [int(np.ceil(axis.max())) + 1 for axis in index]
    return np.array(low), np.array(high)


def _triple(values: np.ndarray) -> tuple[int, int, int]:
    i, j, k = (int(value) for value in values)
    return i, j, k


def _check_gaps(volume: Volume, index: Axes, inside: np.ndarray) -> None:
    """Refuse to interpolate over a hole in the stack."""
    k = index[2]
    for hole, step_mm in volume.geometry.holes():
        if (inside & (k > hole) & (k < hole + 1)).any():
            raise SeriesGapError(
                f"Volume {volume.volume_id} misses {step_mm:.1f} mm of slices inside the "
                "patch; complete the series."
            )
