"""Templates for clusters: run where one machine can, and read where it cannot."""

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import reftrace
import yaml
from batches import tables_of

from oncofm.cli.batch import _shard
from oncofm.errors import SettingInvalidError

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "utils/cluster"
HERE = Path(__file__).parent

_APPTAINER = """#!/usr/bin/env bash
# Stands in for apptainer: notes how it was called, and runs what was to be run in the image.
echo "card ${{APPTAINERENV_CUDA_VISIBLE_DEVICES:-}} $*" >>"$CALLS"
while [ "$1" != oncofm ]; do shift; done
shift
exec {python} {program} "$@"
"""


@pytest.fixture
def slurm(tmp_path):
    """Run the array's script as Slurm would, task by task."""
    apptainer = tmp_path / "apptainer"
    program = HERE / "oncofm_without_network.py"
    apptainer.write_text(_APPTAINER.format(python=sys.executable, program=program))
    apptainer.chmod(0o755)
    (tmp_path / "local").mkdir()

    def run(
        index: int, count: int, *arguments: object, **more: str
    ) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "SLURM_ARRAY_TASK_ID": str(index),
            "SLURM_ARRAY_TASK_COUNT": str(count),
            "SLURM_ARRAY_TASK_MIN": "5",
            "SLURM_TMPDIR": str(tmp_path / "local"),
            "SLURM_CPUS_PER_TASK": "2",
            "APPTAINER": str(apptainer),
            "CALLS": str(tmp_path / "calls"),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
            **more,
        }
        command = ["bash", str(TEMPLATES / "slurm_array.sh"), *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_slurm_array_gives_the_tables_of_one_process(slurm, batch, studies, tmp_path):
    whole = batch(studies, "whole")
    for index in (5, 6):
        done = slurm(index, 2, "image.sif", studies, tmp_path / "shared", "--time-limit", 60)
        assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "local").iterdir())
    shards = sorted((tmp_path / "shared").iterdir())
    assert [path.name for path in shards] == ["shard-00000-of-00002", "shard-00001-of-00002"]
    program = [sys.executable, str(HERE / "oncofm_without_network.py")]
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    subprocess.run(
        [*program, "merge", *shards, "-o", tmp_path / "merged"],
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert tables_of(tmp_path / "merged") == whole.tables
    calls = (tmp_path / "calls").read_text()
    assert "--network none" in calls
    assert f"{studies}:{studies}:ro" in calls


def test_a_task_that_is_submitted_again_goes_on(slurm, studies, tmp_path):
    arguments = ("image.sif", studies, tmp_path / "shared")
    assert slurm(5, 1, *arguments, "--limit", 2).returncode == 2
    again = slurm(5, 1, *arguments)
    assert again.returncode == 0, again.stderr
    assert "5 of 5 cases done" in again.stderr


def test_each_task_of_srun_has_a_shard_and_a_card_of_its_own(slurm, studies, tmp_path):
    given = {"SLURM_STEP_NUM_TASKS": "2", "CUDA_VISIBLE_DEVICES": "4,7"}
    for place in "01":
        facts = given | {"SLURM_PROCID": place, "SLURM_LOCALID": place}
        done = slurm(6, 2, "image.sif", studies, tmp_path / "shared", "--limit", 1, **facts)
        assert done.returncode in (0, 2), done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["4", "7"]
    assert all("--nv" in call for call in calls)
    assert [call.split("--shard ")[1].split()[0] for call in calls] == ["2/4", "3/4"]


def test_the_kubernetes_job_gives_each_pod_its_shard(monkeypatch):
    job = yaml.safe_load((TEMPLATES / "kubernetes_job.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailIndex", [2, 3])
    assert pod["restartPolicy"] == "Never"  # the policy is for such pods only
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["ONCOFM_SHARDS"] == str(spec["completions"])
    assert container["command"] == ["oncofm", "batch"]
    assert "--shard=auto" in container["args"]
    assert "--resume" in container["args"]
    assert container["args"][1] == "/results/shard-$(JOB_COMPLETION_INDEX)"
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    monkeypatch.setenv("ONCOFM_SHARDS", environment["ONCOFM_SHARDS"])
    assert _shard("auto") == (3, spec["completions"])


def test_the_index_of_a_slurm_array_counts_from_its_first(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "5")
    assert _shard("auto") == (2, 4)


def test_part_of_a_slurm_array(monkeypatch):
    for name, value in {"ID": "7", "MIN": "3", "MAX": "7", "COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    with pytest.raises(SettingInvalidError, match="name it in ONCOFM_SHARDS"):
        _shard("auto")
    monkeypatch.setenv("ONCOFM_SHARDS", "16")
    assert _shard("auto") == (7, 16)


@pytest.mark.parametrize("text", ["auto", "4/4", "1", "a/b", "-1/2", "1/0", "", "9" * 9999 + "/9"])
def test_shards_that_cannot_be(monkeypatch, text):
    for name in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingInvalidError, match="not of the form I/N"):
        _shard(text)


@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_kubernetes_knows_every_field_of_the_job(version):
    job = yaml.safe_load((TEMPLATES / "kubernetes_job.yaml").read_text())
    kubernetes_validate.validate(job, version, strict=True)


def test_nextflow_knows_every_directive_of_the_pipeline():
    pipeline = reftrace.Module.from_file(str(TEMPLATES / "main.nf"))
    assert [process.name for process in pipeline.processes] == ["SHARD", "MERGE"]
    assert not [unknown for process in pipeline.processes for unknown in process.unknowns]
    declared = {parameter.name for parameter in pipeline.params}
    assert set(re.findall(r"params\.(\w+)", (TEMPLATES / "main.nf").read_text())) == declared


def test_the_scripts_of_the_nextflow_pipeline(batch, studies, tmp_path):
    """As Nextflow runs them: each in a folder of its own, that holds links to what it takes."""
    whole = batch(studies, "whole")
    program = tmp_path / "oncofm"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} {HERE / "oncofm_without_network.py"} "$@"\n'
    )
    program.chmod(0o755)
    paths = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }

    def run(script: str, folder: Path, inputs: dict[str, Path], **values: object) -> None:
        # A Groovy string: ${...} is a value, and a backslash takes the meaning from what follows.
        text = re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda found: str(values[found[1]]), script)
        folder.mkdir()
        for name, source in inputs.items():
            (folder / name).symlink_to(source)
        command = ["bash", "-ue", "-c", re.sub(r"\\(.)", r"\1", text)]
        subprocess.run(command, cwd=folder, env=os.environ | paths, check=True)

    shard, merge = re.findall(r'"""(.*?)"""', (TEMPLATES / "main.nf").read_text(), re.DOTALL)
    given = {"params.shards": 2, "params.options": "--time-limit 60", "task.cpus": 1}
    for index in range(2):
        run(shard, tmp_path / f"{index}", {"study": studies}, index=index, **given)
    shards = {f"shard-{index}": tmp_path / f"{index}/shard-{index}" for index in range(2)}
    run(merge, tmp_path / "merge", shards, shards=" ".join(shards))
    assert tables_of(tmp_path / "merge" / "merged") == whole.tables
