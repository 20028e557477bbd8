"""Reports that revise earlier ones."""

from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from reports import PROVENANCE, describe_lesions
from studies import Study, edit_file, write_study

from oncofm.results.sr import write_sr
from oncofm.results.sr_features import write_features_sr
from oncofm.results.sr_series import read_earlier_reports
from oncofm.results.sr_values import ReportedLesion

STYLES = ("segment", "point")
FEATURES = np.arange(8, dtype=np.float32)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return write_study(tmp_path_factory.mktemp("revisions"), "revisions")


@pytest.fixture(scope="module")
def cts(study) -> list[Dataset]:
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in study.ct_files[:4]]


@pytest.fixture(scope="module")
def lesions(study) -> list[ReportedLesion]:
    return describe_lesions(study, pydicom.dcmread(study.seg_file, stop_before_pixels=True))


@pytest.fixture
def write(tmp_path, cts, lesions):
    """Write a report of some lesions into a folder, as a revision of what lies in another."""

    def run(name, *, n=3, earlier=None, style="segment", images=None, provenance=PROVENANCE):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        found = read_earlier_reports(tmp_path / earlier, "oncofm")[0] if earlier else []
        write_sr(target, images or cts, lesions[:n], provenance, style=style, earlier=found)
        return pydicom.dcmread(target)

    return run


def revised(report: Dataset) -> list[str]:
    return [
        item.ReferencedSOPInstanceUID
        for study in report.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def moment(report: Dataset) -> datetime:
    return datetime.strptime(report.ContentDate + report.ContentTime, "%Y%m%d%H%M%S")


@pytest.mark.parametrize("style", STYLES)
def test_a_revision_names_its_predecessor(write, style):
    first = write("a/sr.dcm", n=1, style=style)
    assert revised(first) == []
    second = write("b/sr.dcm", n=2, earlier="a", style=style)
    assert revised(second) == [first.SOPInstanceUID]
    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert study.StudyInstanceUID == first.StudyInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    (item,) = series.ReferencedSOPSequence
    assert item.ReferencedSOPClassUID == first.SOPClassUID
    assert moment(second) == moment(first) + timedelta(seconds=1)
    equipment = second.ContributingEquipmentSequence[0]
    assert equipment.ContributionDateTime.startswith(second.ContentDate + second.ContentTime)


def test_the_same_result_is_no_revision(write, tmp_path):
    """Whatever lies in the folder: the report, and revisions of it, come out the same again."""
    names = ["a/0.dcm", "a/1.dcm", "a/2.dcm", "a/3.dcm"]
    for name, n in zip(names, (1, 2, 1, 3), strict=True):
        report = write(name, n=n, earlier="a" if name != names[0] else None)
        again = write("again.dcm", n=n, earlier="a")
        assert again.SOPInstanceUID == report.SOPInstanceUID
        assert (tmp_path / "again.dcm").read_bytes() == (tmp_path / name).read_bytes()
    reports = [pydicom.dcmread(tmp_path / name) for name in names]
    assert len({report.SOPInstanceUID for report in reports}) == 4
    assert [revised(report) for report in reports[1:]] == [
        [report.SOPInstanceUID] for report in reports[:-1]
    ]
    times = [moment(report) for report in reports]
    assert times == sorted(set(times))


def test_of_one_time_the_end_of_the_chain_is_the_newest(write, tmp_path):
    write("a/0.dcm", n=1)
    last = write("a/1.dcm", n=2, earlier="a")

    def same_time(dataset):
        dataset.ContentTime = "030405"

    edit_file(tmp_path / "a" / "1.dcm", same_time)
    assert revised(write("b/sr.dcm", n=3, earlier="a")) == [last.SOPInstanceUID]


def test_a_file_will_do_for_a_folder(write):
    first = write("a/sr.dcm", n=1)
    assert revised(write("b/sr.dcm", n=2, earlier="a/sr.dcm")) == [first.SOPInstanceUID]


def test_only_reports_of_the_same_series_and_model_are_revised(write, cts):
    other = deepcopy(cts[:1])
    other[0].SeriesInstanceUID = "2.25.4711"
    write("a/model.dcm", n=1, provenance=replace(PROVENANCE, model="other"))
    write("a/software.dcm", n=1, provenance=replace(PROVENANCE, software="other"))
    write("a/series.dcm", n=1, images=other)
    assert revised(write("b/sr.dcm", earlier="a")) == []
    # Another version, configuration or file of weights is a reason to revise.
    provenance = replace(PROVENANCE, version="0", weights_sha256="0", configuration_hash="0")
    old = write("a/version.dcm", n=3, provenance=provenance)
    assert revised(write("b/sr.dcm", earlier="a")) == [old.SOPInstanceUID]


def test_a_report_of_the_other_style_is_revised(write):
    first = write("a/0.dcm", style="segment")
    second = write("a/1.dcm", style="point", earlier="a")
    third = write("a/2.dcm", style="segment", earlier="a")  # what the first says is the last word
    assert [revised(one) for one in (second, third)] == [
        [first.SOPInstanceUID],
        [second.SOPInstanceUID],
    ]
    assert moment(first) < moment(second) < moment(third)
    for name, style in (("1", "point"), ("2", "segment")):
        again = write("again.dcm", style=style, earlier=f"a/{name}.dcm")
        assert again.SOPInstanceUID in (second.SOPInstanceUID, third.SOPInstanceUID)


def test_of_two_styles_of_one_time_the_same_is_revised(write):
    write("a/0.dcm", n=1, style="point")
    first = write("a/1.dcm", n=1, style="segment")
    write("a/2.dcm", n=1, style="point")
    assert revised(write("b/sr.dcm", n=2, earlier="a")) == [first.SOPInstanceUID]


def test_a_study_whose_date_moved_on_is_later(write, cts):
    first = write("a/sr.dcm", n=1)
    moved = deepcopy(cts[:1])
    moved[0].StudyDate = "20210102"
    second = write("b/sr.dcm", n=2, images=moved, earlier="a")
    assert second.ContentDate == "20210102"
    assert revised(second) == [first.SOPInstanceUID]


def test_features_are_revised_lesion_by_lesion(tmp_path, cts, lesions):
    def write(name, index, features, folder=None):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        earlier = read_earlier_reports(tmp_path / folder, "oncofm")[0] if folder else []
        options = {"style": "point", "number": 1, "earlier": earlier}
        write_features_sr(path, cts, lesions[index], features, PROVENANCE, **options)
        return pydicom.dcmread(path)

    first = [write(f"a/{index}", index, FEATURES) for index in range(3)]
    second = [write(f"b/{index}", index, FEATURES + 1, "a") for index in range(3)]
    assert [revised(report) for report in second] == [[old.SOPInstanceUID] for old in first]
    assert write("b/0", 0, FEATURES, "a").SOPInstanceUID == first[0].SOPInstanceUID


def test_other_files_are_passed_over(tmp_path, study, write):
    folder = tmp_path / "a"
    report = write("a/sr.dcm", n=1)
    (folder / "sub").mkdir()
    (folder / "sub" / "seg.dcm").write_bytes(study.seg_file.read_bytes())
    (folder / "notes.txt").write_text("oncofm")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "noise.dcm").write_bytes(b"\0" * 128 + b"DICM" + bytes(range(256)))
    (folder / "sr-start.dcm").write_bytes((folder / "sr.dcm").read_bytes()[:200])
    write("a/other.dcm", n=1, provenance=replace(PROVENANCE, software="other"))
    found, failures = read_earlier_reports(folder, "oncofm")
    assert [item.instance.SOPInstanceUID for item in found] == [report.SOPInstanceUID]
    assert failures == []


def drop(keyword):
    return lambda dataset: delattr(dataset, keyword)


def put(keyword, value):
    return lambda dataset: setattr(dataset, keyword, value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop("StudyInstanceUID"), "has no valid StudyInstanceUID"),
        (put("SOPInstanceUID", "1.2.x"), "has no valid SOPInstanceUID"),
        (put("SeriesNumber", 5), "Series Number that oncofm does not write"),
        (drop("CurrentRequestedProcedureEvidenceSequence"), "cannot be read"),
        (put("ContentDate", ""), "no usable Content Date"),
        (put("ContentDate", "99991231"), "no usable Content Date"),
        (put("ContentTime", ""), "no usable Content Date"),
        (put("PredecessorDocumentsSequence", [Dataset()]), "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_broken_report_of_ours_is_said(tmp_path, write, change, sentence):
    write("a/sr.dcm", n=1)
    edit_file(tmp_path / "a" / "sr.dcm", change)
    found, (failure,) = read_earlier_reports(tmp_path / "a", "oncofm")
    assert found == []
    assert sentence in failure
    assert str(tmp_path / "a" / "sr.dcm") in failure


def test_a_report_that_is_cut_is_said_or_still_usable(tmp_path, write):
    write("a/sr.dcm", n=1)
    path = tmp_path / "a" / "sr.dcm"
    data = path.read_bytes()
    n_said = 0
    for size in range(400, len(data), 97):
        path.write_bytes(data[:size])
        found, failures = read_earlier_reports(path, "oncofm")
        assert len(found) + len(failures) <= 1
        n_said += len(failures)
    assert n_said > 5


def test_a_path_that_cannot_be_read_is_said(tmp_path):
    found, (failure,) = read_earlier_reports(tmp_path / "absent", "oncofm")
    assert found == []
    assert failure == (
        f"{tmp_path / 'absent'} with earlier reports cannot be read (No such file or directory); "
        "name another."
    )
