"""Reports of all features of a lesion, as dciodvfy, DCMTK, pydicom and highdicom see them."""

import subprocess
import time
from dataclasses import replace
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from reports import PROVENANCE, describe_lesions, groups_of, item_of, many, name_of, texts_of
from studies import Study, write_study
from tools import require_tool

from oncofm.results.sr import write_sr
from oncofm.results.sr_codes import private_code
from oncofm.results.sr_features import features_digest, write_features_sr
from oncofm.results.sr_groups import identify_lesions
from oncofm.results.sr_values import ReportedLesion

STYLES = ("segment", "point")
RNG = np.random.default_rng(0)
FEATURES = np.concatenate(
    [
        RNG.normal(size=4000).astype(np.float32),
        RNG.integers(0, 2**23, 90, dtype=np.uint32).view(np.float32),  # subnormal
        np.array([0, -0.0, 1 / 3, -3.4028235e38, 3.4028235e38, 1e-45], dtype=np.float32),
    ]
)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return write_study(tmp_path_factory.mktemp("features"), "features")


@pytest.fixture(scope="module")
def cts(study) -> list[Dataset]:
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in study.ct_files]


@pytest.fixture(scope="module")
def lesions(study) -> list[ReportedLesion]:
    return describe_lesions(study, pydicom.dcmread(study.seg_file, stop_before_pixels=True))


def numbers_of(group: Dataset) -> dict[str, str]:
    return {
        name_of(item): str(item.MeasuredValueSequence[0].NumericValue)
        for item in group.ContentSequence
        if item.ValueType == "NUM" and name_of(item).startswith("feature-")
    }


def test_every_feature_is_there_to_the_last_bit(tmp_path, cts, lesions):
    path = tmp_path / "f.dcm"
    uid = write_features_sr(path, cts, lesions[1], FEATURES, PROVENANCE, style="segment", number=2)
    assert path.stat().st_size < 200_000
    report = pydicom.dcmread(path)
    assert report.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    assert report.SOPInstanceUID == report.file_meta.MediaStorageSOPInstanceUID == uid
    assert report.InstanceNumber == 2
    (group,) = groups_of(report)
    numbers = numbers_of(group)
    assert list(numbers) == [f"feature-{index:04}" for index in range(4096)]
    values = np.array(list(numbers.values())).astype(np.float32)
    assert values.tobytes() == FEATURES.tobytes()
    assert f"features_sha256={features_digest(FEATURES)}" in texts_of(group, "111002")[0]


@pytest.mark.parametrize("style", STYLES)
def test_it_is_about_the_same_lesion_as_the_other_report(tmp_path, cts, lesions, style):
    lesions = [replace(lesion, label="same", tracking_uid="2.25.1") for lesion in lesions]
    write_sr(tmp_path / "sr.dcm", cts, lesions, PROVENANCE, style=style)
    main = pydicom.dcmread(tmp_path / "sr.dcm")
    for number, lesion in enumerate(identify_lesions(lesions, cts[0].SeriesInstanceUID), start=1):
        write_features_sr(
            tmp_path / "f.dcm", cts, lesion, FEATURES[:8], PROVENANCE, style=style, number=number
        )
        report = pydicom.dcmread(tmp_path / "f.dcm")
        (group,), other = groups_of(report), groups_of(main)[number - 1]
        assert item_of(group, "112040").UID == item_of(other, "112040").UID
        assert texts_of(group, "112039") == texts_of(other, "112039")
        place = "121191" if style == "segment" else "111030"
        assert item_of(group, place) == item_of(other, place)
        evidence = "CurrentRequestedProcedureEvidenceSequence"
        assert report[evidence][0].StudyInstanceUID == main[evidence][0].StudyInstanceUID
        series = {item.SeriesInstanceUID for item in report[evidence][0].ReferencedSeriesSequence}
        assert series <= {
            item.SeriesInstanceUID for item in main[evidence][0].ReferencedSeriesSequence
        }
        assert cts[0].SeriesInstanceUID in series
        assert report.SeriesInstanceUID != main.SeriesInstanceUID
        assert "122157" not in {name_of(item) for item in group.ContentSequence}


@pytest.mark.parametrize(("style", "n"), [("segment", 4096), ("point", 64)])
def test_validators_find_nothing_wrong(tmp_path, cts, lesions, style, n):
    path, plain = tmp_path / "f.dcm", tmp_path / "plain.dcm"
    write_features_sr(path, cts, lesions[0], FEATURES[:n], PROVENANCE, style=style, number=1)
    dump = subprocess.run(
        [require_tool("dsrdump"), "+Pl", path], capture_output=True, text=True, check=True
    )
    assert dump.stdout.count("contains NUM:") == n + 3
    # dciodvfy cannot inflate.
    subprocess.run([require_tool("dcmconv"), "+te", path, plain], check=True)
    verdict = subprocess.run(
        [require_tool("dciodvfy"), plain], capture_output=True, text=True, check=False
    )
    lines = (verdict.stdout + verdict.stderr).splitlines()
    assert "Comprehensive3DSR" in lines[0]
    assert [line for line in lines[1:] if "99ONCOFM" not in line] == []


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_highdicom_reads_it(tmp_path, cts, lesions, style):
    path = tmp_path / "f.dcm"
    write_features_sr(path, cts, lesions[0], FEATURES, PROVENANCE, style=style, number=1)
    content: Any = hd.sr.srread(path).content
    if style == "segment":
        (group,) = content.get_volumetric_roi_measurement_groups()
    else:
        (group,) = content.get_planar_roi_measurement_groups()
    assert group.tracking_uid == lesions[0].tracking_uid
    values = {item.name.value: item.value for item in group.get_measurements()}
    found = np.array([values[f"feature-{index:04}"] for index in range(4096)], dtype=np.float32)
    assert found.tobytes() == FEATURES.tobytes()
    assert private_code("feature-0000", "").value in values


def test_reports_take_little_time(tmp_path, cts, lesions):
    """In seconds of this process: those of the wall depend on what else the machine does."""

    def seconds(write, *arguments, **options):
        start = time.process_time()
        write(tmp_path / "sr.dcm", cts, *arguments, PROVENANCE, style="segment", **options)
        return time.process_time() - start

    seconds(write_sr, lesions)
    assert seconds(write_sr, lesions[:1]) < 1
    assert seconds(write_sr, many(lesions, 40)) < 10
    assert seconds(write_features_sr, lesions[0], FEATURES, number=1) < 3


def test_the_same_features_are_the_same_instance(tmp_path, cts, lesions):
    def write(features, **options):
        path = tmp_path / "f.dcm"
        options = {"style": "point", "number": 1} | options
        uid = write_features_sr(path, cts, lesions[0], features, PROVENANCE, **options)
        return uid, path.read_bytes()

    features = FEATURES[:16]
    first = write(features)
    assert write(features.copy()) == first
    other = features.copy()
    other[7] = np.nextafter(other[7], np.float32(np.inf))
    uids = {first[0], write(other)[0], write(features, style="segment")[0]}
    assert len(uids) == 3


def test_features_that_are_none_are_refused(tmp_path, cts, lesions):
    for features in (FEATURES[None], np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match="one row of finite features"):
            write_features_sr(
                tmp_path / "f", cts, lesions[0], features, PROVENANCE, style="point", number=1
            )
