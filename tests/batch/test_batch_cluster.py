"""A batch on a dask cluster of real processes on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batches import write_tiny_study

from oncofm.errors import BatchError
from oncofm.workflow.batch.cluster import Cluster
from oncofm.workflow.settings import Settings

HERE = Path(__file__).parent
N_CASES = 24
PATIENCE_S = 300.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    for number in range(N_CASES):
        write_tiny_study(folder / f"study-{number}", number)
    return folder


def start(*arguments: object) -> subprocess.Popen:
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_address(facts: Path) -> str:
    """Address of a scheduler, as soon as the file about it is written."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return json.loads(facts.read_text())["address"]
        except (OSError, ValueError):
            assert time.monotonic() < end, "the scheduler does not start"
            time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path):
    """Address of a scheduler, its process, and those of its two workers."""
    distributed = pytest.importorskip("distributed")
    facts = tmp_path / "scheduler.json"
    own = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", facts)
    scheduler = start("distributed.cli.dask_scheduler", *own)
    address = wait_for_address(facts)
    settings = ("--no-nanny", "--nthreads", 1, "--no-dashboard", "--host", "127.0.0.1")
    settings += ("--preload", HERE / "cluster_worker.py", "--local-directory", tmp_path)
    workers = [start("distributed.cli.dask_worker", address, *settings) for _ in range(2)]
    with distributed.Client(address, timeout=PATIENCE_S, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE_S)
    yield address.replace("tcp://", "dask://"), scheduler, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


@pytest.mark.parametrize("killed", [False, True])
def test_the_same_tables_as_without_a_cluster(batch, cluster, many, killed):
    address, _, workers = cluster
    local = batch(many, "local")
    n_batches_here = len(local.encoder.batches)
    n_seen = 0

    def kill_one(event):
        nonlocal n_seen
        n_seen += event["event"] == "case"
        if killed and n_seen == 4:
            workers[0].send_signal(signal.SIGKILL)

    remote = batch(many, "remote", report=kill_one, cluster=address)
    assert remote.result.exit_code == 0
    assert remote.n_computed == N_CASES
    assert remote.tables == local.tables
    assert len(remote.encoder.batches) == n_batches_here
    work = remote.result.manifest.throughput
    assert 0 < work.reading_s < 2 * work.seconds
    assert work.bytes_read > sum(path.stat().st_size for path in many.rglob("lesions.dcm"))
    assert len(work.attempts[-1].slowest) == 10
    assert work.peak_memory_mib["worker"] > 0
    assert work.limited_by == "cluster"
    if killed:
        assert workers[0].wait(PATIENCE_S) == -signal.SIGKILL
        assert workers[1].poll() is None


@pytest.mark.parametrize("lost", ["scheduler", "workers"])
def test_a_cluster_that_is_lost_in_mid_run(batch, cluster, many, monkeypatch, lost):
    address, scheduler, workers = cluster

    def kill(event):
        if event["event"] == "case":
            monkeypatch.setattr("oncofm.workflow.batch.cluster._PATIENCE_S", 5.0)
            for process in [scheduler] if lost == "scheduler" else workers:
                process.kill()

    with pytest.raises(BatchError, match=r"no scheduler or no worker .* With --resume it goes on"):
        batch(many, report=kill, cluster=address)
    rest = batch(many, resume=True)
    assert rest.result.exit_code == 0
    assert rest.tables == batch(many, "whole").tables


def test_what_a_worker_cannot_do_is_said(cluster):
    address, *_ = cluster
    said = pytest.raises(
        BatchError, match=r"A worker .* failed \(AttributeError\); look at what it"
    )
    with Cluster(address, Settings()) as connection, said:
        list(connection.begin([5], keep_volumes=False, is_stopped=lambda: False)[0])


def test_a_cluster_that_does_not_answer(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("oncofm.workflow.batch.cluster._PATIENCE_S", 1.0)
    with pytest.raises(BatchError, match="no scheduler or no worker that answers"):
        Cluster("dask://127.0.0.1:9", Settings())
