"""What comes before its time, or long after: segmentations, dose reports, dropped studies."""

import pydicom
import pytest
from nodes import change_seg, free_port, make_config, pacs, running
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from reports import PROVENANCE, describe_lesions

from oncofm.pacs.care import drop, requeue
from oncofm.pacs.database import SENT
from oncofm.pacs.errors import NodeError
from oncofm.pacs.jobs import JobEnd
from oncofm.pacs.send import Sender
from oncofm.pacs.studies import ReportFile
from oncofm.pacs.verdict import Verdict
from oncofm.results.sr import write_sr

CT_RULE = {
    "name": "ct",
    "match": {"modality": ["CT"]},
    "quiet_s": 30,
    "destinations": [],
    "shadow": True,
}


@pytest.fixture
def node(tmp_path):
    with running(make_config(tmp_path / "etc", {}, rules=[CT_RULE])) as node:
        yield node


def come(node, files, n: int, *states: str) -> None:
    """Send files, of which the study has n on disk then, and let it be quiet."""
    node.push(files)
    node.indexed(n)
    node.clock.now += 31
    node.wait_for(*states)


@pytest.fixture
def dose(study, tmp_path):
    """Write a dose report of the study, as scanners send it."""
    dataset, ct = Dataset(), pydicom.dcmread(study.ct_files[0], stop_before_pixels=True)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.StudyInstanceUID, dataset.Modality = ct.StudyInstanceUID, "SR"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "dose.dcm", enforce_file_format=True)
    return tmp_path / "dose.dcm"


def test_seg_before_what_the_rule_goes_by(node, study):
    come(node, [study.seg_file], 1, "waiting")
    assert node.study.message == "no rule fits, and no images have come yet"
    node.clock.now += 3600
    come(node, study.ct_files, 25, "done")
    assert (node.study.rule, node.study.revision) == ("ct", 1)


def test_seg_whose_images_never_come(node, study):
    come(node, [study.seg_file], 1, "waiting")
    node.clock.now += 86_401
    node.wait_for("done")
    assert node.study.reason == "no_rule"


def test_seg_after_what_the_rule_goes_by_is_deleted(node, study, tmp_path):
    come(node, [*study.ct_files, study.seg_file], 25, "done")
    node.wait(lambda: not node.spooled)
    come(node, [change_seg(study.seg_file, tmp_path / "seg.dcm", keep_uid=True)], 1, "waiting")
    come(node, study.ct_files, 25, "done")
    assert node.study.revision == 2


def test_dose_report_after_the_images_are_deleted(node, study, dose, tmp_path):
    come(node, [*study.ct_files, study.seg_file], 25, "done")
    node.wait(lambda: not node.spooled)
    come(node, [dose], 1, "done")
    node.wait(lambda: not node.spooled)
    assert (node.study.reason, node.study.revision) == ("", 1)
    # And when it is gone, a revision does not wait for it.
    changed = change_seg(study.seg_file, tmp_path / "seg.dcm", keep_uid=True)
    come(node, [*study.ct_files, changed], 25, "done")
    assert node.study.revision == 2


@pytest.fixture
def points(study, tmp_path):
    """Write points into a report, as a viewer does."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in study.ct_files]
    lesions = describe_lesions(study, pydicom.dcmread(study.seg_file))
    write_sr(tmp_path / "points.dcm", headers, lesions, PROVENANCE, style="point")
    report = pydicom.dcmread(tmp_path / "points.dcm")
    report.Manufacturer, report.SeriesNumber = "Viewer", 7
    report.save_as(tmp_path / "points.dcm")
    return tmp_path / "points.dcm"


def test_measurement_report_hours_after_its_images(tmp_path, study, dose, points):
    settings = {"seed_kinds": ["seg", "sr"]}
    rule = CT_RULE | {"require": ["CT", "SEG|SR"], "settings": settings}
    with running(make_config(tmp_path / "etc", {}, rules=[rule])) as node:
        come(node, [*study.ct_files, dose], 25, "waiting")
        assert node.study.message == "no SEG or SR has come"
        node.clock.now += 3600
        come(node, [points], 26, "done")
        node.wait(lambda: not node.spooled)
        points.write_bytes(points.read_bytes().replace(b"Viewer", b"Reader"))
        come(node, [points], 1, "waiting")
        come(node, study.ct_files, 25, "done")
        assert node.study.revision == 2


def test_measurement_report_that_no_job_reads(node, study, points):
    come(node, [*study.ct_files, study.seg_file], 25, "done")
    node.wait(lambda: not node.spooled)
    come(node, [points], 1, "done")
    assert (node.study.revision, len(node.runner.orders)) == (1, 1)


def test_a_slow_rule_has_time_to_fit(tmp_path, study):
    quick = CT_RULE | {"name": "quick", "quiet_s": 5, "match": {"modality": ["PT"]}}
    with running(make_config(tmp_path, {}, rules=[quick, CT_RULE | {"quiet_s": 60}])) as node:
        node.push([study.seg_file])
        node.indexed(1)
        node.clock.now += 31
        node.push(study.ct_files)
        node.indexed(25)
        node.clock.now += 61
        node.wait_for("done")
        assert node.study.rule == "ct"


def test_dropped_and_sent_again(tmp_path, study):
    config = make_config(tmp_path / "etc", {"GONE": pacs(free_port())})
    with running(config) as node:
        come(node, [*study.ct_files, study.seg_file], 25, "sending")
        drop(node.node.database, node.study.study_uid, node.clock())
        node.wait(lambda: not node.spooled)
        come(node, [*study.ct_files, study.seg_file], 25, "sending")
        (delivery,) = node.node.database.deliveries("1")
    assert (delivery.state, len(node.runner.orders)) == ("pending", 2)


def test_a_slow_destination_does_not_keep_a_node_from_ending(tmp_path, study, monkeypatch):
    asked = []

    def dawdle(destination, due):
        for one in due:
            asked.append(one.sop_uid)
            yield one, Verdict(SENT, "0000")

    monkeypatch.setattr("oncofm.pacs.send.send_dicom", dawdle)
    rule = {
        "name": "many",
        "quiet_s": 30,
        "destinations": ["PACS"],
        "settings": {"key_images": True},
    }
    config = make_config(tmp_path / "etc", {"PACS": pacs(free_port())}, rules=[rule])
    with running(config) as node:
        node.node.sender.deliver = lambda name, is_stopping: False
        come(node, [*study.ct_files, study.seg_file], 25, "sending")
        sender = node.node.sender
        assert len(node.node.database.deliveries("state = 'pending'")) > 1
        assert Sender.deliver(sender, "PACS", lambda: True)
        assert len(asked) == 1
        assert len(node.node.database.deliveries("state = 'sent'")) == 1


def test_two_studies_whose_reports_have_one_uid(study, tmp_path):
    def report(order):
        path = order.output / "reports" / "sr.dcm"
        path.parent.mkdir(parents=True)
        path.touch()
        return JobEnd((ReportFile(path, "1.2", "1.2.3"),))

    moved = []
    for number, path in enumerate([*study.ct_files, study.seg_file]):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID += ".1"
        moved.append(tmp_path / f"{number}.dcm")
        dataset.save_as(moved[-1])
    rule = CT_RULE | {"destinations": ["PACS"]}
    config = make_config(tmp_path / "etc", {"PACS": pacs(free_port())}, rules=[rule])
    with running(config) as node:
        node.runner.before = report
        node.push([*study.ct_files, study.seg_file])
        node.push(moved)
        node.indexed(50)
        node.clock.now += 31
        studies = node.node.database.studies
        node.wait(lambda: all(one.state in ("done", "quarantined") for one in studies()))
        (wrong,) = studies("state = 'quarantined'")
    assert wrong.reason == "uid_taken"
    assert "1.2.3 was made for another study, which has the same images" in wrong.message


def test_requeue_needs_objects(tmp_path, study):
    rule = CT_RULE | {"match": {"modality": ["PT"]}}
    with running(make_config(tmp_path, {}, rules=[rule])) as node:
        come(node, study.ct_files, 24, "done")
        node.wait(lambda: not node.spooled)
        with pytest.raises(NodeError, match="were deleted; send it again"):
            requeue(node.node.database, node.study.study_uid, node.clock())
        assert node.study.reason == "no_rule"
