"""Independent measurements of masks, by SimpleITK and by brute force."""

import numpy as np
import SimpleITK as sitk

OBLIQUE = np.array([[0.8, 0.6, 0.0], [-0.48, 0.64, 0.6], [0.36, -0.48, 0.8]])
DIRECTIONS = {
    "axial": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "feet first": np.diag([1.0, 1.0, -1.0]),
    "oblique": OBLIQUE,
    "left-handed": -OBLIQUE,
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
}


def to_image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Image from an array (slices, rows, columns) and its affine from (slice, row, column)."""
    image = sitk.GetImageFromArray(array)
    steps_mm = affine[:3, [2, 1, 0]]
    spacing_mm = np.linalg.norm(steps_mm, axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((steps_mm / spacing_mm).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def itk_shapes(image: sitk.Image) -> list[tuple[int, tuple[float, ...], float]]:
    """Label, centroid in LPS mm and volume in mm3 of every label, by SimpleITK."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(image)
    return [
        (label, statistics.GetCentroid(label), statistics.GetPhysicalSize(label))
        for label in statistics.GetLabels()
    ]


def itk_components(image: sitk.Image) -> list[tuple[tuple[float, ...], float]]:
    """Centroid and volume of the 26-connected components of a binary image, largest first."""
    components = sitk.ConnectedComponent(image, True)
    shapes = [(centroid_mm, volume_mm3) for _, centroid_mm, volume_mm3 in itk_shapes(components)]
    return sorted(shapes, key=lambda shape: -shape[1])


def corner_extent_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Size of the world box around all eight corners of all voxels."""
    corners = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, -1).T
    indices = (np.argwhere(mask)[:, None] + corners).reshape(-1, 3)
    points_mm = indices @ affine[:3, :3].T + affine[:3, 3]
    return np.ptp(points_mm, axis=0)


def blobs(shape: tuple[int, int, int], seed: int, share: float = 0.12) -> np.ndarray:
    """A bool mask of irregular, ragged blobs."""
    random = np.random.default_rng(seed)
    field = random.normal(size=shape)
    for axis in range(3):
        field = field + np.roll(field, 1, axis) + np.roll(field, -1, axis)
    return field > np.quantile(field, 1 - share)


def assert_same_components(seeds, expected: list[tuple[tuple[float, ...], float]]) -> None:
    """Each seed is one of the expected components, to 1e-3 mm, and each of them is a seed."""
    found = np.array([(*seed.position_mm, seed.volume_mm3) for seed in seeds])
    wanted = np.array([(*centroid_mm, volume_mm3) for centroid_mm, volume_mm3 in expected])
    distance = np.abs(found[:, None] - wanted[None]).max(axis=2)
    assert sorted(distance.argmin(axis=1)) == list(range(len(expected)))
    assert distance.min(axis=1).max() < 1e-3
