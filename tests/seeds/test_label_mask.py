"""Seeds from label-mask files, against SimpleITK's own statistics."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk
from masks import (
    DIRECTIONS,
    assert_same_components,
    blobs,
    corner_extent_mm,
    itk_components,
    itk_shapes,
)

from oncofm.errors import InputNotFoundError, SegmentationInvalidError, SegmentEmptyError
from oncofm.seeds.label_mask import read_label_mask
from oncofm.seeds.seed import RejectedSeed


def mask_image(array: np.ndarray, direction=DIRECTIONS["axial"]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetOrigin((-210.5, 33.0, -1204.75))
    image.SetSpacing((1.5, 2.25, 4.0))
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    return image


def labels(n_labels: int, dtype=np.uint8) -> np.ndarray:
    """Ragged labels; the last one is 255."""
    array = np.zeros((20, 30, 40), dtype)
    for label in range(1, n_labels + 1):
        array[blobs(array.shape, label)] = 255 if label == n_labels else label
    return array


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_seeds_equal_simpleitks_statistics(tmp_path, direction, suffix):
    path = tmp_path / f"mask größer{suffix}"
    sitk.WriteImage(mask_image(labels(4), direction), str(path))
    image = sitk.ReadImage(str(path))
    seeds = read_label_mask(path)
    expected = itk_shapes(image)
    assert [seed.source.segment_number for seed in seeds] == [1, 2, 3, 255]
    assert [seed.lesion_id for seed in seeds] == ["label-1", "label-2", "label-3", "label-255"]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    for seed, (label, centroid_mm, volume_mm3) in zip(seeds, expected, strict=True):
        assert seed.position_mm == pytest.approx(centroid_mm, abs=1e-3)
        assert seed.volume_mm3 == pytest.approx(volume_mm3)
        voxels = sitk.GetArrayFromImage(image).transpose() == label
        assert seed.extent_mm == pytest.approx(corner_extent_mm(voxels, affine), abs=1e-3)
        assert "multifocal_segment" in [notice.code for notice in seed.notices]


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int64, np.float32, np.float64]
)
def test_any_type_of_whole_numbers(tmp_path, dtype):
    array = np.minimum(labels(3), 3).astype(dtype)
    sitk.WriteImage(mask_image(array), str(tmp_path / "mask.mha"))
    sitk.WriteImage(mask_image(array.astype(np.uint8)), str(tmp_path / "plain.mha"))
    assert read_label_mask(tmp_path / "mask.mha") == read_label_mask(tmp_path / "plain.mha")


def test_components_equal_simpleitks(tmp_path):
    array = np.zeros((20, 30, 40), np.uint8)
    array[blobs(array.shape, 1, share=0.03)] = 9
    sitk.WriteImage(mask_image(array, DIRECTIONS["oblique"]), str(tmp_path / "mask.nrrd"))
    seeds = read_label_mask(tmp_path / "mask.nrrd", per="component")
    expected = itk_components(mask_image(array, DIRECTIONS["oblique"]))
    assert len(seeds) == len(expected) > 5
    assert_same_components(seeds, expected)
    assert seeds[0].lesion_id == "label-9-component-1"


def test_a_label_below_the_minimum_volume_is_rejected(tmp_path):
    array = np.zeros((20, 30, 40), np.uint8)
    array[5, 5, 5] = 1
    array[10:15, 10:15, 10:15] = 2
    sitk.WriteImage(mask_image(array), str(tmp_path / "mask.nrrd"))
    small, large = read_label_mask(tmp_path / "mask.nrrd", min_volume_mm3=100)
    assert isinstance(small, RejectedSeed)
    assert isinstance(small.error, SegmentEmptyError)
    assert large.volume_mm3 == pytest.approx(125 * 13.5)


@pytest.mark.parametrize(
    ("array", "error", "sentence"),
    [
        (np.zeros((3, 4, 5), np.uint8), SegmentEmptyError, "no voxel above 0"),
        (np.full((3, 4, 5), 0.5, np.float32), SegmentationInvalidError, "fractions"),
        (np.full((3, 4, 5), np.nan, np.float32), SegmentationInvalidError, "fractions"),
        (np.full((3, 4, 5), -1000, np.int16), SegmentationInvalidError, "negative"),
        (np.arange(20000).reshape(2, 100, 100), SegmentationInvalidError, "over 10000 labels"),
        (np.zeros((4, 5), np.uint8), SegmentationInvalidError, "2 axes"),
    ],
)
def test_what_is_no_label_mask_is_refused(tmp_path, array, error, sentence):
    path = tmp_path / "mask.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    with pytest.raises(error, match=sentence) as caught:
        read_label_mask(path)
    assert "mask.nrrd" in str(caught.value)


def test_several_values_per_voxel_are_refused(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5, 2), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "mask.nrrd"))
    with pytest.raises(SegmentationInvalidError, match="2 values per voxel"):
        read_label_mask(tmp_path / "mask.nrrd")


def test_damaged_and_absent_files(tmp_path):
    path = tmp_path / "mask.nrrd"
    with pytest.raises(InputNotFoundError):
        read_label_mask(path)
    sitk.WriteImage(mask_image(labels(2)), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SegmentationInvalidError, match="damaged"):
        read_label_mask(path)
    path.write_text("no image")
    with pytest.raises(SegmentationInvalidError, match="damaged"):
        read_label_mask(path)


def test_real_tumour_has_its_reference_seed(shared_data):
    with (shared_data / "reference" / "seeds.csv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    reference_mm = [float(rows["lung1"][f"coord{axis}"]) for axis in "XYZ"]
    path = shared_data / "lung1" / "lung1_label.nrrd"
    (seed,) = read_label_mask(path)
    assert seed.position_mm == pytest.approx(reference_mm, abs=1e-6)
    ((_, _, volume_mm3),) = itk_shapes(sitk.ReadImage(str(path)))
    assert seed.volume_mm3 == pytest.approx(volume_mm3)
