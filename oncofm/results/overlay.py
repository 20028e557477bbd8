"""A picture per lesion: three planes through the seed, for a person to see what it sits on."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

import oncofm
from oncofm.imaging.geometry import Geometry
from oncofm.imaging.interpolation import trilinear
from oncofm.imaging.patch import outside_error
from oncofm.imaging.volume import Volume
from oncofm.results.files import atomic_path
from oncofm.results.overlay_drawing import (
    PANEL_MM,
    PANEL_PX,
    PLANES,
    Plane,
    compose,
    draw_panel,
    save_png,
)
from oncofm.seeds.seed import Seed

OUTSIDE_HU = -1024.0
"""What lies outside the volume counts as air; it is hatched, so it is never taken for air."""

_TILE_PX = PANEL_PX // 2
"""A panel is sampled in squares of 60 mm, so that even an oblique one needs no more voxels at a
time than a patch does."""

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class PlaneSample:
    """What one panel shows.

    Attributes
    ----------
    hu : numpy.ndarray
        Hounsfield units, float32, shape (PANEL_PX, PANEL_PX) = (down, across).
    inside : numpy.ndarray
        bool, same shape: False outside the volume, where slices are missing, and where the
        voxels are no numbers; `hu` is `OUTSIDE_HU` there.
    """

    hu: np.ndarray
    inside: np.ndarray


def draw_overlay(volume: Volume, seed: Seed, path: Path, *, title: str = "") -> None:
    """Draw an axial, a coronal and a sagittal plane through a seed into a PNG file.

    The planes are those of the world, whichever way the volume was scanned or stored, in
    radiological convention: the patient's right is on the left of the axial and the coronal
    plane, anterior is on the left of the sagittal one. Each shows `PANEL_MM` around the seed,
    with the cube that the model sees, a cross hair at the seed and, if the extent of the lesion
    is known, a dashed box of that size around the seed.

    Parameters
    ----------
    volume : Volume
        Only the voxels that the planes touch are read.
    seed : Seed
        The lesion.
    path : pathlib.Path
        The PNG file, about 1500 x 600 pixels; one that is there is replaced. The same volume,
        seed and title give the same bytes.
    title : str
        Stands beside the lesion id; nothing else of the patient is written. Characters that the
        built-in font lacks become question marks.

    Raises
    ------
    SeedOutsideVolumeError
        If the seed lies beyond the outer edges of the voxels.
    SliceUndecodableError
        If a slice that a plane needs cannot be decoded; some lie outside the patch.
    OutputNotWritableError
        If the file cannot be written.
    """
    picture = compose(draw_panels(volume, seed), seed, volume.volume_id, title)
    with atomic_path(path) as temporary:
        save_png(picture, temporary, f"oncofm {oncofm.__version__}")


def draw_panels(volume: Volume, seed: Seed) -> list[Image.Image]:
    """Draw the planes of `draw_overlay` without header and legend.

    Parameters
    ----------
    volume : Volume
        Only the voxels that the planes touch are read.
    seed : Seed
        The lesion.

    Returns
    -------
    list of PIL.Image.Image
        RGB, PANEL_PX wide and high, in the order of `PLANES`.

    Raises
    ------
    SeedOutsideVolumeError
        If the seed lies beyond the outer edges of the voxels.
    SliceUndecodableError
        If a slice that a plane needs cannot be decoded.
    """
    if not volume.geometry.holds(seed.position_mm):
        raise outside_error(volume, seed.position_mm)
    panels = []
    for plane in PLANES:
        sample = sample_plane(volume, seed.position_mm, plane)
        panels.append(draw_panel(sample.hu, sample.inside, plane, seed.extent_mm))
    return panels


def sample_plane(
    volume: Volume, centre_mm: tuple[float, float, float], plane: Plane
) -> PlaneSample:
    """Sample a square of `PANEL_MM` around a point, linearly between the voxels.

    Parameters
    ----------
    volume : Volume
        Where to read from.
    centre_mm : tuple of float
        LPS millimetres; the corner that the four pixels in the middle share.
    plane : Plane
        Which plane.

    Returns
    -------
    PlaneSample
        Up to the outer edges of the voxels, as ITK does; half a voxel beyond the outermost
        centres keeps their value.

    Raises
    ------
    SliceUndecodableError
        If a slice cannot be decoded.
    """
    hu = np.full((PANEL_PX, PANEL_PX), OUTSIDE_HU, np.float32)
    inside = np.zeros(hu.shape, bool)
    offsets_mm = (np.arange(PANEL_PX) + 0.5) * (PANEL_MM / PANEL_PX) - PANEL_MM / 2
    for top, left in product(range(0, PANEL_PX, _TILE_PX), repeat=2):
        down, across = slice(top, top + _TILE_PX), slice(left, left + _TILE_PX)
        points_mm = [np.array([[coordinate]], dtype=np.float64) for coordinate in centre_mm]
        points_mm[plane.across] = points_mm[plane.across] + offsets_mm[None, across]
        points_mm[plane.down] = points_mm[plane.down] + plane.down_sign * offsets_mm[down, None]
        hu[down, across], inside[down, across] = _sample(volume, *points_mm)
    return PlaneSample(hu, inside)


def _sample(
    volume: Volume, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units at points, and which of them are inside the volume."""
    index = volume.geometry.to_index_axes(x_mm, y_mm, z_mm)
    inside = _inside(index, volume.geometry)
    hu = np.full(inside.shape, OUTSIDE_HU, np.float32)
    if inside.any():
        with np.errstate(invalid="ignore", over="ignore"):  # infinite voxels: seen to below
            interpolated = _interpolate(volume, index)
        inside = inside & np.isfinite(interpolated)
        hu[inside] = interpolated[inside]
    return hu, inside


def _inside(index: Axes, geometry: Geometry) -> np.ndarray:
    """Whether points lie within the outer edges of the voxels and in no hole of the stack."""
    i, j, k = (
        (axis >= -0.5) & (axis < size - 0.5)
        for axis, size in zip(index, geometry.shape, strict=True)
    )
    for hole, _ in geometry.holes():
        k = k & ~((index[2] > hole) & (index[2] < hole + 1))
    return i & j & k


def _interpolate(volume: Volume, index: Axes) -> np.ndarray:
    """Interpolate linearly; beyond the outermost centres the values stay as there."""
    clipped = [
        axis.clip(0, size - 1) for axis, size in zip(index, volume.geometry.shape, strict=True)
    ]
    low_i, low_j, low_k = (int(np.floor(axis.min())) for axis in clipped)
    high_i, high_j, high_k = (int(np.ceil(axis.max())) + 1 for axis in clipped)
    box = volume.read_box((low_i, low_j, low_k), (high_i, high_j, high_k))
    box = np.pad(box, [(0, 1)] * 3, mode="edge")  # neighbours of weight 0
    i, j, k = (
        (axis - low).astype(np.float32)
        for axis, low in zip(clipped, (low_i, low_j, low_k), strict=True)
    )
    return trilinear(box, (i, j, k))
