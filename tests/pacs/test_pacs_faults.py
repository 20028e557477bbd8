"""Senders that die, disks that fill up, clocks that jump."""

import contextlib
import os
import socket
import struct
import subprocess
import threading
import time

import pydicom
import pytest
from nodes import PEER, TITLE, FakeClock, make_config, running
from tools import require_tool

from oncofm.pacs.care import requeue
from oncofm.pacs.node import steady_clock

QUIET = [{"name": "all", "quiet_s": 30, "destinations": [], "shadow": True}]


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, {}, rules=QUIET)


@pytest.fixture
def node(config):
    with running(config) as node:
        yield node


def send(port: int, *files) -> subprocess.CompletedProcess:
    """Send files, whatever comes of it."""
    command = [require_tool("storescu"), "-R", "-v", "-nh", "-aet", PEER, "-aec", TITLE]
    return subprocess.run(
        [*command, "127.0.0.1", str(port), *map(os.fspath, files)], capture_output=True, text=True
    )


def acknowledged(done: subprocess.CompletedProcess) -> int:
    return (done.stdout + done.stderr).count("Received Store Response (Success)")


@contextlib.contextmanager
def cut_after(port: int, n_bytes: int):
    """Stand between a sender and the node, and reset the connection after so many bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def forward():
            sender = server.accept()[0]
            node = socket.create_connection(("127.0.0.1", port))
            answering = threading.Thread(target=answer, args=(node, sender), daemon=True)
            answering.start()
            left = n_bytes
            while left and (data := sender.recv(min(left, 65536))):
                node.sendall(data)
                left -= len(data)
            node.shutdown(socket.SHUT_RD)  # who reads from it would keep it open
            answering.join()
            for one in (node, sender):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()

        def answer(node, sender):
            with contextlib.suppress(OSError):
                while data := node.recv(65536):
                    sender.sendall(data)

        threading.Thread(target=forward, daemon=True).start()
        yield server.getsockname()[1]


def test_a_sender_that_dies_in_the_middle_of_an_object(node, study, tmp_path):
    large = pydicom.dcmread(study.ct_files[2])
    large.add_new(0x00091000, "OB", bytes(3_000_000))
    large.save_as(tmp_path / "large.dcm")
    files = [*study.ct_files[:2], tmp_path / "large.dcm", study.ct_files[3]]
    with cut_after(node.port, 1_500_000) as port:
        assert acknowledged(send(port, *files)) == 2
    node.indexed(2)
    node.wait(lambda: not node.node.receiver._ae.active_associations)
    folder = node.node.config.node.folder / "spool"
    assert [path.suffix for path in folder.rglob("*.*")] == [".dcm"] * 2
    assert acknowledged(send(node.port, *files)) == 4  # the first two once more
    node.indexed(4)
    assert len(node.spooled) == 4
    assert node.node.is_alive


def test_a_database_on_a_full_disk(node, study):
    """What was acknowledged is on disk, and nothing more is taken until there is room."""
    database = node.node.database
    send(node.port, *study.ct_files[:2])
    node.indexed(2)
    ((pages,),) = database.rows("PRAGMA page_count")
    database.rows(f"PRAGMA max_page_count = {pages}")
    n_acknowledged, answers = 2, ""
    for path in study.ct_files[2:]:
        done = send(node.port, path)
        n_acknowledged += acknowledged(done)
        answers = done.stdout + done.stderr
        if not acknowledged(done):
            break
        node.wait(lambda n=n_acknowledged: not node.node.is_ready or node.n_indexed == n)
    assert "OutOfResources" in answers.replace(" ", "")
    node.wait(lambda: '"error": "OperationalError"' in node.audit)
    assert "The database cannot be written; free space." in node.audit
    assert len(node.spooled) == n_acknowledged < 24
    assert not node.node.is_ready
    database.rows("PRAGMA max_page_count = 1000000")
    node.indexed(n_acknowledged)
    node.wait(lambda: node.node.is_ready)
    assert acknowledged(send(node.port, *study.ct_files, study.seg_file)) == 25
    node.indexed(25)
    node.clock.now += 31
    node.wait_for("done")
    assert node.node.is_alive


def test_a_commit_that_fails_leaves_nothing_half_done(node, study):
    """The next transaction is one of its own."""
    database = node.node.database
    database.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    database.execute(
        "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
    )
    database.rows("PRAGMA foreign_keys = ON")
    with pytest.raises(Exception, match="FOREIGN KEY"):
        database.execute("INSERT INTO child VALUES (1)")  # checked by the commit
    assert database.rows("SELECT * FROM child") == []
    database.execute("INSERT INTO parent VALUES (1)")
    assert database.rows("SELECT * FROM parent") == [(1,)]


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_the_clock_of_the_machine_is_set_while_the_node_runs(tmp_path, study, monkeypatch, jump_s):
    clock = steady_clock()
    config = make_config(tmp_path, {}, rules=[{**QUIET[0], "quiet_s": 3600}])
    with running(config, clock) as node:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + jump_s)
        send(node.port, *study.ct_files)
        node.indexed(24)
        node.node.studies.tick()
        assert node.study.state == "received"  # neither forced, nor never complete
        assert abs(node.study.last_at - now) < 3600
        database = node.node.database
        database.execute("UPDATE studies SET state = 'quarantined', fresh = 0")
        requeue(database, node.study.study_uid, time.time())  # as a command in another process
        node.wait_for("waiting")


def test_a_clock_that_was_set_forward_loses_nothing(config, study):
    with running(config) as node:
        send(node.port, *study.ct_files)
        node.indexed(24)
        node.clock.now += 31
        node.wait_for("waiting")
    clock = FakeClock()
    clock.now += 1e9
    with running(config, clock) as node:
        node.wait_for("quarantined")  # it has waited long enough, and is kept
        assert len(node.spooled) == 24
        clock.now -= 1e9
        send(node.port, study.seg_file)
        node.indexed(25)
        clock.now += 31
    clock = FakeClock()
    with running(config, clock) as node:
        clock.now += 62
        node.wait_for("done")
        assert node.study.reason == ""
