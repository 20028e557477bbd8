"""The node is killed while studies stream in: nothing is lost, nothing is there twice."""

import contextlib
import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from nodes import PATIENCE_S, PEER, TITLE, make_config, pacs
from pynetdicom import AE
from pynetdicom.presentation import build_context
from studies import write_study

N_STUDIES, N_KILLS = 20, 30


class Scanner(threading.Thread):
    """Sends files, each as often as it takes until it is acknowledged."""

    def __init__(self, port: int, files: list[Path]) -> None:
        super().__init__(daemon=True)
        self.port, self.files = port, files
        self.acknowledged: dict[str, str] = {}
        self.stopping = threading.Event()

    def run(self) -> None:
        ae = AE(PEER)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
        classes = ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"]
        contexts = [build_context(uid, "1.2.840.10008.1.2.1") for uid in classes]
        left = list(self.files)
        while left and not self.stopping.is_set():
            association = ae.associate("127.0.0.1", self.port, contexts, ae_title=TITLE)
            while left and association.is_established:
                dataset = pydicom.dcmread(left[0])
                with contextlib.suppress(RuntimeError):
                    answer = association.send_c_store(dataset)
                    if "Status" in answer and answer.Status == 0:
                        self.acknowledged[dataset.SOPInstanceUID] = dataset.StudyInstanceUID
                        left.pop(0)
                        time.sleep(0.02)
            if association.is_established:
                association.release()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def streams(tmp_path_factory) -> list[list[Path]]:
    """Files of studies, in two streams, interleaved, with the SEG first, last or between."""
    rng = random.Random(1)
    folder = tmp_path_factory.mktemp("stream")
    orders = []
    for number in range(N_STUDIES):
        study = write_study(folder / str(number), f"kill-{number}", shape=(64, 48, 24))
        orders.append(study.ct_files)
        orders[-1].insert(rng.choice([0, 12, 24]), study.seg_file)
    streams = []
    for half in (orders[::2], orders[1::2]):
        turns = [number for number, files in enumerate(half) for _ in files]
        # Studies overlap with the next ones, as on a scanner, and not all with all.
        turns.sort(key=lambda number: number * 20 + rng.random() * 60)
        iterators = [iter(files) for files in half]
        streams.append([next(iterators[number]) for number in turns])
    return streams


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kill_at_random_moments(tmp_path, streams, orthanc):
    rng = random.Random(2)
    config = make_config(
        tmp_path,
        {"PACS": pacs(orthanc.dicom_port)},
        rules=[{"name": "all", "quiet_s": 0.3, "destinations": ["PACS"]}],
    )
    command = [sys.executable, str(Path(__file__).parent / "node_process.py")]
    with subprocess.Popen(
        [*command, str(tmp_path / "pacs.yml")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as source:
        scanners = [Scanner(config.node.port, files) for files in streams]
        pid = _start(source)
        for scanner in scanners:
            scanner.start()
        try:
            _wait(lambda: any(scanner.acknowledged for scanner in scanners))
            for _ in range(N_KILLS):
                time.sleep(rng.uniform(0.1, 1.5))
                os.kill(pid, signal.SIGKILL)
                _wait(lambda gone=Path(f"/proc/{pid}"): not gone.exists())
                _check_nothing_lost(config.node.folder, scanners)
                pid = _start(source)
            for scanner in scanners:
                scanner.join(PATIENCE_S)
                assert not scanner.is_alive()
            _wait_until_done(config.node.folder)
        finally:
            for scanner in scanners:
                scanner.stopping.set()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            source.kill()

    sent = [
        pydicom.dcmread(io.BytesIO(orthanc.get(f"/instances/{one}/file")[1]))
        for one in orthanc.instances
    ]
    counts = Counter(report.StudyInstanceUID for report in sent)
    uids = {uid for scanner in scanners for uid in scanner.acknowledged.values()}
    assert counts == dict.fromkeys(uids, 1)
    assert len(uids) == N_STUDIES


def _start(source) -> int:
    source.stdin.write("\n")
    source.stdin.flush()
    return int(source.stdout.readline())


def _check_nothing_lost(folder: Path, scanners: list[Scanner]) -> None:
    """What was acknowledged is a file that can be read, or was in a job that ended."""
    acknowledged = [uid for scanner in scanners for uid in list(scanner.acknowledged)]
    with contextlib.closing(sqlite3.connect(folder / "node.sqlite", timeout=60)) as database:
        rows = database.execute("SELECT sop_uid FROM objects WHERE done_file != ''")
        processed = {uid for (uid,) in rows}
    there = {
        str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for path in (folder / "spool").rglob("*.dcm")
    }
    lost = set(acknowledged) - processed - there
    assert not lost, f"{len(lost)} of {len(acknowledged)} are lost"


def _wait_until_done(folder: Path) -> None:
    def is_done() -> bool:
        with contextlib.closing(sqlite3.connect(folder / "node.sqlite", timeout=60)) as database:
            rows = database.execute("SELECT state, fresh, reason, message FROM studies")
            states[:] = rows.fetchall()
        return len(states) == N_STUDIES and all(row[:2] == ("done", 0) for row in states)

    states: list[tuple] = []
    _wait(is_done, states)


def _wait(is_there: Callable[[], bool], *said: object) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_there():
        assert time.monotonic() < end, said
        time.sleep(0.05)
