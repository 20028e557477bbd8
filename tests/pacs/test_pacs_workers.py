"""Several workers of one node: different studies for each, and no job dies with its worker."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from nodes import PATIENCE_S, FakeClock, RunnerHere, make_config, push, running
from studies import write_study
from typer.testing import CliRunner

from oncofm.cli.pacs import app
from oncofm.errors import WeightsMissingError
from oncofm.pacs.errors import NodeError
from oncofm.pacs.jobs import JobEnd
from oncofm.pacs.workers import be_worker, is_gone

QUIET = [{"name": "all", "quiet_s": 0.5, "destinations": [], "shadow": True}]
PROGRAM = str(Path(__file__).parent / "worker_process.py")
FOR_EVER_S = 3600.0


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    return [write_study(folder / str(n), f"workers-{n}", shape=(64, 48, 8)) for n in range(3)]


class Worker:
    """A worker process, what it has said, and what it has taken."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += (line.strip() for line in self.process.stdout)

    @property
    def is_up(self) -> bool:
        return any("takes jobs" in line for line in list(self.lines))

    @property
    def taken(self) -> list[str]:
        return [line for line in list(self.lines) if line[:1].isdigit()]


@contextmanager
def worker(config, dawdle_s: float = 0.0):
    command = [sys.executable, PROGRAM, str(config.node.folder.parent / "pacs.yml"), str(dawdle_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        worker = Worker(process)
        try:
            yield worker
        finally:
            process.kill()
            worker.reader.join()


class Idle(RunnerHere):
    """A model that never gets ready, so that the node leaves all jobs to others."""

    is_ready = False

    def start(self) -> JobEnd:
        return JobEnd(reason="device_unavailable", message="There is no GPU.")


def states(node) -> list[str]:
    return sorted(study.state for study in node.node.database.studies())


def share(config, studies) -> None:
    """Let two workers do three studies, kill the slow one, and let the other take over."""
    clock = FakeClock()
    with running(config, clock, Idle()) as node, worker(config, FOR_EVER_S) as slow:
        node.wait(lambda: slow.is_up)
        push(node.port, [*studies[0].ct_files, studies[0].seg_file])
        node.indexed(9)
        clock.now += 1
        node.wait(lambda: slow.taken)
        for study in studies[1:]:
            push(node.port, [*study.ct_files, study.seg_file])
        node.indexed(27)
        clock.now += 1
        with worker(config) as quick:
            node.wait(lambda: states(node) == ["done", "done", "running"])
            node.wait(lambda: len(set(quick.taken)) == 2)
            assert not set(quick.taken) & set(slow.taken)
            assert len(slow.taken) == 1
            slow.process.kill()
            node.wait(lambda: states(node) == ["done"] * 3)
            node.wait(lambda: quick.taken[2:] == slow.taken)
            (row,) = node.node.database.studies("study_uid = ?", slow.taken[0])
            assert (row.revision, row.attempts) == (1, 1)
            quick.process.send_signal(signal.SIGTERM)
            assert quick.process.wait(PATIENCE_S) == 0
        assert '"worker_stopped"' in node.audit


@pytest.mark.slow
def test_two_workers_on_a_file(tmp_path, three):
    queue = f"sqlite:///{tmp_path}/queue.sqlite"
    share(make_config(tmp_path, {}, rules=QUIET, jobs={"queue": queue}), three)


@pytest.mark.slow
def test_two_workers_on_postgresql(tmp_path, three, postgres):
    pytest.importorskip("psycopg2")
    share(make_config(tmp_path, {}, rules=QUIET, jobs={"queue": postgres.url}), three)


@pytest.mark.slow
def test_a_queue_whose_server_is_started_anew(tmp_path, three, postgres):
    pytest.importorskip("psycopg2")
    config = make_config(tmp_path, {}, rules=QUIET, jobs={"queue": postgres.url})
    with running(config) as node:
        postgres.restart()
        push(node.port, [*three[0].ct_files, three[0].seg_file])
        node.indexed(9)
        node.clock.now += 1
        node.wait_for("done")
        assert '"thread_failed"' in node.audit


def test_a_worker_lives_as_long_as_its_lock(tmp_path):
    with be_worker(tmp_path) as name:
        assert name.startswith(f"{os.getpid()}-")
        assert not is_gone(tmp_path, name)
    assert is_gone(tmp_path, name)
    assert list((tmp_path / "workers").iterdir()) == []
    (tmp_path / "workers" / "1-left.lock").touch()  # by a process that was killed
    assert is_gone(tmp_path, "1-left")
    assert list((tmp_path / "workers").iterdir()) == []
    with pytest.raises(NodeError, match="cannot be written"), be_worker(tmp_path / "none"):
        pass


def test_a_job_that_could_not_be_noted_begins_anew(tmp_path, three, monkeypatch):
    """Nothing may stay running that nobody runs, nor queued that is in no queue."""
    keep = {"images_hours": 1}  # or the second job might find nothing
    with running(make_config(tmp_path, {}, rules=QUIET, retention=keep)) as node:
        real, n_calls = node.node.studies.finish_job, []

        def fail_once(*arguments):
            n_calls.append(1)
            if len(n_calls) == 1:
                raise OSError(28, "No space left on device")
            real(*arguments)

        monkeypatch.setattr(node.node.studies, "finish_job", fail_once)
        push(node.port, [*three[0].ct_files, three[0].seg_file])
        node.indexed(9)
        node.clock.now += 1
        node.wait_for("done")
        assert len(n_calls) == 2
        node.node.database.execute("UPDATE studies SET state = 'queued', enqueued = 1")
        node.wait(lambda: len(n_calls) == 3)
        node.wait_for("done")


def test_command(tmp_path):
    model = {"random_seed": None, "weights": str(tmp_path / "none.torch")}
    config = make_config(tmp_path, {}, rules=QUIET, model=model)
    arguments = ["work", "--config", str(tmp_path / "pacs.yml"), "--device", "cpu"]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, NodeError)
    assert "holds no node; start it once" in str(error)
    with running(config, runner=RunnerHere()):
        assert isinstance(CliRunner().invoke(app, arguments).exception, WeightsMissingError)
