"""A Slurm for tests: a cluster of this machine alone, on the loopback, in a folder of its own."""

import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from ports import free_port
from tools import require_tool

_T = TypeVar("_T")
_PATIENCE_S = 180
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}

# More cores and memory than the machine may have: tests schedule more than they compute.
_CONFIGURATION = """
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MailProg=/bin/true
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=120
NodeName=localhost NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000000 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES
"""


@dataclass(frozen=True)
class Slurm:
    """A running cluster."""

    environment: dict[str, str]

    def call(self, *command: object, **variables: str) -> str:
        """Run one of its programs, and return what that prints."""
        done = subprocess.run(
            [require_tool(str(command[0])), *map(str, command[1:])],
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tasks(self, job: str) -> list[dict[str, str]]:
        """What is recorded of a job: of each task of an array, of those that wait together."""
        lines = self.call("scontrol", "show", "job", "--oneliner", job).splitlines()
        return [dict(pair.split("=", 1) for pair in line.split() if "=" in pair) for line in lines]

    def wait(self, job: str) -> list[dict[str, str]]:
        """Wait until all tasks of a job have ended; return their records in their order."""

        def ended() -> list[dict[str, str]]:
            tasks = self.tasks(job)
            return tasks if all(task["JobState"] in _ENDED for task in tasks) else []

        tasks = wait_for(ended, f"job {job} to end")
        return sorted(tasks, key=lambda task: int(task.get("ArrayTaskId", "0")))


def wait_for(look: Callable[[], _T], what: str) -> _T:
    """Look until there is something, and return it."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.2)
    return pytest.fail(f"waited {_PATIENCE_S} s in vain for {what}")


@contextmanager
def run_slurm() -> Iterator[Slurm]:
    """Start a cluster; in the end stop it and whatever it still runs."""
    programs = [require_tool(name) for name in ("munged", "slurmctld", "slurmd")]
    folder = Path(tempfile.mkdtemp(prefix="oncofm-slurm-"))
    folder.chmod(0o755)  # munge wants everybody to reach its socket
    try:
        with ExitStack() as stack:
            stack.callback(_kill_what_remains, folder)
            yield _start(programs, folder, stack)
    finally:
        shutil.rmtree(folder)


def _start(programs: list[str], folder: Path, stack: ExitStack) -> Slurm:
    munged, slurmctld, slurmd = programs
    ports = free_port(), free_port()
    text = _CONFIGURATION.format(folder=folder, ports=ports, user=getpass.getuser())
    configuration, key = folder / "slurm.conf", folder / "munge.key"
    configuration.write_text(text)
    # Two devices that do no harm stand for cards.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    (folder / "plugstack.conf").touch()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("SLURM")}
    slurm = Slurm(inherited | {"SLURM_CONF": str(configuration)})

    def start(*command: str) -> None:
        log = stack.enter_context((folder / f"{Path(command[0]).name}.log").open("wb"))
        process = subprocess.Popen(
            command, env=slurm.environment, cwd=folder, stdout=log, stderr=log
        )
        stack.callback(_stop, process)

    kinds = ("socket", "pid-file", "log-file", "seed-file")
    places = [f"--{kind}={folder}/munge.{kind}" for kind in kinds]
    start(munged, "--foreground", f"--key-file={key}", *places)
    wait_for((folder / "munge.socket").exists, "munge")
    start(slurmctld, "-D")
    start(slurmd, "-D", "-N", "localhost")
    try:
        wait_for(lambda: _is_idle(slurm), "the node")
    except pytest.fail.Exception:
        print(*(log.read_text(errors="replace") for log in folder.glob("*.log")))
        raise
    stack.callback(_cancel_all, slurm)
    return slurm


def _is_idle(slurm: Slurm) -> bool:
    try:
        return slurm.call("sinfo", "--noheader", "--format=%T").strip() == "idle"
    except AssertionError:  # the controller does not answer yet
        return False


def _cancel_all(slurm: Slurm) -> None:
    slurm.call("scancel", "--user", getpass.getuser())
    wait_for(lambda: not slurm.call("squeue", "--noheader"), "the last jobs to end")


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _kill_what_remains(folder: Path) -> None:
    """End processes of jobs: the daemons end without them."""
    mark = f"SLURM_CONF={folder}/slurm.conf".encode()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal() and mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
