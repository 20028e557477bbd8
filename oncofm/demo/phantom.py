"""An analytic chest whose every point is known: the truth that demos, tests and benchmarks share.

The scene is a function of the world, not of a voxel grid: any grid, however oblique, coarse or
far away, samples the same anatomy. It looks different along each axis and from each side, so a
flipped, swapped or shifted axis can never pass for the right one. It needs numpy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oncofm.imaging.geometry import Geometry

Vector = tuple[float, float, float]

_AIR_HU = -1000.0
_TEXTURE_WAVES = 6
_TEXTURE_HU = 7.0
"""Amplitude of each of the waves that make up the texture of tissue."""


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid of one density.

    Attributes
    ----------
    label : str
        What it is called, also as the Segment Label.
    centre_mm, radii_mm : tuple of float
        LPS millimetres; the radii lie along the world axes.
    hu : float
        Mean density; the texture of the tissue comes on top.
    """

    label: str
    centre_mm: Vector
    radii_mm: Vector
    hu: float


@dataclass(frozen=True)
class Scene:
    """A chest at a place in the world.

    Attributes
    ----------
    seed : int
        Chooses the texture; the same seed is the same scene on every machine.
    centre_mm : tuple of float
        LPS position of the middle of the chest.
    lesions : tuple of Lesion
        Later ones lie over earlier ones.
    """

    seed: int
    centre_mm: Vector
    lesions: tuple[Lesion, ...]


def chest_scene(seed: int = 0, centre_mm: Vector = (0.0, 0.0, 0.0)) -> Scene:
    """Build the chest with its three lesions.

    Parameters
    ----------
    seed : int
        Seed of the texture.
    centre_mm : tuple of float
        LPS position of the middle of the chest.

    Returns
    -------
    Scene
        With lesions in the right lung, in the mediastinum, and in the left chest wall a few
        millimetres under the skin. The chest is 340 mm wide, 230 mm deep and endless in z;
        the lesions lie within 60 mm of the centre in z.
    """
    lesions = (
        ("lung lesion", (-84.3, -21.7, 36.4), (11.0, 8.0, 13.0), 35.0),
        ("mediastinal lesion", (-7.6, -48.2, 12.9), (15.0, 11.0, 9.0), 110.0),
        ("chest wall lesion", (137.4, 46.1, -28.7), (7.0, 13.0, 10.0), 150.0),
    )
    return Scene(
        seed,
        centre_mm,
        tuple(
            Lesion(label, _add(centre_mm, local_mm), radii_mm, hu)
            for label, local_mm, radii_mm, hu in lesions
        ),
    )


def regular_geometry(
    shape: tuple[int, int, int],
    spacing_mm: Vector,
    centre_mm: Vector,
    direction: Sequence[Sequence[float]] | np.ndarray = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
) -> Geometry:
    """Lay an evenly spaced grid around a point.

    Parameters
    ----------
    shape : tuple of int
        Columns, rows, slices.
    spacing_mm : tuple of float
        Distance between columns, rows and slices.
    centre_mm : tuple of float
        LPS position of the middle of the grid.
    direction : array_like
        Shape (3, 3); its columns are the unit vectors along a row, along a column and from
        slice to slice, in LPS. Left-handed and flipped grids are allowed.

    Returns
    -------
    Geometry
        The grid, with the slices in the order of the third column.
    """
    steps_mm = np.asarray(direction, dtype=np.float64) * np.asarray(spacing_mm)
    first_mm = np.asarray(centre_mm) - steps_mm @ ((np.asarray(shape) - 1) / 2)
    return Geometry(
        column_step_mm=steps_mm[:, 0],
        row_step_mm=steps_mm[:, 1],
        origins_mm=first_mm + np.arange(shape[2])[:, None] * steps_mm[:, 2],
        n_columns=shape[0],
        n_rows=shape[1],
    )


def sample_scene(scene: Scene, geometry: Geometry) -> np.ndarray:
    """Scan the scene: its density at every voxel centre.

    Parameters
    ----------
    scene : Scene
        What to scan.
    geometry : Geometry
        Where the voxels lie; sheared and unevenly spaced stacks are fine.

    Returns
    -------
    numpy.ndarray
        Hounsfield units, int16, shape (slices, rows, columns). Worked out slice by slice, so
        beyond the result only a few slices are held in memory.
    """
    hu = np.empty((len(geometry.origins_mm), geometry.n_rows, geometry.n_columns), np.int16)
    for index in range(len(hu)):
        hu[index] = hu_at(scene, slice_points_mm(geometry, index))
    return hu


def lesion_mask(lesion: Lesion, geometry: Geometry) -> np.ndarray:
    """Segment a lesion perfectly: the voxels whose centre lies inside it.

    Parameters
    ----------
    lesion : Lesion
        What to segment.
    geometry : Geometry
        Where the voxels lie.

    Returns
    -------
    numpy.ndarray
        bool, shape (slices, rows, columns).
    """
    mask = np.zeros((len(geometry.origins_mm), geometry.n_rows, geometry.n_columns), bool)
    normal = np.cross(geometry.column_step_mm, geometry.row_step_mm)
    depths_mm = (geometry.origins_mm - lesion.centre_mm) @ (normal / np.linalg.norm(normal))
    for index in np.flatnonzero(np.abs(depths_mm) <= max(lesion.radii_mm)).tolist():
        x, y, z = np.moveaxis(slice_points_mm(geometry, index), -1, 0)
        mask[index] = _inside(x, y, z, lesion.centre_mm, lesion.radii_mm)
    return mask


def slice_points_mm(geometry: Geometry, index: int) -> np.ndarray:
    """Voxel centres of one slice, LPS mm, float64, shape (rows, columns, 3)."""
    along_row = np.arange(geometry.n_columns)[None, :, None] * geometry.column_step_mm
    along_column = np.arange(geometry.n_rows)[:, None, None] * geometry.row_step_mm
    return geometry.origins_mm[index] + along_column + along_row


def hu_at(scene: Scene, points_mm: np.ndarray) -> np.ndarray:
    """Density of the scene at any points.

    Parameters
    ----------
    scene : Scene
        What to look at.
    points_mm : numpy.ndarray
        LPS millimetres, shape (..., 3).

    Returns
    -------
    numpy.ndarray
        Hounsfield units, int16, shape (...).
    """
    local_mm = np.moveaxis(np.asarray(points_mm) - scene.centre_mm, -1, 0)
    x, y, z = local_mm.astype(np.float32, order="C")
    hu = _anatomy_hu(x, y, z)
    tissue = hu > _AIR_HU
    for lesion in scene.lesions:
        offset_mm = [a - b for a, b in zip(lesion.centre_mm, scene.centre_mm, strict=True)]
        hu[_inside(x, y, z, offset_mm, lesion.radii_mm)] = lesion.hu
    hu[tissue] += _texture_hu(scene.seed, x[tissue], y[tissue], z[tissue])
    return np.rint(hu).astype(np.int16)


def _anatomy_hu(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Organs painted one over the other; x to the left, y to the back, z to the head."""
    hu = np.full(x.shape, _AIR_HU, np.float32)
    hu[(np.abs(x + 12) < 210) & (y > 124) & (y < 146)] = -650  # table, foam
    hu[(np.abs(x + 12) < 210) & (y > 124) & (y < 128)] = 120  # table, top plate

    shoulder = 1 + z / 1500  # the chest widens to the head
    wall = (x / (168 * shoulder)) ** 2 + (y / 116) ** 2
    hu[wall < 1] = -95  # fat
    hu[wall < 0.86] = 45  # muscle
    ribs = (wall > 0.68) & (wall < 0.78) & (np.sin((z - 0.45 * y + 0.1 * x) / 4.2) > 0.55)
    hu[ribs] = 400

    lungs = _inside(x, y, z, (-76, -6, 12), (60, 82, 135))
    lungs |= _inside(x, y, z, (75, 6, 28), (50, 74, 112))
    hu[lungs] = _lung_hu(x[lungs], y[lungs], z[lungs])
    hu[_inside(x, y, z, (-66, -4, -150), (92, 90, 85))] = 70  # liver dome
    hu[_inside(x, y, z, (28, -30, -45), (56, 44, 62))] = 140  # heart
    hu[_cylinder(x, y, (14, 42), 13)] = 210  # descending aorta
    hu[_cylinder(x, y, (-4, 4), 9) & (z > 25)] = -950  # trachea
    hu[_cylinder(x, y, (3, 72), 23)] = 480  # vertebra, cortex
    hu[_cylinder(x, y, (3, 72), 19)] = 190  # vertebra, marrow
    hu[_cylinder(x, y, (3, 72), 21) & (np.mod(z, 27) < 6)] = 85  # disc
    hu[_cylinder(x, y, (3, 98), 8)] = 25  # spinal canal
    return hu


def _lung_hu(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Compute air that is denser where the patient lies on it, and a net of vessels."""
    vessels = np.sin(x / 6.1) * np.cos(y / 7.3) + np.sin(y / 6.7) * np.cos(z / 8.3)
    vessels += np.sin(z / 7.9) * np.cos(x / 5.7)
    return np.where(vessels > 1.05, np.float32(30), -850 + 0.4 * y)


def _texture_hu(seed: int, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Sum of plane waves in all directions, wavelengths 5 to 40 mm."""
    random = np.random.default_rng(seed)
    texture = np.zeros(x.shape, np.float32)
    for _ in range(_TEXTURE_WAVES):
        direction = random.normal(size=3)
        wavelength_mm = np.exp(random.uniform(np.log(5), np.log(40)))
        wave = 2 * np.pi / wavelength_mm * direction / np.linalg.norm(direction)
        phase = random.uniform(0, 2 * np.pi)
        a, b, c, d = (np.float32(value) for value in (*wave, phase))
        texture += np.sin(a * x + b * y + c * z + d)
    return _TEXTURE_HU * texture


def _inside(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: Sequence[float], radii: Sequence[float]
) -> np.ndarray:
    (cx, cy, cz), (rx, ry, rz) = map(float, centre), map(float, radii)
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 <= 1


def _cylinder(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], radius: float
) -> np.ndarray:
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2


def _add(a: Vector, b: Vector) -> Vector:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])
