"""The template for Slurm under a real Slurm: arrays, signals, srun, exit codes."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from batches import tables_of, write_manifest
from slurm import Slurm, run_slurm, wait_for

from oncofm.workflow.batch.merge import merge_batches
from oncofm.workflow.batch.status import batch_status

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "utils/cluster/slurm_array.sh"
PATHS = os.pathsep.join([str(HERE), str(HERE.parent)])

pytestmark = pytest.mark.slow

_APPTAINER = """#!/usr/bin/env bash
# Stands in for apptainer: notes how it was called, and runs what was to be run in the image.
echo "card ${{APPTAINERENV_CUDA_VISIBLE_DEVICES:-}} $*" >>{calls}
while [ "$1" != oncofm ]; do shift; done
shift
exec {python} {program} "$@"
"""


@dataclass(frozen=True)
class Site:
    """What a user of a cluster has: a folder with an image, studies and results."""

    slurm: Slurm
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "shared results"

    @property
    def shards(self) -> list[Path]:
        return sorted(path for path in self.results.iterdir() if path.name != "merged")

    @property
    def scratch(self) -> list[Path]:
        """What lies on the local disk of the node."""
        return list((self.folder / "local").iterdir())

    @property
    def calls(self) -> list[str]:
        """What the container was started with: card and arguments."""
        return (self.folder / "calls").read_text().splitlines()

    def log(self, job: str, index: int = 0) -> str:
        path = self.folder / f"{job}-{index}.log"
        return path.read_text() if path.exists() else ""

    def open_gate(self) -> None:
        """Let the tasks go on that wait after some of their work."""
        (self.folder / "gate").touch()

    def sbatch(self, *arguments: object, **variables: str) -> str:
        """Submit a job from the folder of the user, and return its number."""
        log = self.folder / "%A-%a.log"
        command = ("sbatch", "--parsable", f"--chdir={self.folder}", f"--output={log}", *arguments)
        facts = {
            "SLURM_TMPDIR": str(self.folder / "local"),
            "APPTAINER": str(self.folder / "apptainer"),
            "ONCOFM_GATE": str(self.folder / "gate"),
            "PYTHONPATH": PATHS,
        }
        return self.slurm.call(*command, **facts, **variables).strip()

    def submit(self, *options: str, study: str = "in", **variables: str) -> str:
        """Submit the template; its paths are relative to the folder of the user."""
        arguments = ("image.sif", study, self.results.name, "--json-progress")
        return self.sbatch(*options, SCRIPT, *arguments, **variables)

    def wait_for_cases(self, n: int, job: str, index: int = 0) -> None:
        """Wait until a task has reported so many cases; all but the last are written."""
        done = '"event": "case"'
        wait_for(lambda: self.log(job, index).count(done) >= n, f"case {n} of job {job}")

    def ends(self, job: str) -> list[str]:
        """Exit code and signal of each task, when all have ended."""
        return [task["ExitCode"] for task in self.slurm.wait(job)]


@pytest.fixture(scope="module")
def cluster():
    with run_slurm() as slurm:
        yield slurm


@pytest.fixture
def site(cluster, studies, tmp_path):
    """The folder of a user, with five studies."""
    program = HERE / "oncofm_with_a_gate.py"
    apptainer = tmp_path / "apptainer"
    apptainer.write_text(
        _APPTAINER.format(python=sys.executable, program=program, calls=tmp_path / "calls")
    )
    apptainer.chmod(0o755)
    (tmp_path / "local").mkdir()
    return Site(cluster, tmp_path)


def test_an_array_gives_the_tables_of_one_process(site, batch, studies, tmp_path):
    whole = batch(studies, "whole")
    job = site.submit("--array=0-1")
    assert site.ends(job) == ["0:0", "0:0"], site.log(job)
    assert [shard.name for shard in site.shards] == ["shard-00000-of-00002", "shard-00001-of-00002"]
    assert site.scratch == []
    assert all("--workers 4" in call for call in site.calls)
    merge_batches(site.shards, tmp_path / "merged")
    assert tables_of(tmp_path / "merged") == whole.tables


def test_some_tasks_of_an_array_are_submitted_again(site):
    """Those of a study that is a table, whose folder the container has to see."""
    write_manifest(
        site.folder / "cases.csv", "image_path", *(f"in/study-{number}" for number in range(5))
    )
    again = site.submit("--array=1,2", study="cases.csv", ONCOFM_SHARDS="4")
    gaps = site.submit("--array=1,3")
    assert site.ends(again) == ["0:0", "0:0"], site.log(again, 1)
    assert [shard.name for shard in site.shards] == ["shard-00001-of-00004", "shard-00002-of-00004"]
    assert all(f"--bind {site.folder}:{site.folder}:ro" in call for call in site.calls)
    assert site.ends(gaps) == ["1:0", "1:0"]
    assert site.log(gaps, 1).startswith("the array has gaps: say how many shards there are")


def _reach_the_time_limit(site: Site, job: str) -> None:
    """Leave it two minutes: the signal that the template asks for is due."""
    (task,) = site.slurm.tasks(job)
    hours, minutes, _ = map(int, task["RunTime"].split(":"))
    limit = f"TimeLimit={hours * 60 + minutes + 2}"
    site.slurm.call("scontrol", "update", f"JobId={task['JobId']}", limit)


def _cancel(site: Site, job: str) -> None:
    site.slurm.call("scancel", job)


@pytest.mark.parametrize(
    ("end", "n_cases", "given", "exit_code"),
    [
        (_reach_the_time_limit, 1, {"ONCOFM_GRACE_S": "600"}, "143:0"),
        (_cancel, 1, {"ONCOFM_GRACE_S": "600"}, "143:0"),
        # It does not listen, and is killed: the ledger has a log then.
        (_cancel, 2, {"ONCOFM_GRACE_S": "1", "ONCOFM_DEAF": "1"}, "137:0"),
    ],
)
def test_what_an_ended_task_has_done_is_kept(
    site, batch, studies, end: Callable, n_cases, given, exit_code
):
    whole = batch(studies, "whole")
    job = site.submit("--array=0", ONCOFM_GATE_AFTER=str(n_cases), **given)
    site.wait_for_cases(n_cases, job)
    end(site, job)
    assert site.ends(job) == [exit_code], site.log(job)
    (shard,) = site.shards
    n_finished = batch_status(shard).n_finished
    assert n_finished >= 1
    assert n_finished < 5 or exit_code == "143:0"  # what is read by then is finished
    assert site.scratch == []

    again = site.submit("--array=0")
    assert site.ends(again) == ["0:0"], site.log(again)
    assert site.shards == [shard]
    assert site.log(again).count('"event": "case"') == 5 - n_finished
    assert [path.name for path in shard.glob("ledger.sqlite*")] == ["ledger.sqlite"]
    assert batch_status(shard).n_finished == 5
    assert tables_of(shard) == whole.tables


def test_a_task_that_is_requeued_goes_on(site, batch, studies):
    """As one that is preempted, or whose node is taken out of service."""
    whole = batch(studies, "whole")
    job = site.submit("--array=0-1", ONCOFM_GATE_AFTER="1")
    site.wait_for_cases(1, job, 1)
    site.slurm.call("scontrol", "requeue", f"{job}_1")
    site.open_gate()
    (zeroth, first) = site.slurm.wait(job)
    assert (zeroth["ExitCode"], first["ExitCode"]) == ("0:0", "0:0"), site.log(job, 1)
    assert (zeroth["Restarts"], first["Restarts"]) == ("0", "1")
    assert len(site.calls) == 3
    merge_batches(site.shards, site.folder / "merged")
    assert tables_of(site.folder / "merged") == whole.tables


def test_a_task_with_a_failing_case_fails_and_the_table_is_there(site, studies):
    """The exit codes are those of oncofm; the job that merges does not mind."""
    (studies / "study-1" / "lesions.dcm").unlink()
    job = site.submit("--array=0-1")
    merge = "./apptainer exec image.sif oncofm merge 'shared results'/shard-* -o merged"
    merged = site.sbatch(f"--dependency=afterany:{job}", "--wrap", merge)
    assert site.ends(merged) == ["2:0"]
    assert site.ends(job) == ["0:0", "2:0"]
    assert {task["JobState"] for task in site.slurm.tasks(job)} == {"COMPLETED", "FAILED"}
    assert (site.folder / "merged" / "features.parquet").exists()


def test_results_that_cannot_be_copied_stay_where_they_are_and_fail_the_task(site):
    job = site.submit("--array=0", ONCOFM_GATE_AFTER="1")
    site.wait_for_cases(1, job)
    shutil.rmtree(site.results)
    site.open_gate()
    assert site.ends(job) == ["1:0"]
    (local,) = site.scratch
    assert f"could not be copied to {site.results}/shard-00000-of-00001" in site.log(job)
    assert str(local) in site.log(job)
    assert batch_status(local / "shard-00000-of-00001").n_finished == 5


def test_each_task_of_srun_has_a_shard_and_a_card_of_its_own(site, batch, studies, tmp_path):
    """The command in the head of the template, on one node with two cards; ended and continued."""
    whole = batch(studies, "whole")
    task = shlex.join([str(SCRIPT), "image.sif", "in", site.results.name, "--json-progress"])
    wrapped = f"srun --cpus-per-task=3 --kill-on-bad-exit=0 {task}"
    options = ["--array=0", "--gres=gpu:2", "--ntasks-per-node=2", "--cpus-per-task=3"]
    options += ["--signal=TERM@120", "--requeue", "--open-mode=append", "--wrap", wrapped]

    ended = site.sbatch(*options, ONCOFM_GATE_AFTER="1", ONCOFM_GRACE_S="600")
    site.wait_for_cases(2, ended)  # one of each task
    site.slurm.call("scancel", "--signal=TERM", ended)  # to the tasks, as before the time limit
    assert site.ends(ended) == ["143:0"], site.log(ended)
    assert all(batch_status(shard).n_finished for shard in site.shards)
    job = site.sbatch(*options)
    assert site.ends(job) == ["0:0"], site.log(job)

    assert [shard.name for shard in site.shards] == ["shard-00000-of-00002", "shard-00001-of-00002"]
    for calls in (site.calls[:2], site.calls[2:]):
        given = [(call.split()[1], call.split("--shard ")[1].split()[0]) for call in calls]
        assert sorted(given) == [("0", "0/2"), ("1", "1/2")]
    assert all("--nv" in call and "--workers 3" in call for call in site.calls)
    assert site.scratch == []
    merge_batches(site.shards, tmp_path / "merged")
    assert tables_of(tmp_path / "merged") == whole.tables
