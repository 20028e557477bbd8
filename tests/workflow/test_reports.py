"""``oncofm run --sr``: a report per CT series, judged by DICOM's own tools."""

import hashlib
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pydicom
import pytest
from heads import write_head
from reports import groups_of, name_of, texts_of
from studies import edit_file, write_study
from tools import require_tool

from oncofm.biomarkers.card import HeadCard
from oncofm.biomarkers.predictions import Prediction, Stability
from oncofm.imaging.sources import FileSource
from oncofm.seeds.dicom_sr import read_sr
from oncofm.workflow.job import run_job
from oncofm.workflow.reports import write_reports
from oncofm.workflow.settings import Settings


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("reports") / "study", "reports", seed=9)


def reports(result):
    return {path.stem.rpartition("-")[2]: path for path in (result.output / "sr").glob("*.dcm")}


@pytest.fixture
def job(cli, study, tmp_path):
    """Run without reports; the `cli` fixture has put in an encoder without a network."""
    return run_job([study.folder], tmp_path / "job", Settings())


def numbers_of(group):
    """Value and unit of the numbers of a group, by concept and target."""
    return {
        (
            name_of(item),
            *(part.ConceptCodeSequence[0].CodeMeaning for part in item.get("ContentSequence", ())),
        ): (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def answers_of(group):
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.ConceptCodeSequence[0].CodeMeaning
        for item in group.ContentSequence
        if item.ValueType == "CODE"
    }


def seeds_of(path, *seg_files):
    segs = {pydicom.dcmread(file).SOPInstanceUID: FileSource(file) for file in seg_files}
    return read_sr(FileSource(path), segmentations=segs, images={}).seeds


def test_reports_of_both_styles(study, cli, tmp_path):
    write_head(tmp_path / "two", n_features=4096)
    result = cli("run", study.folder, "--sr", "both", "--head", tmp_path / "two", tmp_path / "out")
    assert result.code == 0
    written = reports(result)
    assert written.keys() == {"segment", "point"}
    uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in written.values()}
    assert uids == set(result.manifest["reports"]["sop_instance_uids"])
    expected = result.features[["seed_x_mm", "seed_y_mm", "seed_z_mm"]].to_numpy()
    for path in written.values():
        found = [seed.position_mm for seed in seeds_of(path, study.seg_file)]
        np.testing.assert_allclose(found, expected, atol=1e-3)
        judged = subprocess.run(
            [require_tool("dciodvfy"), path], capture_output=True, text=True, check=False
        )
        assert not [line for line in judged.stderr.splitlines() if line.startswith("Error")]
        assert str(study.series_uid) in path.name


def test_every_image_is_evidence(study, cli, tmp_path):
    result = cli("run", study.folder, "--sr", "auto", tmp_path / "out")
    report = pydicom.dcmread(reports(result)["segment"])
    listed = {
        (
            evidence.StudyInstanceUID,
            series.SeriesInstanceUID,
            image.ReferencedSOPClassUID,
            image.ReferencedSOPInstanceUID,
        )
        for evidence in report.CurrentRequestedProcedureEvidenceSequence
        for series in evidence.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    paths = study.folder.rglob("*.dcm")
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    assert listed == {
        (one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPClassUID, one.SOPInstanceUID)
        for one in headers
        if one.Modality in ("CT", "SEG")
    }


def test_the_same_run_gives_the_same_reports(study, cli, tmp_path):
    first, second = (
        reports(cli("run", study.folder, "--sr", "auto", tmp_path / name)) for name in "ab"
    )
    assert first.keys() == second.keys() == {"segment"}
    assert first["segment"].read_bytes() == second["segment"].read_bytes()


def test_parts_of_segments_are_points(study, cli, tmp_path):
    result = cli("run", study.folder, "--per", "component", "--sr", "auto", tmp_path / "out")
    assert reports(result).keys() == {"point"}


def test_two_segs_with_equal_ids_are_one_report_of_points(study, cli, tmp_path):
    shutil.copytree(study.folder, tmp_path / "in")
    shutil.copy(tmp_path / "in" / "seg.dcm", tmp_path / "in" / "seg2.dcm")

    def rename(ds):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID[:-2]}11"

    edit_file(tmp_path / "in" / "seg2.dcm", rename)
    result = cli("run", tmp_path / "in", "--sr", "auto", tmp_path / "out")
    assert result.code == 0
    assert len(seeds_of(reports(result)["point"])) == 6


def test_a_report_that_cannot_be_is_said(study, cli, tmp_path):
    shutil.copytree(study.folder, tmp_path / "in")
    for path in sorted((tmp_path / "in" / "ct").iterdir()):
        edit_file(path, lambda ds: delattr(ds, "FrameOfReferenceUID"))
    result = cli("run", tmp_path / "in", "--sr", "point", tmp_path / "out")
    assert result.code == 2
    (failure,) = result.manifest["reports"]["failures"]
    assert "Frame of Reference" in failure
    assert failure in result.stderr
    assert len(result.features) == 3


def test_reports_of_an_earlier_run_are_removed(study, cli, tmp_path):
    assert reports(cli("run", study.folder, "--sr", "auto", tmp_path / "out"))
    again = cli("run", study.folder, "--sr", "point", tmp_path / "out")
    assert reports(again).keys() == {"point"}
    without = cli("run", study.folder, tmp_path / "out")
    assert without.manifest["reports"] is None
    assert reports(without) == {}


# --- what heads say ------------------------------------------------------------------------


def card(**changes) -> HeadCard:
    fields = {
        "name": "two",
        "title": "Malignancy",
        "kind": "logistic",
        "classes": ("benign", "malignant"),
        "direction": "higher_is_worse",
        "threshold": {"value": 0.4, "chosen": "by hand"},
        "model": "fmcib",
        "profile": "mhub",
        "weights_sha256": "any",
        "n_features": 4096,
        "intended_use": "tests",
        "licence": "Apache-2.0",
    }
    return HeadCard(**(fields | changes))


CLASSES = Prediction(
    card(),
    (0.25, 0.75),
    risk_group="high",
    training_percentile=99.5,
    stability=Stability(7, (0.3, 0.7), (0.125, 0.0625)),
)
SURVIVAL = Prediction(
    card(
        name="cox",
        title="Survival",
        kind="cox",
        classes=(),
        quantity="log hazard ratio",
        threshold={"value": -1.5, "chosen": "median"},
    ),
    (-2.0,),
    risk_group="low",
    stability=Stability(3, (-2.5,), (0.5,)),
)
VOLUME = Prediction(
    card(
        name="doubling",
        title="Doubling time",
        kind="linear",
        classes=(),
        quantity="time",
        unit="d",
        threshold=None,
        direction=None,
    ),
    (120.5,),
)


def test_reports_say_what_heads_say(job, tmp_path):
    outcomes = [
        replace(
            outcome,
            lesions=tuple(
                replace(lesion, predictions=(CLASSES, SURVIVAL, VOLUME))
                for lesion in outcome.lesions
            ),
        )
        for outcome in job.outcomes
    ]
    written = write_reports(tmp_path / "sr", outcomes, job.manifest.configuration, "both")
    assert written.failures == []
    paths = sorted((tmp_path / "sr").iterdir())
    assert len(paths) == len(written.sop_instance_uids) == 2
    for path in paths:
        for group in groups_of(pydicom.dcmread(path)):
            numbers = numbers_of(group)
            assert {key: value for key, value in numbers.items() if len(key) == 2} == {
                ("410668003", "Longest edge of the bounding box"): numbers[
                    "410668003", "Longest edge of the bounding box"
                ],
                ("122157", "Malignancy: benign"): (0.25, "1"),
                ("122157", "Malignancy: malignant"): (0.75, "1"),
                ("threshold", "Malignancy: malignant"): (0.4, "1"),
                ("n-shifts", "Malignancy"): (7, "1"),
                ("shifted-mean", "Malignancy: benign"): (0.3, "1"),
                ("shifted-sd", "Malignancy: benign"): (0.125, "1"),
                ("shifted-mean", "Malignancy: malignant"): (0.7, "1"),
                ("shifted-sd", "Malignancy: malignant"): (0.0625, "1"),
                ("train-percentile", "Malignancy"): (99.5, "%"),
                ("cox.log-3602e10a", "Survival: log hazard ratio"): (-2.0, "1"),
                ("threshold", "Survival: log hazard ratio"): (-1.5, "1"),
                ("n-shifts", "Survival"): (3, "1"),
                ("shifted-mean", "Survival: log hazard ratio"): (-2.5, "1"),
                ("shifted-sd", "Survival: log hazard ratio"): (0.5, "1"),
                ("doubling.time", "Doubling time: time"): (120.5, "d"),
            }
            answers = answers_of(group)
            assert answers["Malignancy: risk group"] == "High risk group"
            assert answers["Survival: risk group"] == "Low risk group"
            assert "Doubling time: risk group" not in answers


def test_a_head_of_the_run_is_in_the_report(study, cli, tmp_path):
    threshold = {"threshold": {"value": 0.5, "chosen": "x"}, "direction": "higher_is_worse"}
    write_head(tmp_path / "two", n_features=4096, **threshold)
    result = cli("run", study.folder, "--sr", "auto", "--head", tmp_path / "two", tmp_path / "out")
    assert result.code == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    groups = groups_of(pydicom.dcmread(reports(result)["segment"]))
    for group, (_, rows) in zip(groups, table.groupby("lesion_id"), strict=True):
        numbers = numbers_of(group)
        for row in rows.itertuples():
            value, _ = numbers["122157", f"A test: {row[rows.columns.get_loc('class') + 1]}"]
            assert value == pytest.approx(row.probability, rel=1e-8)
        (risk,) = set(rows["risk_group"])
        assert answers_of(group)["A test: risk group"] == f"{risk.title()} risk group"


# --- all features --------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["auto", "point"])
def test_full_reports_hold_all_features(job, tmp_path, style):
    written = write_reports(
        tmp_path / "sr", job.outcomes, job.manifest.configuration, style, features="full"
    )
    (outcome,) = job.outcomes
    uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in (tmp_path / "sr").iterdir()}
    assert uids == set(written.sop_instance_uids)
    assert len(uids) == 4
    (group,) = groups_of(
        pydicom.dcmread(tmp_path / "sr" / f"{outcome.case.case_id}-features-2.dcm")
    )
    values = [
        item.MeasuredValueSequence[0].NumericValue
        for item in group.ContentSequence
        if name_of(item).startswith("feature-")
    ]
    features = outcome.done[1].features
    assert np.array(values, dtype=np.float32).tobytes() == features.tobytes()
    digest = hashlib.sha256(features.astype("<f4").tobytes()).hexdigest()
    assert f"features_sha256={digest}" in texts_of(group, "111002")[0]
    places = {item.ValueType for item in group.ContentSequence} & {"SCOORD3D", "IMAGE"}
    assert places == ({"SCOORD3D"} if style == "point" else {"IMAGE"})


def test_a_report_of_features_that_cannot_be_is_said(cli, study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "in")
    for path in sorted((tmp_path / "in" / "ct").iterdir()):
        edit_file(path, lambda ds: delattr(ds, "FrameOfReferenceUID"))
    job = run_job([tmp_path / "in"], tmp_path / "job", Settings())
    written = write_reports(
        tmp_path / "sr", job.outcomes, job.manifest.configuration, "point", features="full"
    )
    assert written.sop_instance_uids == []
    assert len(written.failures) == 4
    assert written.failures[1].startswith(f"Lesion 1 of case {study.series_uid} has no features")


# --- revisions -----------------------------------------------------------------------------


def revised(path):
    return [
        item.ReferencedSOPInstanceUID
        for study in pydicom.dcmread(path).get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def test_reports_revise_those_of_an_earlier_run(job, tmp_path):
    configuration = job.manifest.configuration
    changed = [
        replace(outcome, lesions=outcome.lesions[:2], state=outcome.state)
        for outcome in job.outcomes
    ]
    first = write_reports(tmp_path / "1", job.outcomes, configuration, "both")
    options = {"predecessors": tmp_path / "1"}
    again = write_reports(tmp_path / "2", job.outcomes, configuration, "both", **options)
    assert again == first
    second = write_reports(tmp_path / "3", changed, configuration, "both", **options)
    assert not set(second.sop_instance_uids) & set(first.sop_instance_uids)
    for path in (tmp_path / "3").iterdir():
        old = pydicom.dcmread(tmp_path / "1" / path.name)
        assert revised(path) == [old.SOPInstanceUID]


def test_the_other_style_is_revised_unless_both_are_written(job, tmp_path):
    configuration = job.manifest.configuration
    write_reports(tmp_path / "1", job.outcomes, configuration, "segment")
    options = {"predecessors": tmp_path / "1"}
    write_reports(tmp_path / "2", job.outcomes, configuration, "point", **options)
    write_reports(tmp_path / "3", job.outcomes, configuration, "both", **options)
    (old,) = (tmp_path / "1").iterdir()
    (new,) = (tmp_path / "2").iterdir()
    assert revised(new) == [pydicom.dcmread(old).SOPInstanceUID]
    assert [revised(path) for path in (tmp_path / "3").glob("*-point.dcm")] == [[]]


def test_an_earlier_report_that_cannot_be_used_is_said(job, tmp_path):
    configuration = job.manifest.configuration
    write_reports(tmp_path / "1", job.outcomes, configuration, "both")
    for path in (tmp_path / "1").glob("*-point.dcm"):
        edit_file(path, lambda ds: delattr(ds, "SeriesInstanceUID"))
    (tmp_path / "1" / "other.txt").write_text("nothing")
    written = write_reports(
        tmp_path / "2", job.outcomes, configuration, "both", predecessors=tmp_path / "1"
    )
    (failure,) = written.failures
    assert "has no valid SeriesInstanceUID" in failure
    assert len(written.sop_instance_uids) == 2
