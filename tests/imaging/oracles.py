"""The public pipelines on whole volumes: slow, independent, and the truth for a patch."""

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

PatchAt = Callable[[tuple[float, ...]], np.ndarray]
"""Seed in LPS mm -> patch (1, z, y, x)."""


def monai_pipeline(hu: np.ndarray, affine_lps: np.ndarray, size: int = 50) -> PatchAt:
    """Profile ``mhub``: MONAI's transforms on the full volume; hu is (k, j, i)."""
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.croppad.array import SpatialPad
    from monai.transforms.intensity.array import ScaleIntensityRange
    from monai.transforms.spatial.array import Flip, Spacing

    affine_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps
    image = MetaTensor(hu.transpose(2, 1, 0)[None].astype(np.float32), affine=affine_ras)
    image = ScaleIntensityRange(a_min=-1024, a_max=2048, b_min=0, b_max=1, clip=False)(image)
    image = Spacing(
        pixdim=(1.0, 1.0, 1.0),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
        diagonal=True,
    )(image)
    image = Flip(spatial_axis=(0, 1))(image)  # Orientation("LPS") of a RAS grid, without nibabel
    to_index = np.linalg.inv(image.affine.numpy())

    def patch_at(seed_mm: tuple[float, ...]) -> np.ndarray:
        centre = to_index @ np.array([-seed_mm[0], -seed_mm[1], seed_mm[2], 1])
        box = [slice(None)]
        for index, n in zip(centre[:3], image.shape[1:], strict=True):
            box.append(slice(max(int(index) - size // 2, 0), min(int(index) + size // 2, n)))
        patch = image[tuple(box)].permute(0, 3, 2, 1)
        return SpatialPad((size, size, size))(patch).numpy()

    return patch_at


def itk_pipeline(image: sitk.Image, size: int = 50) -> PatchAt:
    """Profile ``paper``: SimpleITK's filters on the full volume."""
    from monai.transforms.croppad.array import SpatialPad

    new_size = [round(n * s) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    resampled = sitk.Resample(
        image,
        new_size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        (1.0, 1.0, 1.0),
        image.GetDirection(),
        -1024,
        sitk.sitkInt16,
    )

    def patch_at(seed_mm: tuple[float, ...]) -> np.ndarray:
        centre = [int(c) for c in resampled.TransformPhysicalPointToContinuousIndex(seed_mm)]
        start = [max(c - size // 2, 0) for c in centre]
        stop = [min(c + size // 2, n) for c, n in zip(centre, resampled.GetSize(), strict=True)]
        patch = sitk.DICOMOrient(sitk.Slice(resampled, start, stop), "LPS")
        scaled = (sitk.GetArrayFromImage(patch).astype(np.float32) + 1024) / 3072
        return np.asarray(SpatialPad((size, size, size))(scaled[None]))

    return patch_at
