"""The node under load: ingest, time from the last object to the report, memory.

``ingest``: instances of 512 x 512 over 4 associations into `oncofm pacs serve` (which syncs each to
disk before it answers) and, in the same run, into DCMTK's storescp (which does not) on the same
disk. ``warm``: studies of 300 slices with 2 lesions, from the last object to the report at the
destination, the quiet timer left out. ``memory``: resident memory of the node and its job process
over small studies. Needs storescu and storescp.

Usage: python utils/bench/bench_pacs.py [--instances 5000] [--studies 3] [--small 200]
    [--only ingest|warm|memory] [--folder FOLDER] [--weights FILE]
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from bench_run import apart

N_ASSOCIATIONS, QUIET_S = 4, 3.0
TITLE, PEER = "ONCOFM", "BENCH"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


# --- inputs -------------------------------------------------------------------------------


def write_instances(folder: Path, n: int) -> None:
    """Write copies of a slice of 512 x 512, each with a SOP Instance UID of its own."""
    from oncofm.demo.dicom import write_ct_series
    from oncofm.demo.phantom import chest_scene

    grid = {"shape": (512, 512, 1), "spacing_mm": (0.75, 0.75, 1.0)}
    (first,) = write_ct_series(folder / "first", chest_scene(0), **grid)
    data = first.read_bytes()
    uid = _uid_of(first)
    for number in range(n):
        new = f"{uid[:-6]}{number:06d}".encode()
        (folder / f"{number:06d}.dcm").write_bytes(data.replace(uid.encode(), new))
    shutil.rmtree(folder / "first")


def write_study(folder: Path, name: str, n_slices: int, n_columns: int, n_lesions: int) -> None:
    """Write a phantom CT of 300 mm with a SEG."""
    from oncofm.demo.dicom import ct_geometry, write_ct_series
    from oncofm.demo.phantom import chest_scene
    from oncofm.demo.segmentation import lesion_segments, write_seg

    scene = chest_scene(0)
    grid = {
        "shape": (n_columns, n_columns, n_slices),
        "spacing_mm": (384 / n_columns, 384 / n_columns, 300 / n_slices),
    }
    files = write_ct_series(folder / "ct", scene, uid_seed=name, **grid)
    segments = lesion_segments(scene, ct_geometry(scene, **grid))[:n_lesions]
    write_seg(folder / "seg.dcm", files, segments, uid_seed=f"{name}/seg")


def copy_study(source: Path, target: Path, number: int) -> list[Path]:
    """Make another study of one that is there, by other UIDs of study and series."""
    target.mkdir()
    files = sorted(source.rglob("*.dcm"))
    uids = {_uid_of(file, "StudyInstanceUID") for file in files[:1]}
    uids |= {_uid_of(file, "SeriesInstanceUID") for file in (files[0], files[-1])}
    copies = []
    for file in files:
        data = file.read_bytes()
        for uid in uids:
            data = data.replace(uid.encode(), f"{uid[:-4]}{number:04d}".encode())
        copies.append(target / file.name)
        copies[-1].write_bytes(data)
    return copies


def _uid_of(path: Path, keyword: str = "SOPInstanceUID") -> str:
    import pydicom

    return str(pydicom.dcmread(path, stop_before_pixels=True)[keyword].value)


# --- processes ----------------------------------------------------------------------------


def send(port: int, title: str, files: Sequence[Path]) -> subprocess.Popen:
    command = ["storescu", "-R", "-aet", PEER, "-aec", title, "127.0.0.1", str(port)]
    return subprocess.Popen([*command, *map(str, files)])


def send_all(port: int, title: str, files: Sequence[Path], n: int) -> float:
    """Send files over several associations; returns seconds."""
    started = time.perf_counter()
    senders = [send(port, title, files[number::n]) for number in range(n)]
    if any(sender.wait() for sender in senders):
        sys.exit("an instance was not taken")
    return time.perf_counter() - started


@contextlib.contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """DCMTK's receiver, with a process for each association."""
    folder.mkdir()
    port = free_port()
    command = ["storescp", "--fork", "-pm", "-pdu", "131072", "-od", str(folder), str(port)]
    with subprocess.Popen(command) as process:
        _wait_for(port)
        try:
            yield port
        finally:
            process.terminate()


class Node:
    """A node that runs, as the operating system and its audit log show it."""

    def __init__(self, process: subprocess.Popen, folder: Path, port: int) -> None:
        self.process, self.folder, self.port = process, folder, port

    @property
    def events(self) -> list[dict]:
        """Lines of its audit log."""
        return [json.loads(line) for line in (self.folder / "audit.jsonl").open()]

    def wait_for_reports(self, n: int, patience_s: float = 600.0) -> None:
        """Wait until so many reports are delivered."""
        end = time.monotonic() + patience_s
        while sum(_is_report(event) for event in self.events) < n:
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit("the reports did not come")
            time.sleep(0.05)

    @property
    def _pids(self) -> list[int]:
        pid = self.process.pid
        threads = Path(f"/proc/{pid}/task").glob("*/children")
        children = " ".join(thread.read_text() for thread in threads).split()
        return [pid, *map(int, children)]

    @property
    def memory_mib(self) -> float:
        """Resident memory of all its processes."""
        pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in self._pids)
        return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def cpu_s(self) -> float:
        """Seconds of processor that all its processes took."""
        ticks = 0
        for pid in self._pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _is_report(event: dict) -> bool:
    return event["event"] == "delivery" and event["state"] == "sent"


@contextlib.contextmanager
def serve(folder: Path, target_port: int, weights: Path | None, quiet_s: float) -> Iterator[Node]:
    """`oncofm pacs serve`, with its model loaded."""
    folder.mkdir()
    port, status_port = free_port(), free_port()
    target = {"type": "dicom", "host": "127.0.0.1", "port": target_port, "ae_title": "TARGET"}
    model = {"weights": str(weights)} if weights else {"random_seed": 0}
    config = {
        "node": {
            "folder": str(folder / "node"),
            "ae_titles": [TITLE],
            "peers": [PEER],
            "address": "127.0.0.1",
            "port": port,
            "status_port": status_port,
        },
        "model": model,
        "destinations": {"TARGET": target | {"calling_ae_title": TITLE}},
        "rules": [{"name": "all", "quiet_s": quiet_s, "destinations": ["TARGET"]}],
    }
    (folder / "pacs.yml").write_text(json.dumps(config))  # which is YAML, too
    oncofm = str(Path(sys.executable).with_name("oncofm"))
    with subprocess.Popen([oncofm, "pacs", "serve", "--config", str(folder / "pacs.yml")]) as node:
        try:
            while not _is_ready(status_port):
                if node.poll() is not None:
                    sys.exit("the node did not start")
                time.sleep(0.1)
            yield Node(node, folder / "node", port)
        finally:
            node.terminate()


def _is_ready(port: int) -> bool:
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").status == 200
    return False


def _wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    sys.exit("storescp did not start")


# --- what is measured ---------------------------------------------------------------------


def bench_ingest(folder: Path, weights: Path | None, n: int) -> None:
    apart(write_instances, _made(folder / "instances"), n)
    files = sorted((folder / "instances").iterdir())
    n_mb = sum(file.stat().st_size for file in files) / 1e6
    print(f"ingest: {n} instances, {n_mb:.0f} MB, {N_ASSOCIATIONS} associations")
    with storescp(folder / "storescp") as port:
        seconds = {"storescp": send_all(port, "TARGET", files, N_ASSOCIATIONS)}
        shutil.rmtree(folder / "storescp")
        os.sync()
        with serve(folder / "ingest", port, weights, quiet_s=3600.0) as node:
            before_s = node.cpu_s
            seconds["oncofm"] = send_all(node.port, TITLE, files, N_ASSOCIATIONS)
            cpu_s = node.cpu_s - before_s
            n_spooled = sum(1 for _ in (node.folder / "spool").rglob("*.dcm"))
    if n_spooled != n:
        sys.exit(f"{n_spooled} of {n} instances are there")
    for name, wall_s in seconds.items():
        print(f"    {name:<10} {wall_s:7.2f} s  {n / wall_s:7.0f} instances/s", flush=True)
    share = seconds["storescp"] / seconds["oncofm"]
    print(
        f"    {share:.2f} of storescp's rate (target: 0.5); {1000 * cpu_s / n:.2f} ms of CPU each"
    )
    shutil.rmtree(folder / "instances")


def bench_warm(folder: Path, weights: Path | None, n_studies: int) -> None:
    print("warm: 300 slices of 512 x 512, 2 lesions; seconds from the last object to the report")
    apart(write_study, _made(folder / "study"), "bench", 300, 512, 2)
    totals = []
    with (
        storescp(folder / "reports") as port,
        serve(folder / "warm", port, weights, QUIET_S) as node,
    ):
        for number in range(n_studies + 1):
            files = copy_study(folder / "study", folder / f"study-{number}", number)
            before_s = node.cpu_s
            send_all(node.port, TITLE, files, 1)
            ended = datetime.now().timestamp()
            node.wait_for_reports(number + 1)
            if number == 0:
                continue  # the first job of a process is slower
            parts, start = {}, ended + QUIET_S
            for event in node.events:
                at = datetime.fromisoformat(event["time"]).timestamp()
                if at > start and event["event"] in ("study", "delivery"):
                    parts[event["state"]] = at - ended - QUIET_S
            totals.append(parts["sent"])
            steps = ", ".join(f"{state} {at:.2f}" for state, at in parts.items())
            print(f"    {steps}; {node.cpu_s - before_s:.2f} s of CPU with ingest", flush=True)
    print(f"    median {statistics.median(totals):.2f} s (target: 2)")


def bench_memory(folder: Path, weights: Path | None, n_studies: int) -> None:
    print(f"memory: {n_studies} studies of 12 slices of 64 x 64, 1 lesion")
    apart(write_study, _made(folder / "small-study"), "small", 12, 64, 1)
    marks = sorted({max(1, n_studies // 10), n_studies // 2, n_studies})
    with (
        storescp(folder / "small-reports") as port,
        serve(folder / "small", port, weights, quiet_s=0.5) as node,
    ):
        print(f"    before: {node.memory_mib:6.0f} MiB", flush=True)
        n_sent = 0
        for mark in marks:
            for number in range(n_sent, mark):
                copy = folder / "small-copy"
                files = copy_study(folder / "small-study", copy, number)
                send_all(node.port, TITLE, files, 1)
                shutil.rmtree(copy)
            n_sent = mark
            node.wait_for_reports(mark)
            print(f"    after {mark:4d}: {node.memory_mib:6.0f} MiB", flush=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=5000)
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--small", type=int, default=200)
    parser.add_argument("--only", choices=("ingest", "warm", "memory"))
    parser.add_argument("--folder", type=Path, help="on the disk to measure; must not exist")
    parser.add_argument("--weights", type=Path, help="default: random ones")
    options = parser.parse_args()
    benches = {
        "ingest": (bench_ingest, options.instances),
        "warm": (bench_warm, options.studies),
        "memory": (bench_memory, options.small),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = _made(options.folder) if options.folder else Path(temporary)
        for name, (bench, n) in benches.items():
            if options.only in (None, name):
                bench(folder, options.weights, n)
        if options.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
