"""Key images, as dciodvfy and DCMTK see them, against the overlay in a PNG file."""

import subprocess
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID
from studies import Study, write_study
from tools import require_tool

from oncofm.errors import OutputNotWritableError, SeedOutsideVolumeError, UnreadableFileError
from oncofm.imaging.dicom_series import ct_volumes
from oncofm.imaging.scan import scan_dicom
from oncofm.imaging.volume import Volume
from oncofm.results.key_image import key_picture, write_key_image
from oncofm.results.overlay import draw_overlay
from oncofm.results.overlay_drawing import HEADING_PX, MOST_LINES
from oncofm.results.sr_values import ReportProvenance
from oncofm.seeds.seed import Seed, SeedSource

LINES = ("malignancy: malignant 0.812", "survival: risk 1.25, high")
PROVENANCE = ReportProvenance(
    software="oncofm",
    version="0.1.0",
    model="fmcib",
    weights_sha256="cd" * 32,
    profile="fmcib-50mm",
    configuration_hash="ef" * 32,
)
HEADING_RGB = (255, 140, 60)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return write_study(tmp_path_factory.mktemp("key"), "key")


@pytest.fixture(scope="module")
def cts(study) -> list[Dataset]:
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in study.ct_files]


@pytest.fixture(scope="module")
def volume(study) -> Volume:
    (series,) = scan_dicom(study.folder / "ct").series
    return ct_volumes(series).volumes[0]


@pytest.fixture(scope="module")
def seed(study) -> Seed:
    return Seed(
        "segment-1", study.scene.lesions[0].centre_mm, SeedSource("seg"), (20.0, 20.0, 20.0)
    )


def written(path: Path, cts, volume, seed, **options: Any) -> Dataset:
    options = {"lines": LINES, "provenance": PROVENANCE, "number": 1} | options
    uid = write_key_image(path / "key.dcm", cts, volume, seed, **options)
    image = pydicom.dcmread(path / "key.dcm")
    assert uid == image.SOPInstanceUID
    return image


def changed(cts, **values) -> list[Dataset]:
    headers = deepcopy(cts[:3])
    for header in headers:
        for keyword, value in values.items():
            if value is None:
                header.pop(keyword, None)
            else:
                setattr(header, keyword, value)
    return headers


def errors_of(path: Path) -> list[str]:
    verdict = subprocess.run(
        [require_tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    lines = (verdict.stdout + verdict.stderr).splitlines()
    assert "SCImage" in lines
    return [line for line in lines if line.startswith("Error")]


# --- the picture ---------------------------------------------------------------------------


def test_dcmtk_shows_the_overlay_between_heading_and_lines(tmp_path, cts, volume, seed):
    written(tmp_path, cts, volume, seed)
    subprocess.run(
        [require_tool("dcm2pnm"), str(tmp_path / "key.dcm"), str(tmp_path / "key.ppm")], check=True
    )
    draw_overlay(volume, seed, tmp_path / "overlay.png")
    with Image.open(tmp_path / "key.ppm") as shown, Image.open(tmp_path / "overlay.png") as overlay:
        pixels, planes = np.asarray(shown), np.asarray(overlay)
    below = HEADING_PX + len(planes)
    np.testing.assert_array_equal(pixels[HEADING_PX:below], planes)
    assert ((pixels[:HEADING_PX] == HEADING_RGB).all(axis=-1)).sum() > 1000
    assert (pixels[below:].max(axis=-1) > 200).sum() > 1000
    np.testing.assert_array_equal(pixels, key_picture(volume, seed, LINES))


def test_every_line_has_a_place_of_its_own(volume, seed):
    neither, first, second, both = (
        key_picture(volume, seed, lines).astype(int)
        for lines in (("", ""), (LINES[0], ""), ("", LINES[1]), LINES)
    )
    drawn = [(picture != neither).any(axis=-1) for picture in (first, second)]
    assert all(part.any() for part in drawn)
    rows = [np.flatnonzero(part.any(axis=1)) for part in drawn]
    assert rows[0].max() < rows[1].min()
    np.testing.assert_array_equal(first + second - neither, both)
    assert len(key_picture(volume, seed, ())) < len(neither)


@pytest.mark.parametrize(
    "line", ["", "two\nlines\ttab", "x" * 50_000, "Läsion 病变 \ud800\x00\u202e", "\u0301" * 300]
)
def test_any_text_stays_on_its_line(line, tmp_path, cts, volume, seed):
    image = written(tmp_path, cts, volume, seed, lines=(line, LINES[1]))
    found, plain = image.pixel_array, key_picture(volume, seed, LINES)
    assert found.shape == plain.shape
    edge = [slice(None), slice(-6, None)]
    for part in (slice(0, HEADING_PX + 600), slice(-42, None), tuple(edge)):
        np.testing.assert_array_equal(found[part], plain[part])


def test_many_lines_are_counted(volume, seed):
    full = key_picture(volume, seed, ["a"] * MOST_LINES)
    more, most = (key_picture(volume, seed, ["a"] * n) for n in (MOST_LINES + 1, 10_000))
    assert full.shape[0] < more.shape[0] == most.shape[0]
    assert (more != most).any()  # says how many


# --- the object ----------------------------------------------------------------------------


def test_validators_find_no_error(tmp_path, cts, volume, seed):
    written(tmp_path, cts, volume, seed)
    assert errors_of(tmp_path / "key.dcm") == []
    odd = replace(PROVENANCE, software="ö" * 70, model="a\\b", version="v" * 70)
    written(tmp_path, cts, volume, seed, provenance=odd)
    assert errors_of(tmp_path / "key.dcm") == []
    dump = subprocess.run(
        [require_tool("dcmdump"), str(tmp_path / "key.dcm")], capture_output=True, check=True
    )
    assert b"=SecondaryCaptureImageStorage" in dump.stdout


def test_what_it_says_about_itself(tmp_path, study, cts, volume, seed):
    image = written(tmp_path, cts, volume, seed, number=3)
    assert image.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (image.BurnedInAnnotation, image.ConversionType) == ("YES", "WSD")
    assert list(image.ImageType) == ["DERIVED", "SECONDARY"]
    assert "research use only" in image.SeriesDescription
    assert "Research use only" in image.DerivationDescription
    assert (image.Modality, image.InstanceNumber) == ("OT", 3)
    assert (image.ContentDate, image.ContentTime) == ("20200102", "030405")
    sources = {item.ReferencedSOPInstanceUID for item in image.SourceImageSequence}
    assert sources == {ct.SOPInstanceUID for ct in cts}
    assert image.StudyInstanceUID == cts[0].StudyInstanceUID
    assert image.SeriesInstanceUID != study.series_uid
    (equipment,) = image.ContributingEquipmentSequence
    assert (equipment.Manufacturer, equipment.SoftwareVersions) == ("oncofm", "0.1.0")
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert image.LossyImageCompression == "00"


def test_a_lossy_source_makes_a_lossy_picture(tmp_path, cts, volume, seed):
    headers = changed(cts, LossyImageCompression="01")
    assert written(tmp_path, headers, volume, seed).LossyImageCompression == "01"


def test_same_lesion_gives_the_same_bytes(tmp_path, cts, volume, seed):
    first = written(tmp_path, cts, volume, seed)
    content = (tmp_path / "key.dcm").read_bytes()
    written(tmp_path, cts[::-1], volume, seed)
    assert (tmp_path / "key.dcm").read_bytes() == content
    assert UID(first.SOPInstanceUID).is_valid
    others = [
        written(tmp_path, cts, volume, seed, lines=LINES[:1]),
        written(tmp_path, cts, volume, seed, number=2),
        written(tmp_path, cts, volume, replace(seed, lesion_id="segment-2")),
    ]
    assert {other.SeriesInstanceUID for other in others} == {first.SeriesInstanceUID}
    assert len({image.SOPInstanceUID for image in (first, *others)}) == 4
    changed_run = replace(PROVENANCE, configuration_hash="0")
    other = written(tmp_path, cts, volume, seed, provenance=changed_run)
    assert other.SeriesInstanceUID != first.SeriesInstanceUID


def test_a_copy_in_another_study_has_a_picture_of_its_own(tmp_path, cts, volume, seed):
    copies = changed(cts, StudyInstanceUID="1.2.3")
    here, there = (written(tmp_path, images, volume, seed) for images in (cts[:3], copies))
    assert here.SeriesInstanceUID != there.SeriesInstanceUID
    assert here.SOPInstanceUID != there.SOPInstanceUID


# --- the patient ---------------------------------------------------------------------------


def test_the_name_is_in_the_attributes_of_the_patient_alone(
    tmp_path, cts, volume, seed, recwarn, caplog
):
    headers = changed(
        cts,
        PatientName="Canary",
        OperatorsName="Canary",
        ImageComments="Canary",
        StationName="Canary",
        LossyImageCompression="Canary",
    )
    for number, header in enumerate(headers):
        header.save_as(tmp_path / f"{number}.dcm")
    headers = [pydicom.dcmread(tmp_path / f"{number}.dcm") for number in range(len(headers))]
    caplog.clear()
    recwarn.clear()
    image = written(tmp_path, headers, volume, seed)
    assert image.PatientName == "Canary"
    assert (tmp_path / "key.dcm").read_bytes().count(b"Canary") == 1
    assert "Canary" not in caplog.text
    assert not [str(warning.message) for warning in recwarn if "Canary" in str(warning.message)]
    plain = written(tmp_path, changed(cts), volume, seed)
    np.testing.assert_array_equal(image.pixel_array, plain.pixel_array)


def test_what_is_unknown_of_patient_and_study_is_left_empty(tmp_path, cts, volume, seed):
    unknown = dict.fromkeys(
        ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyTime")
    )
    image = written(tmp_path, changed(cts, **unknown, StudyDate=None), volume, seed)
    assert not any(image[keyword].value for keyword in (*unknown, "StudyDate"))
    assert errors_of(tmp_path / "key.dcm") == []


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_an_image_without_uids_is_refused(tmp_path, cts, volume, seed, keyword):
    with pytest.raises(UnreadableFileError, match=rf"no valid {keyword}.*export it again"):
        written(tmp_path, changed(cts, **{keyword: None}), volume, seed)
    assert list(tmp_path.iterdir()) == []


def test_calls_that_make_no_sense_are_refused(tmp_path, cts, volume, seed):
    with pytest.raises(ValueError, match="needs the images"):
        written(tmp_path, [], volume, seed)
    headers = [*changed(cts, SeriesInstanceUID="2.25.1"), *cts]
    with pytest.raises(ValueError, match="images of one series"):
        written(tmp_path, headers, volume, seed)


def test_a_seed_outside(tmp_path, cts, volume, seed):
    with pytest.raises(SeedOutsideVolumeError):
        written(tmp_path, cts, volume, replace(seed, position_mm=(1e4, 0.0, 0.0)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path, cts, volume, seed):
    with pytest.raises(OutputNotWritableError, match=r"key\.dcm cannot be written"):
        written(tmp_path / "absent", cts, volume, seed)
