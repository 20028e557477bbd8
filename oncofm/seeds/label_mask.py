"""Seeds from label-mask files: NIfTI, NRRD, MHA and whatever else SimpleITK reads."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from oncofm.errors import InputNotFoundError, SegmentationInvalidError, SegmentEmptyError
from oncofm.seeds.measure import SEED_MAKERS, MaskGrid, Per
from oncofm.seeds.runs import Runs, find_runs, join_runs
from oncofm.seeds.seed import RejectedSeed, Seed, SeedSource

_MOST_LABELS = 10_000
"""A mask with more labels is an image that was given as a mask by mistake."""


def read_label_mask(
    path: Path, *, per: Per = "segment", min_volume_mm3: float = 0.0
) -> tuple[Seed | RejectedSeed, ...]:
    """Read the lesions of a label mask; every value above 0 is a label, 255 like any other.

    Parameters
    ----------
    path : pathlib.Path
        A file with three axes and one whole number per voxel, of an integer or float type.
    per : {"segment", "component"}
        One seed per label, or per 26-connected component of it.
    min_volume_mm3 : float
        Smaller labels or components count as empty.

    Returns
    -------
    tuple of Seed or RejectedSeed
        By label, in LPS mm from the file's own header; ids are ``label-<value>``.

    Raises
    ------
    InputNotFoundError
        If the file does not exist.
    SegmentationInvalidError
        If the file cannot be read or is no label mask.
    SegmentEmptyError
        If no voxel is above 0.
    """
    if not path.is_file():
        raise InputNotFoundError(f"The label mask {path} does not exist.")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise SegmentationInvalidError(
            f"The label mask {path} is damaged or of an unknown format; export it as NIfTI, "
            "NRRD or MHA."
        ) from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise SegmentationInvalidError(
            f"The label mask {path} has {image.GetDimension()} axes and "
            f"{image.GetNumberOfComponentsPerPixel()} values per voxel; export one label value "
            "per voxel on three axes."
        )
    parts: dict[int, list[Runs]] = {}
    for plane, frame in enumerate(sitk.GetArrayViewFromImage(image)):
        _check_labels(frame, path)
        for label, runs in find_runs(frame, plane).items():
            parts.setdefault(label, []).append(runs)
        if len(parts) > _MOST_LABELS:
            raise SegmentationInvalidError(
                f"{path} has over {_MOST_LABELS} labels; it is an image, not a label mask."
            )
    if not parts:
        raise SegmentEmptyError(f"The label mask {path} has no voxel above 0; draw the lesion.")
    grid = _grid(image)
    return tuple(
        seed
        for label in sorted(parts)
        for seed in SEED_MAKERS[per](
            join_runs(parts[label]),
            grid,
            f"label-{label}",
            SeedSource(kind="mask", segment_number=label),
            min_volume_mm3,
        )
    )


def _check_labels(frame: np.ndarray, path: Path) -> None:
    whole = frame.dtype.kind in "iub" or np.array_equal(frame, np.rint(frame))
    if not whole:
        raise SegmentationInvalidError(
            f"{path} holds fractions; threshold it to whole label values first."
        )
    if frame.min() < 0:
        raise SegmentationInvalidError(
            f"{path} holds negative values; it is an image, not a label mask."
        )


def _grid(image: sitk.Image) -> MaskGrid:
    """Take the geometry from the header; ITK's world is LPS whatever the file's is."""
    directions = np.reshape(image.GetDirection(), (3, 3))
    steps_mm = directions * image.GetSpacing()
    n_planes = image.GetDepth()
    planes = np.arange(n_planes)
    return MaskGrid(
        column_step_mm=steps_mm[:, 0],
        row_step_mm=steps_mm[:, 1],
        origins_mm=np.array(image.GetOrigin()) + planes[:, None] * steps_mm[:, 2],
        thickness_mm=np.full(n_planes, image.GetSpacing()[2]),
        layers=planes,
    )
