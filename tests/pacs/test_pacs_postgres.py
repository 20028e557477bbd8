"""The queue in a real PostgreSQL."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from nodes import free_port
from tools import require_tool

from oncofm.pacs.errors import NodeError
from oncofm.pacs.work_queue import open_queue

NOBODY = 65534


@pytest.fixture
def server():
    """URL of a server; it runs as nobody where tests run as root, whom it refuses."""
    initdb, postgres = require_tool("initdb"), require_tool("postgres")
    folder = Path(tempfile.mkdtemp(prefix="oncofm-pg-"))
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user, user)
    data = str(folder / "data")
    subprocess.run(
        [initdb, "-D", data, "-U", "oncofm", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        user=user,
        cwd=folder,
    )
    port = free_port()
    command = [postgres, "-D", data, "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, user=user, cwd=folder
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "ready to accept connections" in line:
                break
        yield f"postgresql://oncofm@127.0.0.1:{port}/postgres"
        process.send_signal(signal.SIGINT)  # does not wait for clients
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_queue(server, tmp_path):
    pytest.importorskip("psycopg2")
    queue = open_queue(server, tmp_path, "a")
    other = open_queue(server, tmp_path, "b")
    queue.put("one")
    queue.put("two")
    assert (len(queue), len(other)) == (2, 0)
    again = open_queue(server, tmp_path, "a")
    assert [again.take(), again.take(), again.take()] == ["one", "two", None]
    queue.put("three")
    queue.clear()
    assert queue.take() is None


def test_no_server(tmp_path):
    pytest.importorskip("psycopg2")
    with pytest.raises(NodeError, match="cannot be reached"):
        open_queue(f"postgresql://oncofm@127.0.0.1:{free_port()}/x", tmp_path, "a")
