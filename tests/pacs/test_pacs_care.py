"""What operators and time do to studies; the job process; the small parts."""

import errno
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fakes import VoxelEncoder
from nodes import FakeClock, RunnerHere, free_port, make_config, pacs, running
from typer.testing import CliRunner

from oncofm.cli.pacs import app
from oncofm.errors import WeightsMissingError
from oncofm.pacs.audit import AuditLog
from oncofm.pacs.database import DATABASE_FILE, open_database, open_existing
from oncofm.pacs.errors import NodeError, NoReportError, PacsConfigError
from oncofm.pacs.jobs import JobEnd, Order, check_reports, run_order
from oncofm.pacs.node import check_model, open_node
from oncofm.pacs.verdict import judge_http, judge_status
from oncofm.pacs.work_queue import WorkQueue, open_queue
from oncofm.pacs.worker import JobProcess
from oncofm.workflow.settings import Settings

QUIET = [{"name": "all", "quiet_s": 30, "destinations": [], "shadow": True}]


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, {}, rules=QUIET, node={"status_port": free_port()})


def command(config, *arguments: str):
    path = config.node.folder.parent / "pacs.yml"
    return CliRunner().invoke(app, [arguments[0], "--config", str(path), *arguments[1:]])


# --- commands -----------------------------------------------------------------------------


def test_commands(config, study):
    with running(config) as node:
        node.push(study.ct_files)
        node.indexed(24)
        node.clock.now += 31
        node.wait_for("waiting")
        assert "waiting             1" in command(config, "status").output
        counts = json.loads(command(config, "status", "--json").output)
        assert counts["studies"]["waiting"] == 1
        uid = node.study.study_uid
        listed = command(config, "list").output
        assert listed.startswith(f"{uid}  waiting")
        assert "no SEG or RTSTRUCT has come" in listed
        assert command(config, "list", "--state", "done").output == ""
        assert json.loads(command(config, "list", "--json").output)["study_uid"] == uid
        shown = json.loads(command(config, "show", uid).output)
        assert len(shown["objects"]) == 24
        assert {one["modality"] for one in shown["objects"]} == {"CT"}
        assert "the study is dropped" in command(config, "drop", uid).output
        node.wait(lambda: not node.spooled)
        assert node.study.reason == "dropped"
        assert '"event": "dropped"' in node.audit
        assert isinstance(command(config, "requeue", uid).exception, NodeError)
        assert isinstance(command(config, "show", "1.2.3").exception, NodeError)


def test_requeue_stops_waiting(config, study):
    with running(config) as node:
        node.push(study.ct_files)
        node.indexed(24)
        node.clock.now += 31
        node.wait_for("waiting")
        assert "received now" in command(config, "requeue", node.study.study_uid).output
        node.wait_for("quarantined")
        assert (node.study.reason, node.study.forced) == ("no_report", 1)


def test_commands_without_a_node(config):
    error = command(config, "status").exception
    assert isinstance(error, NodeError)
    assert "holds no node" in str(error)
    assert "none of received" in str(command(config, "list", "--state", "odd").exception)


# --- retention ----------------------------------------------------------------------------


def test_images_are_kept_as_long_as_asked(tmp_path, study):
    keep = {"images_hours": 2, "reports_days": 1, "records_days": 3}
    with running(make_config(tmp_path, {}, rules=QUIET, retention=keep)) as node:
        node.push([*study.ct_files, study.seg_file])
        node.indexed(25)
        node.clock.now += 31
        node.wait_for("done")
        reports = node.node.config.node.folder / "reports"
        assert len(list(reports.rglob("*.dcm"))) == 1 or not node.node.config.destinations
        node.node.housekeeping.tidy()
        assert len(node.spooled) == 25
        node.clock.now += 7201
        node.wait(lambda: not node.spooled)
        node.clock.now += 86_400
        node.wait(lambda: not list(reports.iterdir()))
        node.clock.now += 3 * 86_400
        node.wait(lambda: not node.node.database.studies())
        assert node.node.database.rows("SELECT * FROM objects") == []


def test_removing_spares_what_came_again(tmp_path):
    from oncofm.pacs.spool import Spool

    spool = Spool(tmp_path / "spool", 0)
    name = spool.store("1.2", "3.4", b"start", b"data")
    assert spool.remove([name], lambda _: True) == []  # not in the books yet
    spool.settle(name)
    assert spool.remove([name], lambda _: False) == []
    assert list(spool.names()) == [name]
    assert spool.remove([name], lambda _: True) == [name]
    assert list((tmp_path / "spool").iterdir()) == []
    spool.path(name).parent.mkdir()
    (tmp_path / "spool" / name).with_suffix(".tmp").write_text("half")
    assert list(spool.names()) == []
    assert not list(spool.path("").rglob("*.tmp"))


# --- health -------------------------------------------------------------------------------


def test_health(config):
    url = f"http://127.0.0.1:{config.node.status_port}"
    with running(config) as node:
        assert urllib.request.urlopen(f"{url}/healthz").read() == b"ok\n"
        assert urllib.request.urlopen(f"{url}/readyz").read() == b"ready\n"
        metrics = urllib.request.urlopen(f"{url}/metrics").read().decode()
        assert 'oncofm_pacs_studies{state="received"} 0' in metrics
        assert "oncofm_pacs_ready 1" in metrics
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/else")
        node.runner.is_ready = False
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url}/readyz")


def test_ports_that_are_taken(config, tmp_path):
    with running(config):
        other = config.node.model_copy(update={"folder": tmp_path / "other"})
        clash = config.model_copy(update={"node": other})
        with pytest.raises(NodeError, match="cannot listen"), running(clash):
            pass
        other = other.model_copy(update={"port": free_port()})
        clash = config.model_copy(update={"node": other})
        with pytest.raises(NodeError, match="for health and metrics is taken"), running(clash):
            pass


# --- jobs ---------------------------------------------------------------------------------


def order(study, output: Path) -> Order:
    settings = Settings(random_seed=0, device="cpu", sr="auto")
    return Order("1.2", (*study.ct_files, study.seg_file), output, settings)


def test_report_of_another_study_is_refused(study, tmp_path):
    end = run_order(order(study, tmp_path), VoxelEncoder)
    assert (end.reason, end.is_final) == ("no_report", True)
    assert "is empty or not of study 1.2" in end.message
    (tmp_path / "sr" / "0.dcm").write_text("garbage")
    with pytest.raises(NoReportError, match="cannot be read"):
        check_reports(tmp_path, "1.2")


def test_setup_errors_may_pass(study, tmp_path):
    (tmp_path / "file").write_text("")
    end = run_order(order(study, tmp_path / "file"), VoxelEncoder)
    assert (end.reason, end.is_final) == ("output_not_writable", False)

    def fail():
        raise ValueError("Doe^Jane")

    end = run_order(order(study, tmp_path / "out"), fail)
    assert end.reason == "job_failed"
    assert "Doe" not in end.message


@pytest.mark.slow
def test_job_process(study, tmp_path):
    import pydicom

    uid = str(pydicom.dcmread(study.seg_file).StudyInstanceUID)
    real = order(study, tmp_path / "out")
    real = Order(uid, real.files, real.output, real.settings)
    process = JobProcess(real.settings, time_limit_s=600, memory_limit_bytes=None)
    try:
        end = process.run(real)
        assert end.reason == ""
        assert len(end.reports) == 1
        os.kill(process._process.pid, signal.SIGSTOP)  # the next job would never end
        process._time_limit_s = 0.0
        assert process.run(real).reason == "time_limit"
        assert not process.is_ready
        process._time_limit_s = 600.0
        assert process.start() is None
        os.kill(process._process.pid, signal.SIGSTOP)
        process._memory_limit_bytes = 1e6
        assert process.run(real).reason == "memory_limit"
        process._memory_limit_bytes = None
        assert process.start() is None
        os.kill(process._process.pid, signal.SIGKILL)
        assert process.run(real).reason == "job_crashed"
        assert len(process.run(real).reports) == 1
    finally:
        process.stop()


def test_job_process_that_cannot_start(tmp_path):
    settings = Settings(weights=tmp_path / "none.torch")
    process = JobProcess(settings, time_limit_s=10, memory_limit_bytes=None)
    end = process.start()
    process.stop()
    assert end is not None
    assert end.reason == WeightsMissingError.code
    config = make_config(tmp_path, {}, rules=QUIET, model={"random_seed": None, "weights": "none"})
    with pytest.raises(WeightsMissingError):
        check_model(config)
    with pytest.raises(WeightsMissingError), open_node(config):
        pass


def test_node_without_a_model_says_so(config):
    class Broken(RunnerHere):
        is_ready = False

        def start(self):
            return JobEnd(reason="device_unavailable", message="There is no GPU.")

    with running(config, runner=Broken()) as node:
        node.wait(lambda: '"model_failed"' in node.audit)
        assert not node.node.is_ready


# --- small parts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state"),
    [(0, "sent"), (0xB000, "sent"), (0xB007, "sent"), (0xB00E, "sent"), (0x0111, "sent"),
     (0xA700, "pending"), (0xA900, "refused"), (0xA9FF, "refused"), (0x0122, "refused"),
     (0xC000, "pending"), (0x0110, "pending")],
)  # fmt: skip
def test_statuses(status, state):
    verdict = judge_status(status)
    assert verdict.state == state
    assert verdict.status == f"{status:04X}"


@pytest.mark.parametrize(
    ("code", "state"),
    [(200, "sent"), (202, "sent"), (400, "refused"), (409, "refused"), (415, "refused"),
     (408, "pending"), (429, "pending"), (500, "pending"), (503, "pending")],
)  # fmt: skip
def test_http_statuses(code, state):
    assert judge_http(code).state == state


def test_queue(tmp_path, monkeypatch):
    queue = open_queue("", tmp_path, "a")
    other = open_queue("", tmp_path, "b")
    for key in ("one", "two"):
        queue.put(key)
    assert (len(queue), len(other), other.take()) == (2, 0, None)
    again = open_queue(f"sqlite:///{tmp_path}/queue.sqlite", tmp_path, "a")
    assert [again.take(), again.take(), again.take()] == ["one", "two", None]
    queue.put("three")
    queue.clear()
    assert queue.take() is None
    with pytest.raises(PacsConfigError, match="none of sqlite"):
        open_queue("amqp://x", tmp_path, "a")
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(PacsConfigError, match="needs the package redis"):
        open_queue("redis://127.0.0.1:1/0", tmp_path, "a")
    with pytest.raises(NodeError, match="cannot be opened"):
        open_queue("", tmp_path / "none", "a")


def test_queue_in_a_database_server(tmp_path):
    """The part that talks SQL to servers, with a file in the place of a server."""
    from huey.contrib.sql_huey import SqlStorage

    queue = WorkQueue(SqlStorage("a", f"sqlite:///{tmp_path}/queue.sqlite"))
    for key in ("one", "two"):
        queue.put(key)
    assert (len(queue), queue.take(), queue.take(), queue.take()) == (2, "one", "two", None)
    queue.put("three")
    queue.clear()
    assert len(queue) == 0


def test_folder_of_somebody_else(tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)  # tests may run as root, whom nobody refuses
    with pytest.raises(NodeError, match=r"Permission denied.*; be the node's user"):
        open_existing(tmp_path).__enter__()


def test_database_that_cannot_be_used(tmp_path):
    (tmp_path / DATABASE_FILE).write_bytes(b"garbage" * 1000)
    with pytest.raises(NodeError, match="cannot be used"), open_existing(tmp_path):
        pass
    with open_database(tmp_path / "new") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(NodeError, match="version 99"), open_database(tmp_path / "new"):
        pass


def test_audit_on_a_full_disk(tmp_path, monkeypatch, capsys):
    audit = AuditLog(tmp_path / "audit.jsonl")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("oncofm.pacs.audit.os.fsync", fail)
    audit("something", study="1.2.3")
    assert '"study": "1.2.3"' in capsys.readouterr().err
    with pytest.raises(NodeError, match="cannot be written"):
        AuditLog(tmp_path / "none" / "audit.jsonl")


def test_destinations_have_states_of_their_own(tmp_path, study, orthanc):
    there = {"PACS": pacs(orthanc.dicom_port), "GONE": pacs(free_port(), "GONE")}
    with running(make_config(tmp_path, there)) as node:
        node.push([*study.ct_files, study.seg_file])
        node.indexed(25)
        node.clock.now += 31
        node.wait(lambda: len(node.node.database.deliveries("state = 'sent'")) == 1)
        node.wait(lambda: node.node.database.deliveries("destination = 'GONE'")[0].attempts)
        assert node.study.state == "sending"
        (gone,) = node.node.database.deliveries("destination = 'GONE'")
        assert gone.state == "pending"
    # The next start goes on with what is left.
    clock = FakeClock()
    clock.now += 1000
    with running(make_config(tmp_path, there), clock) as node:
        node.wait(lambda: node.node.database.deliveries("destination = 'GONE'")[0].attempts > 1)
    assert len(orthanc.instances) == 1
