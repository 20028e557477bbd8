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


@pytest.fixture
def cluster(tmp_path):
    """Address of a scheduler, and the processes of its two workers."""
    pytest.importorskip("distributed")
    facts = tmp_path / "scheduler.json"
    own = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", facts)
    scheduler = start("distributed.cli.dask_scheduler", *own)
    for _ in range(300):
        if facts.exists():
            break
        time.sleep(0.1)
    address = json.loads(facts.read_text())["address"]
    settings = ("--no-nanny", "--nthreads", 1, "--no-dashboard", "--host", "127.0.0.1")
    settings += ("--preload", HERE / "cluster_worker.py", "--local-directory", tmp_path)
    workers = [start("distributed.cli.dask_worker", address, *settings) for _ in range(2)]
    yield address.replace("tcp://", "dask://"), workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


@pytest.mark.parametrize("killed", [False, True])
def test_the_same_tables_as_without_a_cluster(batch, cluster, many, killed):
    address, workers = cluster
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
    if killed:
        assert workers[0].wait(5) == -signal.SIGKILL
        assert workers[1].poll() is None


def test_a_cluster_that_does_not_answer(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("oncofm.workflow.batch.cluster._PATIENCE_S", 1.0)
    with pytest.raises(BatchError, match="no scheduler or no worker that answers"):
        Cluster("dask://127.0.0.1:9", Settings())
