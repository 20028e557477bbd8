"""Structured reports, as dciodvfy, DCMTK, dcmqi, highdicom and our own reader see them."""

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import UID
from reports import (
    ALIVE,
    DECEASED,
    ODD,
    PROVENANCE,
    SURVIVAL,
    UMLAUTS,
    chance,
    describe_lesions,
    groups_of,
    item_of,
    make_odd,
    many,
    name_of,
    texts_of,
)
from studies import Study, write_study
from tools import require_tool

from oncofm.errors import MissingGeometryError, OutputNotWritableError, UnreadableFileError
from oncofm.imaging.sources import FileSource
from oncofm.results.sr import write_sr
from oncofm.results.sr_codes import (
    DECISION_THRESHOLD,
    HIGH_RISK,
    LOW_RISK,
    MM3,
    N_SHIFTS,
    NEOPLASM,
    NO_UNITS,
    PREDICTION_TARGET,
    PROBABILITY,
    SHIFTED_MEAN,
    SHIFTED_SD,
    TRAINING_PERCENTILE,
    private_code,
    ucum,
)
from oncofm.results.sr_series import read_earlier_reports
from oncofm.results.sr_values import (
    ReportedLesion,
    ReportedNumber,
    ReportedRiskGroup,
    Target,
)
from oncofm.seeds.dicom_seg import read_seg
from oncofm.seeds.dicom_sr import read_sr
from oncofm.seeds.seed import Seed

STYLES = ("segment", "point")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return write_study(tmp_path_factory.mktemp("sr"), "sr")


@pytest.fixture(scope="module")
def cts(study) -> list[Dataset]:
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in study.ct_files]


@pytest.fixture(scope="module")
def seg(study) -> Dataset:
    return pydicom.dcmread(study.seg_file, stop_before_pixels=True)


@pytest.fixture
def lesions(study, seg) -> list[ReportedLesion]:
    return describe_lesions(study, seg)


def written(path, *arguments, **options) -> Dataset:
    uid = write_sr(path / "sr.dcm", *arguments, **options)
    report = pydicom.dcmread(path / "sr.dcm")
    assert uid == report.SOPInstanceUID
    return report


# --- what judges say -----------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("case", ["one", "forty", *ODD, "revision"])
def test_validators_find_nothing_wrong(tmp_path, cts, lesions, style, case):
    earlier = []
    if case == "one":
        lesions = lesions[:1]
    elif case == "forty":
        lesions = many(lesions, 40)
    elif case in ODD:
        lesions = make_odd(lesions, case)
    else:
        write_sr(tmp_path / "old.dcm", cts, lesions[:1], PROVENANCE, style=style)
        earlier, _ = read_earlier_reports(tmp_path / "old.dcm", "oncofm")
    write_sr(tmp_path / "sr.dcm", cts, lesions, PROVENANCE, style=style, earlier=earlier)

    verdict = subprocess.run(
        [require_tool("dciodvfy"), str(tmp_path / "sr.dcm")],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (verdict.stdout + verdict.stderr).splitlines()
    assert "Comprehensive3DSR" in lines[0]
    assert [line for line in lines[1:] if "99ONCOFM" not in line] == []

    dump = subprocess.run(
        [require_tool("dsrdump"), "+Pl", str(tmp_path / "sr.dcm")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert dump.stdout.count("Measurement Group") == len(lesions)


@pytest.fixture
def read_by_dcmqi(tmp_path, monkeypatch):
    """Write a report of segments and read it by tid1500reader."""
    programs = str(Path(sys.executable).parent)  # dcmqi comes with the packages
    monkeypatch.setenv("PATH", programs + os.pathsep + os.environ["PATH"])

    def read(cts, lesions) -> dict[str, Any]:
        write_sr(tmp_path / "sr.dcm", cts, lesions, PROVENANCE, style="segment")
        subprocess.run(
            [
                require_tool("tid1500reader"),
                *("--inputDICOM", str(tmp_path / "sr.dcm")),
                *("--outputMetadata", str(tmp_path / "sr.json")),
            ],
            check=True,
            capture_output=True,
        )
        return json.loads((tmp_path / "sr.json").read_text())

    return read


def test_tid1500reader_reads_what_was_written(study, cts, seg, lesions, read_by_dcmqi):
    lesions[0] = replace(lesions[0], label=UMLAUTS, finding=NEOPLASM)
    target = Target("grade", "Grade", "score")
    score = ReportedNumber(target.code, target, -0.25, ucum("mm"))
    lesions = [replace(lesion, numbers=(*lesion.numbers, score)) for lesion in lesions]
    report = read_by_dcmqi(cts, lesions)

    assert set(report["imageLibrary"]) == {ct.SOPInstanceUID for ct in cts}
    assert report["compositeContext"] == [seg.SOPInstanceUID]
    assert report["procedureReported"]["CodeValue"] == "25045-6"
    assert report["observerContext"]["ObserverType"] == "DEVICE"
    assert report["observerContext"]["DeviceObserverName"] == "oncofm"
    assert len(report["Measurements"]) == 3
    for number, (lesion, group) in enumerate(
        zip(lesions, report["Measurements"], strict=True), start=1
    ):
        assert group["TrackingIdentifier"] == lesion.label
        assert group["TrackingUniqueIdentifier"] == lesion.tracking_uid
        assert group["ReferencedSegment"] == number
        assert group["segmentationSOPInstanceUID"] == seg.SOPInstanceUID
        assert group["SourceSeriesForImageSegmentation"] == study.series_uid
        assert group["Finding"]["CodeValue"] == ("108369006" if number == 1 else "52988006")
        assert group["FindingSite"]["CodeValue"] == "38266002"
        algorithm = group["measurementAlgorithmIdentification"]
        assert (algorithm["AlgorithmName"], algorithm["AlgorithmVersion"]) == ("oncofm", "0.1.0")
        for value in ("cd" * 32, "ef" * 32, "ab" * 32, "fmcib-50mm", f"lesion_id=segment-{number}"):
            assert value in algorithm["AlgorithmParameters"][0]
        found = {
            (
                item["quantity"]["CodeValue"],
                item["units"]["CodeValue"],
                *(
                    part["modifierValue"]["CodeMeaning"]
                    for part in item.get("measurementModifiers", ())
                ),
            ): float(item["value"])
            for item in group["measurementItems"]
        }
        assert found == {
            ("118565006", "mm3"): 1234.5 * number,
            ("410668003", "mm"): max(10.0 * number, 20.0),
            ("padded-fraction", "1"): 0.01 * number,
            ("122157", "1", "2-year survival: deceased"): 0.125 * number,
            ("122157", "1", "2-year survival: alive"): 1 - 0.125 * number,
            ("threshold", "1", "2-year survival: alive"): 0.7,
            ("n-shifts", "1", "2-year survival"): 20,
            ("shifted-mean", "1", "2-year survival: alive"): 0.8,
            ("shifted-sd", "1", "2-year survival: alive"): 0.01 * number,
            ("train-percentile", "%", "2-year survival"): 12.5 * number,
            ("grade.score", "mm", "Grade: score"): -0.25,
        }
        answers = {
            item["conceptCode"]["CodeMeaning"]: item["conceptValue"]["CodeMeaning"]
            for item in group["qualitativeEvaluations"]
        }
        assert answers["Intended use"] == "Research use only, not for diagnosis or treatment"
        risk = "High risk group" if number == 3 else "Low risk group"
        assert answers["2-year survival: risk group"] == risk
        assert answers["lesion_exceeds_patch"] == ("Present" if number == 2 else "Absent")


@pytest.mark.parametrize("case", ["one", "forty", *ODD])
def test_tid1500reader_reads_every_report(cts, lesions, read_by_dcmqi, case):
    lesions = lesions_for(case, lesions)
    groups = read_by_dcmqi(cts, lesions)["Measurements"]
    assert len(groups) == len(lesions)
    for lesion, group in zip(lesions, groups, strict=True):
        assert group["TrackingIdentifier"] == identifier_of(lesion, case)
        assert group["TrackingUniqueIdentifier"] == lesion.tracking_uid
        assert group["ReferencedSegment"] == lesion.segment.segment_number
        values = [float(item["value"]) for item in group["measurementItems"]]
        assert values == values_of(lesion)
        answers = [item["conceptValue"]["CodeMeaning"] for item in group["qualitativeEvaluations"]]
        assert f"{'High' if lesion.risk_groups[0].is_high else 'Low'} risk group" in answers


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("case", ["one", pytest.param("forty", marks=pytest.mark.slow), *ODD])
def test_highdicom_reads_every_report(tmp_path, cts, lesions, style, case):
    lesions = lesions_for(case, lesions)
    write_sr(tmp_path / "sr.dcm", cts, lesions, PROVENANCE, style=style)
    content: Any = hd.sr.srread(tmp_path / "sr.dcm").content
    if style == "segment":
        groups = content.get_volumetric_roi_measurement_groups()
    else:
        groups = content.get_planar_roi_measurement_groups()
    for lesion, group in zip(lesions, groups, strict=True):
        assert group.tracking_identifier == identifier_of(lesion, case)
        assert group.tracking_uid == lesion.tracking_uid
        assert [item.value for item in group.get_measurements()] == values_of(lesion)


def lesions_for(case: str, lesions: list[ReportedLesion]) -> list[ReportedLesion]:
    if case in ODD:
        return make_odd(lesions, case)
    return many(lesions, 40) if case == "forty" else lesions[:1]


def identifier_of(lesion: ReportedLesion, case: str) -> str:
    if case == "no label":
        return lesion.lesion_id
    return lesion.label if case == "one" else f"{lesion.label} ({lesion.lesion_id})"


def values_of(lesion: ReportedLesion) -> list[float]:
    return [
        lesion.volume_mm3,
        max(lesion.extent_mm),
        lesion.padded_fraction,
        *(number.value for number in lesion.numbers),
    ]


@pytest.mark.parametrize("style", STYLES)
def test_highdicom_reads_what_was_written(tmp_path, cts, seg, lesions, style):
    write_sr(tmp_path / "sr.dcm", cts, lesions, PROVENANCE, style=style)
    content: Any = hd.sr.srread(tmp_path / "sr.dcm").content
    if style == "segment":
        groups = content.get_volumetric_roi_measurement_groups()
    else:
        groups = content.get_planar_roi_measurement_groups()
    assert len(groups) == 3
    for number, (lesion, group) in enumerate(zip(lesions, groups, strict=True), start=1):
        assert group.tracking_identifier == lesion.label
        assert group.tracking_uid == lesion.tracking_uid
        assert group.finding_type == codes.SCT.Lesion
        assert [site.value for site in group.finding_sites] == [codes.SCT.EntireBody]
        (volume,) = group.get_measurements(codes.SCT.Volume)
        assert volume.value == 1234.5 * number
        assert volume.unit == codes.UCUM.CubicMillimeter
        values = [item.value for item in group.get_measurements(codes.DCM.Probability)]
        assert values == [0.125 * number, 1 - 0.125 * number]
        (percentile,) = group.get_measurements(TRAINING_PERCENTILE)
        assert (percentile.value, percentile.unit) == (12.5 * number, codes.UCUM.Percent)
        target = percentile[0].ContentSequence[0]
        assert (target.name, target.value) == (PREDICTION_TARGET, SURVIVAL.code)
        (answer,) = group.get_qualitative_evaluations(SURVIVAL.qualified("risk-group", ""))
        assert answer.value == (HIGH_RISK if number == 3 else LOW_RISK)
        if style == "segment":
            place = group.referenced_segment
            segment = place.referenced_sop_instance_uid, place.referenced_segment_numbers[0]
            assert segment == (seg.SOPInstanceUID, number)
        else:
            assert group.roi.graphic_type.value == "POINT"
            assert group.roi.value[0].tolist() == pytest.approx(lesion.position_mm, abs=1e-4)
            assert group.roi.frame_of_reference_uid == cts[0].FrameOfReferenceUID


def test_points_come_back_as_seeds(tmp_path, cts, lesions):
    write_sr(tmp_path / "sr.dcm", cts, lesions, PROVENANCE, style="point")
    found = read_sr(FileSource(tmp_path / "sr.dcm"), segmentations={}, images={})
    (group,) = found.groups
    assert group.reference.series_uids == {cts[0].SeriesInstanceUID}
    assert group.reference.frame_of_reference_uid == cts[0].FrameOfReferenceUID
    for lesion, seed in zip(lesions, found.seeds, strict=True):
        assert isinstance(seed, Seed)
        assert seed.position_mm == pytest.approx(lesion.position_mm, abs=1e-4)
        assert seed.source.tracking_id == lesion.label
        assert seed.source.tracking_uid == lesion.tracking_uid


def test_segments_come_back_as_seeds(tmp_path, study, cts, lesions):
    write_sr(tmp_path / "sr.dcm", cts, lesions, PROVENANCE, style="segment")
    segmentation = FileSource(study.seg_file)
    found = read_sr(
        FileSource(tmp_path / "sr.dcm"), segmentations={study.seg_uid: segmentation}, images={}
    )
    expected = read_seg(segmentation).seeds
    assert [seed.source.tracking_uid for seed in found.seeds] == [
        "2.25.771",
        "2.25.772",
        "2.25.773",
    ]
    for seed, from_seg in zip(found.seeds, expected, strict=True):
        assert isinstance(seed, Seed)
        assert isinstance(from_seg, Seed)
        assert seed.position_mm == from_seg.position_mm


# --- groups --------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_all_groups_have_the_same_items(tmp_path, cts, lesions, style):
    report = written(tmp_path, cts, lesions, PROVENANCE, style=style)
    shapes = {tuple(name_of(item) for item in group.ContentSequence) for group in groups_of(report)}
    assert len(shapes) == 1


def test_a_number_that_only_some_lesions_have_comes_last(tmp_path, cts, lesions):
    lesions[0] = replace(lesions[0], volume_mm3=None, padded_fraction=float("nan"))
    report = written(tmp_path, cts, lesions, PROVENANCE, style="segment")
    names = [
        [name_of(item) for item in group.ContentSequence if item.ValueType == "NUM"]
        for group in groups_of(report)
    ]
    common = ["410668003", *(number.name.value for number in lesions[0].numbers)]
    some = ["118565006", "padded-fraction"]
    assert names[0] == common
    for others in names[1:]:
        assert others[: len(common)] == common
        assert sorted(others[len(common) :]) == some


def test_an_answer_that_only_some_lesions_have_comes_last(tmp_path, cts, lesions):
    lesions[0] = replace(lesions[0], risk_groups=())
    report = written(tmp_path, cts, lesions, PROVENANCE, style="segment")
    names = [
        [
            name_of(item)
            for item in group.ContentSequence
            if item.ConceptNameCodeSequence[0].CodingSchemeDesignator == "99ONCOFM"
            and item.ValueType == "CODE"
        ]
        for group in groups_of(report)
    ]
    group_code = SURVIVAL.qualified("risk-group", "").value
    assert names[0] == ["intended-use", names[0][1]]
    assert names[1] == names[2] == [*names[0], group_code]


def test_units_of_heads_are_codes():
    assert ucum("1") == NO_UNITS
    assert ucum("a") == Code("a", "UCUM", "a")
    assert ucum("mm3") == MM3
    for odd in ("months of life", "µm", "m" * 17, "a\\b", ""):
        code = ucum(odd)
        assert code.value == "{arbitrary_unit}"
        assert odd.replace("\\", "/") in code.meaning


def test_heads_cannot_take_the_names_of_other_items():
    ours = {DECISION_THRESHOLD, N_SHIFTS, SHIFTED_MEAN, SHIFTED_SD, TRAINING_PERCENTILE}
    for code in ours:
        assert Target(code.value, "x", "value").code != code
    assert DECEASED.code != ALIVE.code


def test_numbers_of_numpy_are_numbers(tmp_path, cts, lesions):
    lesion = replace(
        lesions[0],
        position_mm=(np.float32(1.5), np.float32(2.5), np.float32(3.5)),
        volume_mm3=np.float32(0.1),
        segment=replace(lesions[0].segment, segment_number=np.int64(1)),
    )
    (group,) = groups_of(written(tmp_path, cts, [lesion], PROVENANCE, style="segment"))
    (value,) = item_of(group, "118565006").MeasuredValueSequence
    assert np.float32(value.NumericValue) == np.float32(0.1)


def test_lesions_without_a_label_are_called_by_their_id(tmp_path, cts, lesions):
    lesions = [
        replace(lesion, label=label)
        for lesion, label in zip(lesions, ("", " \t", "x"), strict=True)
    ]
    report = written(tmp_path, cts, lesions, PROVENANCE, style="point")
    names = [texts_of(group, "112039") for group in groups_of(report)]
    assert names == [["segment-1"], ["segment-2"], ["x"]]


def test_lesions_with_the_same_label_are_told_apart(tmp_path, cts, lesions):
    lesions = [
        replace(lesion, label=label) for lesion, label in zip(lesions, ("x", "x", "y"), strict=True)
    ]
    report = written(tmp_path, cts, lesions, PROVENANCE, style="point")
    names = [texts_of(group, "112039") for group in groups_of(report)]
    assert names == [["x (segment-1)"], ["x (segment-2)"], ["y"]]


def tracking_uids(report: Dataset) -> list[str]:
    return [item_of(group, "112040").UID for group in groups_of(report)]


def test_tracking_uids_are_kept_or_follow_from_the_lesion(tmp_path, cts, lesions):
    first, second, third = lesions
    lesions = [first, replace(second, tracking_uid=""), replace(third, tracking_uid="1.02.x")]
    uids = tracking_uids(written(tmp_path, cts, lesions, PROVENANCE, style="segment"))
    assert uids[0] == "2.25.771"
    assert len(set(uids)) == 3
    assert all(UID(uid).is_valid for uid in uids)
    other = replace(PROVENANCE, configuration_hash="0")
    assert tracking_uids(written(tmp_path, cts, lesions[1:], other, style="point")) == uids[1:]


def test_lesions_do_not_share_a_tracking_uid(tmp_path, cts, lesions):
    lesions = [replace(lesion, tracking_uid="2.25.9") for lesion in lesions]
    uids = tracking_uids(written(tmp_path, cts, lesions, PROVENANCE, style="segment"))
    assert len({*uids, "2.25.9"}) == 4


def test_codes_are_cut_and_texts_are_not(tmp_path, cts, lesions):
    odd = Target("kopf-" + "h" * 70, "Überleben " * 9, "v\\w" * 30)
    numbers = (ReportedNumber(PROBABILITY, odd, 0.5),)
    lesions = [replace(lesions[0], numbers=numbers, label=UMLAUTS, notices=("n" * 70,))]
    (group,) = groups_of(written(tmp_path, cts, lesions, PROVENANCE, style="segment"))
    assert texts_of(group, "112039") == [UMLAUTS]
    target = item_of(group, "122157").ContentSequence[0].ConceptCodeSequence[0]
    assert target.CodingSchemeDesignator == "99ONCOFM"
    assert len(target.CodeValue.encode()) == 16
    assert len(target.CodeMeaning.encode()) <= 64
    assert "\\" not in target.CodeMeaning
    parameters = texts_of(group, "111002")
    for name in (odd.head, odd.title.strip(), odd.output, "n" * 70):
        assert any(name in parameter for parameter in parameters)
    assert any(target.CodeValue in parameter for parameter in parameters)


def test_what_no_character_set_can_carry_is_replaced(tmp_path, cts, lesions):
    number = chance("a\ud800b", "t\x00", "\ud800", 0.5)
    group = ReportedRiskGroup(number.target, is_high=True)
    lesions = [replace(lesions[0], label="a\x00b\ud800c", numbers=(number,), risk_groups=(group,))]
    (group,) = groups_of(written(tmp_path, cts, lesions, PROVENANCE, style="segment"))
    assert texts_of(group, "112039") == ["a b c"]


@pytest.mark.parametrize("name", ["", "ü", "a" * 17, "a\\b", " a", "a" * 16 + " "])
def test_a_name_that_is_no_code_value_becomes_one(name):
    code = private_code(name, "")
    assert 0 < len(code.value) <= 16
    assert code.value.isascii()
    assert code.value.strip() == code.value
    assert "\\" not in code.value
    assert code.value != private_code(name + "a", "").value
    assert code.meaning == code.value


def test_short_names_are_their_own_codes():
    assert tuple(private_code("short-name", "x")) == ("short-name", "99ONCOFM", "x", None)


# --- the document --------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_the_same_arguments_give_the_same_bytes(tmp_path, cts, lesions, style):
    for name, images in {"a": cts, "b": cts[::-1]}.items():
        write_sr(tmp_path / name, images, lesions, PROVENANCE, style=style)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_uids_follow_from_what_the_report_says(tmp_path, cts, lesions):
    def uids(lesions, provenance=PROVENANCE, style="segment", **options):
        report = written(tmp_path, cts, lesions, provenance, style=style, **options)
        return report.SeriesInstanceUID, report.SOPInstanceUID

    series, instance = uids(lesions)
    other_result = uids([replace(lesions[0], padded_fraction=0.5), *lesions[1:]])
    assert other_result[0] == series
    assert other_result[1] != instance
    for field in dataclasses.fields(PROVENANCE):
        changed = uids(lesions, replace(PROVENANCE, **{field.name: "other"}))
        assert changed[0] != series
        assert changed[1] != instance
    points = uids(lesions, style="point")
    assert points[0] != series
    assert points[1] != instance


def test_a_copy_in_another_study_has_a_report_of_its_own(tmp_path, cts, lesions):
    (copy,) = changed(cts, StudyInstanceUID="1.2.3")
    here, there = (
        written(tmp_path, [ct], lesions, PROVENANCE, style="point") for ct in (cts[0], copy)
    )
    assert there.StudyInstanceUID == "1.2.3"
    assert here.SeriesInstanceUID != there.SeriesInstanceUID
    assert here.SOPInstanceUID != there.SOPInstanceUID


@pytest.mark.parametrize("style", STYLES)
def test_images_and_seg_are_listed_as_evidence(tmp_path, cts, seg, lesions, style):
    report = written(tmp_path, cts, lesions, PROVENANCE, style=style)
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    listed = {
        series.SeriesInstanceUID: {
            item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence
        }
        for series in study.ReferencedSeriesSequence
    }
    assert listed == {
        cts[0].SeriesInstanceUID: {ct.SOPInstanceUID for ct in cts},
        seg.SeriesInstanceUID: {seg.SOPInstanceUID},
    }


def test_a_seg_of_another_study_is_evidence_of_that_study(tmp_path, cts, lesions):
    segment = replace(lesions[0].segment, study_uid="2.25.4711")
    lesions = [replace(lesions[0], segment=segment)]
    report = written(tmp_path, cts, lesions, PROVENANCE, style="segment")
    (other,) = report.PertinentOtherEvidenceSequence
    assert other.StudyInstanceUID == "2.25.4711"


def test_points_need_no_seg(tmp_path, cts, lesions):
    lesions = [replace(lesions[0], segment=None, volume_mm3=None, extent_mm=None, numbers=())]
    report = written(tmp_path, cts, lesions, PROVENANCE, style="point")
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence) == 1
    (group,) = groups_of(report)
    assert [name_of(item) for item in group.ContentSequence if item.ValueType == "NUM"] == [
        "padded-fraction"
    ]


def changed(cts, **values) -> list[Dataset]:
    first = deepcopy(cts[0])
    for keyword, value in values.items():
        if value is None:
            first.pop(keyword, None)
        else:
            setattr(first, keyword, value)
    return [first]


def test_patient_and_study_are_those_of_the_series(tmp_path, cts, lesions):
    images = changed(
        cts,
        PatientName="Müller^Jörg=山田",
        PatientID="4711",
        PatientBirthDate="19500607",
        StudyDescription="Größe",
        ClinicalTrialSubjectID="S1",
        InstitutionName="Hospital",
        StationName="CT1",
        OperatorsName="Canary^Operator",
        ImageComments="Canary",
    )
    report = written(tmp_path, images, lesions, PROVENANCE, style="point")
    assert report.SpecificCharacterSet == "ISO_IR 192"
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID"):
        assert report[keyword].value == images[0][keyword].value
    for keyword in ("StudyDate", "StudyTime", "StudyDescription", "ClinicalTrialSubjectID"):
        assert report[keyword].value == images[0][keyword].value
    for keyword in ("InstitutionName", "StationName", "OperatorsName", "ImageComments"):
        assert keyword not in report
    assert "Canary" not in str(report)


def test_names_in_another_character_set_are_converted(tmp_path, cts, lesions):
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "Ö1", "Köln"
    image = changed(
        cts,
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller^Jörg",
        StudyDescription="Größe",
        OtherPatientIDsSequence=[other],
    )[0]
    image.save_as(tmp_path / "latin.dcm")
    first = pydicom.dcmread(tmp_path / "latin.dcm")
    report = written(tmp_path, [first], lesions, PROVENANCE, style="point")
    assert str(report.PatientName) == "Müller^Jörg"
    assert report.StudyDescription == "Größe"
    assert report.OtherPatientIDsSequence[0].IssuerOfPatientID == "Köln"


def test_what_cannot_be_read_of_patient_and_study_is_left_empty(tmp_path, cts, lesions):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = changed(cts, AccessionNumber=None, ReferringPhysicianName=None, PatientSex=None)
        for keyword, value in {
            "PatientBirthDate": b"nineteen",
            "StudyTime": b"99:99",
            "PatientWeight": b"heavy!",
        }.items():
            tag = Tag(keyword)
            vr = dictionary_VR(tag)
            images[0][tag] = RawDataElement(tag, vr, len(value), value, 0, False, True, True)
        report = written(tmp_path, images, lesions, PROVENANCE, style="point")
    assert "PatientWeight" not in report
    for keyword in ("PatientBirthDate", "StudyTime", "AccessionNumber", "PatientSex"):
        assert not report[keyword].value
    assert (report.ContentDate, report.ContentTime) == ("20200102", "000000")


def test_the_date_is_that_of_the_study(tmp_path, cts, lesions):
    report = written(tmp_path, cts, lesions, PROVENANCE, style="point")
    assert (report.ContentDate, report.ContentTime) == ("20200102", "030405")
    images = changed(cts, StudyTime="010203.654321")
    report = written(tmp_path, images, lesions, PROVENANCE, style="point")
    assert (report.ContentDate, report.ContentTime) == ("20200102", "010203")
    dates = dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"))
    report = written(tmp_path, changed(cts, **dates), lesions, PROVENANCE, style="point")
    assert (report.ContentDate, report.ContentTime) == ("19000101", "000000")


def test_the_report_names_software_scheme_and_use(tmp_path, cts, lesions):
    report = written(tmp_path, cts, lesions, PROVENANCE, style="segment")
    (equipment,) = report.ContributingEquipmentSequence
    assert (equipment.Manufacturer, equipment.SoftwareVersions) == ("oncofm", "0.1.0")
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99ONCOFM"
    assert "research use only" in report.SeriesDescription
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_no_name_gets_into_warnings_and_logs(tmp_path, cts, lesions, recwarn, caplog):
    images = changed(cts, PatientName="Canary", ReferringPhysicianName="Canary")
    lesions = [replace(lesion, label="Canary") for lesion in lesions]
    write_sr(tmp_path / "sr.dcm", images, lesions, PROVENANCE, style="segment")
    assert "Canary" not in caplog.text
    assert not [warning for warning in recwarn if "Canary" in str(warning.message)]


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_an_image_without_uids_is_refused(tmp_path, cts, lesions, keyword):
    with pytest.raises(UnreadableFileError, match=rf"no valid {keyword}.*export it again"):
        write_sr(
            tmp_path / "sr.dcm",
            changed(cts, **{keyword: None}),
            lesions,
            PROVENANCE,
            style="segment",
        )
    assert not (tmp_path / "sr.dcm").exists()


def test_a_seg_without_uids_is_refused(tmp_path, cts, lesions):
    segment = replace(lesions[0].segment, series_uid="")
    with pytest.raises(UnreadableFileError, match=r"^SEG .* no valid SeriesInstanceUID"):
        write_sr(
            tmp_path / "sr.dcm",
            cts,
            [replace(lesions[0], segment=segment)],
            PROVENANCE,
            style="segment",
        )


def test_points_need_a_frame_of_reference(tmp_path, cts, lesions):
    images = changed(cts, FrameOfReferenceUID=None)
    with pytest.raises(MissingGeometryError, match=r"Frame of Reference.*report segments instead"):
        write_sr(tmp_path / "sr.dcm", images, lesions, PROVENANCE, style="point")
    write_sr(tmp_path / "sr.dcm", images, lesions, PROVENANCE, style="segment")


def test_a_folder_that_is_not_there_is_named(tmp_path, cts, lesions):
    with pytest.raises(OutputNotWritableError, match=r"sr\.dcm"):
        write_sr(tmp_path / "absent/sr.dcm", cts, lesions, PROVENANCE, style="point")


def test_calls_that_make_no_sense_are_refused(tmp_path, cts, lesions):
    path = tmp_path / "sr.dcm"
    with pytest.raises(ValueError, match="needs the images"):
        write_sr(path, [], lesions, PROVENANCE, style="point")
    with pytest.raises(ValueError, match="needs a lesion"):
        write_sr(path, cts, [], PROVENANCE, style="point")
    with pytest.raises(ValueError, match="ids of their own"):
        write_sr(path, cts, [lesions[0]] * 2, PROVENANCE, style="point")
    images = [*changed(cts, SeriesInstanceUID="2.25.1"), *cts]
    with pytest.raises(ValueError, match="images of one series"):
        write_sr(path, images, lesions, PROVENANCE, style="point")
    lesion = replace(lesions[0], segment=None)
    with pytest.raises(ValueError, match="needs the segment of segment-1"):
        write_sr(path, cts, [lesion], PROVENANCE, style="segment")
