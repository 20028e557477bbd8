import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from imaging.oracles import monai_pipeline
from imaging.volumes import noise, sitk_affine, sitk_image

from oncofm.errors import (
    SingleSliceError,
    SliceUndecodableError,
    UnreadableFileError,
    VolumeUnsupportedError,
)
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.volume import Volume
from oncofm.imaging.volume_file import VolumeFile

SHAPE = (30, 20, 10)
AFFINE = np.array([[0.6, 0.48, 0, -7], [0.48, -0.6, 0, 8], [0, 0, -2.5, 9], [0, 0, 0, 1.0]])
NAMES = ("v.nii", "v.nii.gz", "v.nrrd", "v.nhdr", "v.mha", "v.mhd")


def write(path: Path, compress: bool = False, dtype=np.int16) -> Path:
    sitk.WriteImage(sitk_image(noise(SHAPE).astype(dtype), AFFINE), str(path), compress)
    return path


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.int32, np.float64])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_format(tmp_path, name, compress, dtype):
    volume = VolumeFile(write(tmp_path / name, compress, dtype))
    assert isinstance(volume, Volume)
    assert volume.volume_id == name
    assert volume.notices == ()
    assert volume.geometry.shape == SHAPE
    np.testing.assert_allclose(volume.geometry.affine, AFFINE, atol=1e-5)
    box = volume.read_box((3, 4, 5), (20, 12, 9))
    assert box.dtype == np.float32
    np.testing.assert_array_equal(box, noise(SHAPE)[5:9, 4:12, 3:20])
    np.testing.assert_array_equal(volume.read_box((0, 0, 0), SHAPE), noise(SHAPE))


@pytest.mark.parametrize("name", ["v.nii.gz", "v.nrrd", "v.mha"])
def test_a_patch_out_of_a_file(tmp_path, name):
    path = write(tmp_path / name, compress=True)
    affine = sitk_affine(sitk.ReadImage(str(path)))
    seed_mm = tuple((affine @ [14, 9, 4, 1])[:3])
    patch = sample_patch(VolumeFile(path), seed_mm, PatchSpec())
    expected = monai_pipeline(noise(SHAPE), affine)(seed_mm)
    np.testing.assert_allclose(patch.voxels, expected, rtol=0, atol=1e-6)


def test_what_is_compressed_is_decoded_once(tmp_path, monkeypatch):
    reads = []
    read_image = sitk.ReadImage
    monkeypatch.setattr(sitk, "ReadImage", lambda *args: reads.append(args) or read_image(*args))
    volume = VolumeFile(write(tmp_path / "v.nii.gz"))
    assert len(reads) == 0
    for k in range(3):
        volume.read_box((0, 0, k), (30, 20, k + 1))
    assert len(reads) == 1
    for name in ("v.nii", "v.mha"):
        VolumeFile(write(tmp_path / name)).read_box((0, 0, 0), (30, 20, 1))
    assert len(reads) == 1


def test_scaled_nifti(tmp_path):
    path = write(tmp_path / "v.nii")
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([0.5, -3], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(data)
    expected = noise(SHAPE) * 0.5 - 3
    np.testing.assert_array_equal(VolumeFile(path).read_box((0, 0, 0), SHAPE), expected)


def test_a_path_with_spaces_and_umlauts(tmp_path):
    (tmp_path / "Größe 1").mkdir()
    volume = VolumeFile(write(tmp_path / "Größe 1" / "Müller Ä.nrrd"))
    assert volume.volume_id == "Müller Ä.nrrd"
    assert volume.read_box((0, 0, 0), SHAPE).shape == SHAPE[::-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_does_not_exist(tmp_path, name):
    with pytest.raises(UnreadableFileError, match=r"does not exist"):
        VolumeFile(tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"hello\n" * 50])
def test_a_file_that_is_something_else(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"cannot be read"):
        VolumeFile(tmp_path / name)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.nrrd", "v.mha"])
def test_a_file_cut_in_half(tmp_path, name, compress):
    path = write(tmp_path / name, compress)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    volume = VolumeFile(path)
    with pytest.raises(SliceUndecodableError, match=r"cannot be decoded"):
        volume.read_box((0, 0, 9), (30, 20, 10))


def test_four_axes(tmp_path):
    image = sitk.JoinSeries([sitk_image(noise(SHAPE), AFFINE)] * 2)
    sitk.WriteImage(image, str(tmp_path / "v.nii"))
    with pytest.raises(VolumeUnsupportedError, match="4 axes"):
        VolumeFile(tmp_path / "v.nii")


def test_two_axes(tmp_path):
    sitk.WriteImage(sitk.Image(20, 20, sitk.sitkInt16), str(tmp_path / "v.mha"))
    with pytest.raises(VolumeUnsupportedError, match="2 axes"):
        VolumeFile(tmp_path / "v.mha")


def test_several_numbers_per_voxel(tmp_path):
    image = sitk.Compose([sitk_image(noise(SHAPE), AFFINE)] * 3)
    sitk.WriteImage(image, str(tmp_path / "v.nrrd"))
    with pytest.raises(VolumeUnsupportedError, match="per voxel"):
        VolumeFile(tmp_path / "v.nrrd")


def test_one_slice(tmp_path):
    image = sitk_image(noise((20, 20, 1)), AFFINE)
    sitk.WriteImage(image, str(tmp_path / "v.nrrd"))
    with pytest.raises(SingleSliceError):
        VolumeFile(tmp_path / "v.nrrd")


def test_nifti_without_geometry(tmp_path):
    path = write(tmp_path / "v.nii.gz")
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[252:256] = b"\0\0\0\0"  # qform_code, sform_code
    path.write_bytes(gzip.compress(data))
    with pytest.raises(VolumeUnsupportedError, match="where it lies"):
        VolumeFile(path)


def test_nrrd_without_geometry(tmp_path):
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nspacings: 1 1 1\n"
    header += "endian: little\nencoding: raw\n\n"
    (tmp_path / "v.nrrd").write_bytes(header.encode() + bytes(128))
    with pytest.raises(VolumeUnsupportedError, match="where it lies"):
        VolumeFile(tmp_path / "v.nrrd")


def test_metaimage_without_geometry(tmp_path):
    header = "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "v.mha").write_bytes(header.encode() + bytes(128))
    with pytest.raises(VolumeUnsupportedError, match="where it lies"):
        VolumeFile(tmp_path / "v.mha")
