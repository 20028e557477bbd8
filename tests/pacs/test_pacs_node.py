"""The node from end to end: storescu on one side, a real Orthanc on the other."""

import io
import subprocess

import pydicom
import pytest
from nodes import PEER, FakeClock, change_seg, make_config, pacs, push, running
from pydicom.uid import Comprehensive3DSRStorage
from tools import require_tool

from oncofm.pacs.care import requeue
from oncofm.pacs.database import open_existing
from oncofm.pacs.errors import NodeError
from oncofm.pacs.node import open_node


@pytest.fixture
def config(tmp_path, orthanc):
    return make_config(tmp_path / "etc", {"PACS": pacs(orthanc.dicom_port)})


@pytest.fixture
def node(config):
    with running(config) as node:
        yield node


def reports(orthanc) -> list[pydicom.Dataset]:
    found = [
        pydicom.dcmread(io.BytesIO(orthanc.get(f"/instances/{one}/file")[1]))
        for one in orthanc.instances
    ]
    assert {one.SOPClassUID for one in found} <= {Comprehensive3DSRStorage}
    return sorted(found, key=lambda one: (one.ContentDate, one.ContentTime))


def test_one_study_is_one_report(node, study, orthanc, tmp_path):
    node.push(study.ct_files[::2])
    node.push([study.seg_file, *study.ct_files[1::2]])
    node.indexed(25)
    assert node.study.state == "received"
    node.clock.now += 31
    node.wait_for("done")

    (report,) = reports(orthanc)
    evidence = report.CurrentRequestedProcedureEvidenceSequence
    series = {one.SeriesInstanceUID for item in evidence for one in item.ReferencedSeriesSequence}
    assert series == {study.series_uid, study.seg_series_uid}
    assert len(report.ContentSequence[-1].ContentSequence) == 2  # the third lies outside
    node.wait(lambda: not node.spooled)
    assert node.study.revision == 1

    report.save_as(tmp_path / "sr.dcm")
    verdict = subprocess.run(
        [require_tool("dciodvfy"), str(tmp_path / "sr.dcm")], capture_output=True, text=True
    )
    lines = (verdict.stdout + verdict.stderr).splitlines()
    assert "Comprehensive3DSR" in lines[0]
    assert [line for line in lines[1:] if "99ONCOFM" not in line] == []


def test_sent_again_makes_no_second_report(node, study, orthanc):
    for _ in range(2):
        node.push([*study.ct_files, study.seg_file])
        node.indexed(25)
        node.clock.now += 31
        node.wait_for("done")
        node.wait(lambda: not node.spooled)
    # Half of it is nothing new either.
    node.push(study.ct_files[:10])
    node.indexed(10)
    node.clock.now += 31
    node.wait_for("done")
    node.wait(lambda: not node.spooled)
    assert len(reports(orthanc)) == 1
    assert len(node.runner.orders) == 1


@pytest.mark.parametrize("keep_uid", [False, True])
def test_changed_seg_is_a_revision(study, orthanc, tmp_path, keep_uid):
    # Of two SEGs the report has points, of one it has segments.
    config = make_config(tmp_path / "etc", {"PACS": pacs(orthanc.dicom_port)})
    with running(config) as node:
        _revise(node, study, orthanc, tmp_path, keep_uid)


def _revise(node, study, orthanc, tmp_path, keep_uid):
    node.push([*study.ct_files, study.seg_file])
    node.indexed(25)
    node.clock.now += 31
    node.wait_for("done")
    node.wait(lambda: not node.spooled)
    node.push([change_seg(study.seg_file, tmp_path / "changed.dcm", keep_uid)])
    node.indexed(1)
    node.clock.now += 31
    node.wait_for("waiting")
    assert "objects of the earlier job were deleted; send the study again" in node.study.message
    node.push([*study.ct_files, *([] if keep_uid else [study.seg_file])])
    node.indexed(25 + (not keep_uid))
    node.clock.now += 31
    node.wait_for("done")
    first, second = reports(orthanc)
    (item,) = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert node.study.revision == 2


def test_seg_first(node, study, orthanc):
    node.push([study.seg_file])
    node.indexed(1)
    node.clock.now += 31
    node.wait_for("waiting")
    assert node.study.message.startswith("no CT has come; 24 of 24 images that SEG")
    node.push(study.ct_files[:20])
    node.indexed(21)
    node.clock.now += 31
    node.wait_for("waiting")
    assert "4 of 24 images that SEG" in node.study.message
    node.push(study.ct_files[20:])
    node.indexed(25)
    node.clock.now += 31
    node.wait_for("done")
    assert len(reports(orthanc)) == 1


def test_seg_an_hour_later(node, study, orthanc):
    node.push(study.ct_files)
    node.indexed(24)
    node.clock.now += 3600
    node.wait_for("waiting")
    assert node.study.message == "no SEG or RTSTRUCT has come"
    node.push([study.seg_file])
    node.indexed(25)
    node.clock.now += 31
    node.wait_for("done")
    assert len(reports(orthanc)) == 1


def test_forced_without_seg_is_quarantined(node, study, orthanc):
    node.push(study.ct_files)
    node.indexed(24)
    node.clock.now += 86_401
    node.wait_for("quarantined")
    assert (node.study.reason, node.study.forced) == ("no_report", 1)
    assert orthanc.instances == []
    node.push([study.seg_file])  # better late than never
    node.indexed(25)
    node.clock.now += 31
    node.wait_for("done")
    assert len(reports(orthanc)) == 1


def test_late_images_while_the_job_runs(node, study, orthanc, tmp_path):
    changed = change_seg(study.seg_file, tmp_path / "changed.dcm", keep_uid=True)

    def send_more(order):
        node.runner.before = lambda order: None
        push(node.port, [changed])
        node.wait(lambda: node.study.fresh)
        assert all(path.exists() for path in order.files)

    node.runner.before = send_more
    node.push([*study.ct_files, study.seg_file])
    node.indexed(25)
    node.clock.now += 31
    node.wait(lambda: node.study.revision == 1 and node.study.state == "received")
    node.clock.now += 31
    node.wait(lambda: node.study.revision == 2)
    node.wait_for("done")
    _, second = reports(orthanc)
    assert "PredecessorDocumentsSequence" in second


def test_own_reports_are_ignored(node, study, orthanc, tmp_path):
    node.push([*study.ct_files, study.seg_file])
    node.indexed(25)
    node.clock.now += 31
    node.wait_for("done")
    node.wait(lambda: not node.spooled)
    (report,) = reports(orthanc)
    report.save_as(tmp_path / "own.dcm")
    node.push([tmp_path / "own.dcm"])
    assert node.node.receiver.counts["own"] == 1
    assert (node.study.state, node.study.fresh, node.spooled) == ("done", 0, [])


def test_shadow_sends_nothing(tmp_path, study, orthanc):
    rule = {"name": "quietly", "quiet_s": 30, "destinations": ["PACS"], "shadow": True}
    config = make_config(tmp_path / "etc", {"PACS": pacs(orthanc.dicom_port)}, rules=[rule])
    with running(config) as node:
        node.push([*study.ct_files, study.seg_file])
        node.indexed(25)
        node.clock.now += 31
        node.wait_for("done")
        (delivery,) = node.node.database.deliveries("1")
    assert delivery.state == "shadow"
    assert orthanc.instances == []


def test_no_rule_fits(tmp_path, study):
    rule = {
        "name": "liver",
        "match": {"labels": ["liver*"]},
        "quiet_s": 30,
        "destinations": [],
        "shadow": True,
    }
    with running(make_config(tmp_path, {}, rules=[rule])) as node:
        node.push(study.ct_files)
        node.indexed(24)
        node.clock.now += 31
        node.wait_for("waiting")  # a label may still come
        node.push([study.seg_file])
        node.indexed(25)
        node.clock.now += 31
        node.wait_for("done")
        assert node.study.reason == "no_rule"
        node.wait(lambda: not node.spooled)


def test_failed_job_is_tried_again_then_quarantined(node, study, orthanc):
    from oncofm.pacs.jobs import JobEnd

    node.runner.before = lambda order: JobEnd(reason="job_crashed", message="It crashed.")
    node.push([*study.ct_files, study.seg_file])
    node.indexed(25)
    node.clock.now += 31
    node.wait(lambda: node.study.reason == "job_crashed")
    assert (node.study.state, node.study.attempts) == ("queued", 1)
    node.clock.now += 11
    node.wait_for("quarantined")
    assert len(node.runner.orders) == 2
    node.runner.before = lambda order: None
    requeue(node.node.database, node.study.study_uid, node.clock.now)
    node.wait_for("done")
    assert len(reports(orthanc)) == 1


def test_destination_that_is_down_for_a_while(tmp_path, study):
    from nodes import free_port
    from orthanc import run_orthanc

    port = free_port()
    config = make_config(tmp_path / "etc", {"PACS": pacs(port)})
    with running(config) as node:
        node.push([*study.ct_files, study.seg_file])
        node.indexed(25)
        node.clock.now += 31
        node.wait(lambda: node.study.state == "sending")
        node.wait(lambda: node.node.database.deliveries("1")[0].attempts >= 1)
        attempts = node.node.database.deliveries("1")[0].attempts
        node.clock.now += 1
        node.wait(lambda: node.node.database.deliveries("1")[0].attempts > attempts)
        assert "does not answer" in node.node.database.deliveries("1")[0].message
    with run_orthanc(tmp_path / "orthanc") as orthanc:
        target = config.destinations["PACS"].model_copy(update={"port": orthanc.dicom_port})
        there = config.model_copy(update={"destinations": {"PACS": target}})
        clock = FakeClock()
        clock.now += 100
        with running(there, clock) as node:
            node.wait_for("done")
        assert len(reports(orthanc)) == 1


def test_refusal_is_quarantined_with_the_peers_status(tmp_path, study):
    from nodes import free_port
    from pynetdicom import AE, evt

    ae = AE("PICKY")
    ae.add_supported_context(Comprehensive3DSRStorage)
    statuses = [0xA900]
    port = free_port()
    server = ae.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, lambda event: statuses[0])],
    )
    try:
        with running(make_config(tmp_path, {"PACS": pacs(port, "PICKY")})) as node:
            node.push([*study.ct_files, study.seg_file])
            node.indexed(25)
            node.clock.now += 31
            node.wait_for("quarantined")
            assert node.study.reason == "refused"
            assert "status A900" in node.study.message
            statuses[0] = 0x0000
            assert requeue(node.node.database, node.study.study_uid, node.clock.now) == "sending"
            node.wait_for("done")
    finally:
        server.shutdown()


def test_stow(tmp_path, study, orthanc):
    web = {"type": "stow", "url": f"{orthanc.http}/dicom-web"}
    with running(make_config(tmp_path / "etc", {"WEB": web})) as node:
        node.push([*study.ct_files, study.seg_file])
        node.indexed(25)
        node.clock.now += 31
        node.wait_for("done")
    assert len(reports(orthanc)) == 1


def test_second_node_on_one_folder(node, config):
    with (
        pytest.raises(NodeError, match="Another node serves"),
        open_node(config, runner=node.runner),
    ):
        pass


def test_objects_that_were_acknowledged_but_not_noted(config, study):
    with running(config) as node:
        node.push([*study.ct_files, study.seg_file])
        node.indexed(25)
    with open_existing(config.node.folder) as database:
        database.execute("DELETE FROM objects WHERE rowid % 2")
        database.execute("DELETE FROM studies")
    with running(config) as node:
        node.indexed(25)
        (study_row,) = node.node.database.studies()
        assert study_row.state == "received"
        called = {(item.calling, item.called) for item in node.node.database.objects(study_row.key)}
        assert called == {(PEER, "ONCOFM")}
        node.clock.now += 31
        node.wait_for("done")


def test_dropped_study(node, study):
    from oncofm.pacs.care import drop

    node.push(study.ct_files)
    node.indexed(24)
    drop(node.node.database, node.study.study_uid, node.clock.now)
    node.wait(lambda: not node.spooled)
    assert (node.study.state, node.study.reason) == ("done", "dropped")


def test_clock_that_was_set_back(config, study):
    with running(config) as node:
        node.push([*study.ct_files, study.seg_file])
        node.indexed(25)
    clock = FakeClock()
    clock.now -= 1e6
    with running(config, clock) as node:
        clock.now += 31
        node.wait_for("done")
