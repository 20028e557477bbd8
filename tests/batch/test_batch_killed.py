"""A batch that is killed, terminated, or started twice: nothing is lost and nothing comes twice."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batches import leftovers, tables_of, write_tiny_study

from oncofm.workflow.batch.ledger import read_ledger

PROGRAM = Path(__file__).with_name("batch_program.py")
PYTHONPATH = f"{PROGRAM.parent}{os.pathsep}{PROGRAM.parents[1]}"
N_KILLS = 50
PATIENCE_S = 600.0


def start(how, source, output, *gate):
    command = [sys.executable, str(PROGRAM), *map(str, (how, source, output, *gate))]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
    )
    assert process.stdout.readline().strip() == "ready"
    return process


def finish(how, source, output):
    process = start(how, source, output)
    said = rest_of(process)
    assert process.returncode == 0, said
    return tables_of(output)


def rest_of(process):
    """What it says until it ends; `communicate` may lose what was read ahead with a line."""
    said = process.stdout.read()
    process.wait()
    return said


def session_of(process):
    """Process ids of everything that it has started and that still runs."""
    alive = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, *_, session = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            except OSError:
                continue
            if int(session) == process.pid and state != "Z":
                alive.append(int(folder.name))
    return alive


def wait_until_alone(process):
    end = time.monotonic() + PATIENCE_S
    while session_of(process) and time.monotonic() < end:
        time.sleep(0.05)
    assert session_of(process) == []


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """100 tiny studies."""
    folder = tmp_path_factory.mktemp("hundred")
    for number in range(100):
        write_tiny_study(folder / f"study-{number:03d}", number)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_at_fifty_random_moments(hundred, tmp_path):
    undisturbed = finish("processes", hundred, tmp_path / "undisturbed")
    rng = random.Random(2024)
    output = tmp_path / "killed"
    n_done = []
    for number in range(N_KILLS):
        how = "processes" if number % 20 in (0, 5) else "here"
        n_batches = rng.randrange(1, 5)
        process = start(how, hundred, output, n_batches, tmp_path / "never")
        if number % 2:
            wait_for_cases(process, n_batches - 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, 6.0 if how == "processes" else 1.6))
        process.kill()
        process.wait()
        wait_until_alone(process)
        n_done.append(count_done(output))
    assert n_done == sorted(n_done), "something that was done is done no more"
    assert len(set(n_done)) > 12, "too few of the kills came in between"
    assert finish("processes", hundred, output) == undisturbed
    with read_ledger(output) as ledger:
        assert len(ledger.results()) == 100
        assert sum(entry.n_done for entry in ledger.results().values()) == 300
        known = {name for files in ledger.parts().values() for name in files}
    assert {path.name for path in (output / "parts").iterdir()} == known
    assert leftovers(output) == []


def wait_for_cases(process, n_cases):
    """Wait until so many are computed, or all are."""
    lines = iter(process.stdout.readline, "")
    while n_cases and (line := next(lines, "")):
        n_cases -= line == "case\n"


def count_done(output):
    try:
        with read_ledger(output) as ledger:
            return len(ledger.results())
    except Exception:  # killed before there was a ledger
        return 0


@pytest.fixture
def twelve(tmp_path):
    for number in range(12):
        write_tiny_study(tmp_path / "in" / f"study-{number}", number)
    return tmp_path / "in"


def test_terminated_it_ends_in_order(twelve, tmp_path):
    """A signal to the whole group, as job systems send it, with a second start in between."""
    process = start("processes", twelve, tmp_path / "out", 2, tmp_path / "gate")
    assert process.stdout.readline() == "start\n"
    assert process.stdout.readline() == "case\n"
    second = start("here", twelve, tmp_path / "out")
    said = rest_of(second)
    assert second.returncode == 1
    assert said.startswith("Another process writes to")
    os.killpg(process.pid, signal.SIGTERM)
    (tmp_path / "gate").touch()
    said = rest_of(process)
    assert process.returncode == 143
    assert set(said.split()) <= {"case"}
    wait_until_alone(process)
    with read_ledger(tmp_path / "out") as ledger:
        entries = list(ledger.results().values())
    assert 1 + said.split().count("case") == len(entries) < 12
    assert {(entry.state, entry.message) for entry in entries} == {("done", "")}
    assert not (tmp_path / "out" / "features.parquet").exists()
    assert finish("here", twelve, tmp_path / "out") == finish("here", twelve, tmp_path / "whole")


def test_readers_do_not_outlive_a_parent_that_was_killed(twelve, tmp_path):
    process = start("processes", twelve, tmp_path / "out", 2, tmp_path / "never")
    wait_for_cases(process, 1)
    assert len(session_of(process)) >= 3
    process.kill()
    process.wait()
    wait_until_alone(process)
