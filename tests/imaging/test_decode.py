"""Frames that need no decoding, read straight from the file: against pydicom's own reading."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)
from studies import write_study

from oncofm.imaging import decode
from oncofm.imaging.decode import decode_frame, locate_pixels
from oncofm.imaging.dicom_series import ct_volumes
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.scan import scan_dicom
from oncofm.imaging.sources import FileSource


def write(path: Path, **changes) -> FileSource:
    """Write two frames of 5 x 7 random 16-bit pixels."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = changes.pop("syntax", ExplicitVRLittleEndian)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.NumberOfFrames = 2
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 5, 7, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.PixelData = np.random.default_rng(0).bytes(140)
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)
    return FileSource(path)


@pytest.fixture
def through_pydicom(monkeypatch) -> list[str]:
    """What pydicom's decoders were asked for during a test."""
    asked: list[str] = []
    get_decoder = decode.get_decoder
    monkeypatch.setattr(decode, "get_decoder", lambda uid: asked.append(uid) or get_decoder(uid))
    return asked


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("stored", [16, 12, 1])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_plain_pixels(tmp_path, syntax, stored, sign, through_pydicom):
    source = write(
        tmp_path / "a.dcm", syntax=syntax, BitsStored=stored, HighBit=stored - 1,
        PixelRepresentation=sign,
    )  # fmt: skip
    location = locate_pixels(source)
    for index in (0, 1):
        frame = decode_frame(source, location, index)
        expected = pixel_array(source.path, index=index, raw=True)
        assert frame.dtype == expected.dtype
        np.testing.assert_array_equal(frame, expected)
    assert through_pydicom == []


@pytest.mark.parametrize(
    "changes",
    [
        {"syntax": ExplicitVRBigEndian},
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Columns": 14},
        {"PhotometricInterpretation": "PALETTE COLOR"},
    ],
)
def test_other_pixels_are_left_to_pydicom(tmp_path, changes, through_pydicom):
    source = write(tmp_path / "a.dcm", **changes)
    frame = decode_frame(source, locate_pixels(source), 1)
    np.testing.assert_array_equal(frame, pixel_array(source.path, index=1, raw=True))
    assert len(through_pydicom) == 1


def test_a_frame_that_breaks_off(tmp_path):
    source = write(tmp_path / "a.dcm")
    source.path.write_bytes(source.path.read_bytes()[:-1])
    location = locate_pixels(source)
    decode_frame(source, location, 0)
    with pytest.raises(ValueError, match="it ends after 69 of 70 bytes of frame 2"):
        decode_frame(source, location, 1)
    with pytest.raises(ValueError, match="it has 2 frames and no frame 3"):
        decode_frame(source, location, 2)


def test_without_pixel_data(tmp_path):
    source = write(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(source.path)
    del dataset.PixelData
    dataset.save_as(source.path)
    with pytest.raises(ValueError, match="it holds no pixel data"):
        locate_pixels(source)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless])
def test_a_file_is_opened_once_to_scan_it_and_twice_to_decode_it(tmp_path, syntax, monkeypatch):
    study = write_study(tmp_path, "opened", transfer_syntax=syntax)
    opened: list[Path] = []
    real = FileSource.open
    monkeypatch.setattr(FileSource, "open", lambda self: opened.append(self.path) or real(self))
    volume = ct_volumes(scan_dicom(study.folder).of_modality("CT")[0]).volumes[0]
    assert sorted(opened) == sorted([*study.ct_files, study.seg_file])
    opened.clear()
    for _ in range(2):
        sample_patch(volume, study.scene.centre_mm, PatchSpec())
    assert 0 < len(set(opened)) < len(study.ct_files)
    assert len(opened) == 2 * len(set(opened))
