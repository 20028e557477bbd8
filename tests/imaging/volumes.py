"""Volumes in memory that note what is read from them."""

import numpy as np
import SimpleITK as sitk

from oncofm.imaging.geometry import Geometry
from oncofm.notices import Notice


class ArrayVolume:
    """A `Volume` over an array, with a list of the boxes that were read."""

    def __init__(self, hu: np.ndarray, geometry: Geometry) -> None:
        self.volume_id = "array"
        self.geometry = geometry
        self.notices: tuple[Notice, ...] = ()
        self.hu = hu
        self.boxes: list[tuple[tuple[int, int, int], tuple[int, int, int]]] = []

    def release(self):
        pass

    def read_box(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> np.ndarray:
        assert all(
            0 <= a < b <= n for a, b, n in zip(start, stop, self.geometry.shape, strict=True)
        )
        self.boxes.append((start, stop))
        i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
        return self.hu[k, j, i].astype(np.float32)


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """CT-like numbers without any smoothness: every misplaced voxel shows; (k, j, i) int16."""
    return np.random.default_rng(seed).integers(-1024, 1500, shape[::-1], dtype=np.int16)


def sitk_image(hu: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(hu)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def sitk_affine(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine
