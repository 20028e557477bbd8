"""Nodes for tests: a configuration, a runner without a network, a clock that tests set."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path

import pydicom
import yaml
from fakes import VoxelEncoder
from ports import free_port
from pydicom.uid import generate_uid
from tools import require_tool

from oncofm.pacs.config import PacsConfig, read_config
from oncofm.pacs.jobs import JobEnd, Order, run_order
from oncofm.pacs.node import Node, open_node

TITLE, PEER = "ONCOFM", "STORESCU"
START = 1_800_000_000.0
PATIENCE_S = 300.0
"""How long tests wait for what is to happen in a moment: no machine is slower than that."""


class FakeClock:
    """Time stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class RunnerHere:
    """Runs jobs in this process, with an encoder that has no network."""

    is_ready = True

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.before: Callable[[Order], JobEnd | None] = lambda order: None

    def start(self) -> None:
        return None

    def run(self, order: Order) -> JobEnd:
        self.orders.append(order)
        return self.before(order) or run_order(order, VoxelEncoder)

    def stop(self) -> None:
        pass


def config_text(folder: Path, destinations: dict, **sections) -> dict:
    """A configuration as YAML has it; sections are merged into the usual ones."""
    content = {
        "node": {
            "folder": str(folder),
            "ae_titles": [TITLE],
            "peers": [PEER],
            "address": "127.0.0.1",
            "port": free_port(),
            "min_free_mb": 1,
        },
        "model": {"random_seed": 0, "device": "cpu"},
        "jobs": {"attempts": 2, "backoff_s": 10},
        "sending": {"backoff_s": 0.2, "max_backoff_s": 0.5},
        "destinations": destinations,
        "rules": [{"name": "lesions", "quiet_s": 30, "destinations": list(destinations)}],
    }
    for name, section in sections.items():
        is_mapping = isinstance(section, dict)
        content[name] = content.get(name, {}) | section if is_mapping else section
    return content


def make_config(folder: Path, destinations: dict, **sections) -> PacsConfig:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pacs.yml"
    path.write_text(yaml.safe_dump(config_text(folder / "node", destinations, **sections)))
    return read_config(path)


def pacs(port: int, title: str = "ORTHANC") -> dict:
    """A destination on the loopback."""
    return {
        "type": "dicom",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": title,
        "calling_ae_title": TITLE,
        "timeout_s": 60,
    }


class TestNode:
    """A running node, and what tests ask it."""

    __test__ = False

    def __init__(self, node: Node, clock: FakeClock, runner: RunnerHere) -> None:
        self.node, self.clock, self.runner = node, clock, runner
        self.port = node.receiver.port

    def push(self, files: Iterable[Path], *options: str) -> None:
        push(self.port, files, *options)

    @property
    def study(self):
        (study,) = self.node.database.studies()
        return study

    @property
    def spooled(self) -> list[Path]:
        return sorted((self.node.config.node.folder / "spool").rglob("*.dcm"))

    @property
    def audit(self) -> str:
        """The log, but for a line that is being written."""
        text = (self.node.config.node.folder / "audit.jsonl").read_text()
        return text[: text.rfind("\n") + 1]

    def wait(self, is_there: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if is_there():
                return
            time.sleep(0.02)
        raise AssertionError(f"did not happen; {self.node.database.studies()}\n{self.audit}")

    def wait_for(self, *states: str) -> None:
        self.wait(lambda: self.study.state in states and not self.study.fresh)

    @property
    def n_indexed(self) -> int:
        """How many objects are in the books."""
        return self.node.database.rows("SELECT count(*) FROM objects WHERE present")[0][0]

    def indexed(self, n: int) -> None:
        """Wait until so many objects are in the books."""
        self.wait(lambda: self.n_indexed == n)


def push(port: int, files: Iterable[Path], *options: str) -> None:
    """Send files as a scanner does."""
    command = [require_tool("storescu"), "-R", "-aet", PEER, "-aec", TITLE, *options]
    names = [os.fspath(file) for file in files]
    done = subprocess.run(
        [*command, "127.0.0.1", str(port), *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def running(config: PacsConfig, clock: FakeClock | None = None, runner: RunnerHere | None = None):
    clock, runner = clock or FakeClock(), runner or RunnerHere()
    with open_node(config, clock=clock, runner=runner) as node:
        yield TestNode(node, clock, runner)


def change_seg(seg_file: Path, target: Path, keep_uid: bool = False) -> Path:
    """Write a SEG with fewer voxels."""
    seg = pydicom.dcmread(seg_file)
    data = bytearray(seg.PixelData)
    data[: len(data) // 2] = bytes(len(data) // 2)
    seg.PixelData = bytes(data)
    if not keep_uid:
        seg.SOPInstanceUID = seg.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    target.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(target)
    return target
