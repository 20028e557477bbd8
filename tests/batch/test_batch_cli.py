"""``oncofm batch`` and ``oncofm merge`` as commands."""

import json
import re

import pandas as pd
import pytest
from batches import ReadersHere, SmallEncoder, tables_of, write_manifest, write_volume

from oncofm.workflow.batch import computers
from oncofm.workflow.batch import run as run_module


@pytest.fixture
def command(cli, monkeypatch):
    monkeypatch.setattr(computers, "start_loading", lambda *_: SmallEncoder)
    monkeypatch.setattr(computers, "Readers", ReadersHere)
    return cli


def test_a_folder(command, studies, tmp_path):
    result = command("batch", studies, tmp_path / "out")
    assert result.code == 0
    assert "5 of 5 cases done, 15 of 15 lesions\nresults in" in result.stderr
    assert result.stdout == ""
    again = command("batch", "run", studies, tmp_path / "out")
    assert again.code == 1
    assert "go on with it by --resume" in again.stderr
    assert command("batch", studies, "--resume", tmp_path / "out").code == 0


def test_a_manifest_with_something_missing(command, tmp_path):
    write_volume(tmp_path / "a.nii.gz")
    path = write_manifest(
        tmp_path / "m.csv", "image_path,coordX,coordY,coordZ", "a.nii.gz,0,0,0", "b.nii.gz,0,0,0"
    )
    assert command("batch", path, tmp_path / "out").code == 2
    result = command("batch", "status", tmp_path / "out")
    assert result.code == 0
    *lines, speed, memory = result.stdout.splitlines()
    assert lines == [
        "2 of 2 items finished, 0 left",
        "  done              1",
        "  failed            1",
        "1 of 1 lesions done",
        "  input_not_found                         1",
        f"failed: b.nii.gz: {tmp_path / 'b.nii.gz'} does not exist; name a folder, file or zip "
        "archive.",
    ]
    assert re.fullmatch(
        r"\d+\.\d\d cases/s, \d+\.\d\d lesions/s in \d+ s of work \(attempts: 1\), limited by "
        r"(readers|encoder|writing)",
        speed,
    )
    assert re.fullmatch(r"peak memory: main \d+ MiB", memory)
    shown = json.loads(command("batch", "status", "--json", tmp_path / "out").stdout)
    assert shown["states"] == {"done": 1, "failed": 1}
    assert shown["throughput"]["n_lesions"] == 1
    retried = command("batch", path, "--resume", "--retry-failed", tmp_path / "out")
    assert retried.code == 2


def test_shards_and_merge(command, studies, tmp_path, monkeypatch):
    command("batch", studies, tmp_path / "whole")
    for number in range(2):
        assert command("batch", studies, "--shard", f"{number}/3", tmp_path / f"{number}").code == 0
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    assert command("batch", studies, "--shard", "auto", tmp_path / "2").code == 0
    shards = [tmp_path / str(number) for number in range(3)]
    result = command("merge", *shards, "-o", tmp_path / "merged")
    assert result.code == 0
    assert "5 items, 15 lesions done" in result.stderr
    assert tables_of(tmp_path / "merged") == tables_of(tmp_path / "whole")
    twice = command("merge", *shards, tmp_path / "whole", "-o", tmp_path / "merged")
    assert "5 items were in several batches" in twice.stderr
    command("batch", studies, "--label", "lung*", tmp_path / "labels")
    mixed = command("merge", tmp_path / "labels", tmp_path / "whole", "-o", tmp_path / "merged")
    assert "the batches differ in labels" in mixed.stderr


def test_a_merge_into_a_file_and_a_report(command, studies, tmp_path):
    assert command("batch", studies, "--report", tmp_path / "out").code == 0
    assert "<h1>Batch report</h1>" in (tmp_path / "out" / "report.html").read_text("utf-8")
    result = command("merge", tmp_path / "out", "-o", tmp_path / "all.parquet")
    assert result.code == 0
    merged = (tmp_path / "all.parquet").read_bytes()
    assert merged == (tmp_path / "out" / "features.parquet").read_bytes()
    assert len(pd.read_csv(tmp_path / "all-cases.csv")) == 20


def test_shards_of_kubernetes(command, studies, tmp_path, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setenv("ONCOFM_SHARDS", "5")
    command("batch", studies, "--shard", "auto", tmp_path / "out")
    assert len(pd.read_parquet(tmp_path / "out" / "features.parquet")) == 3


@pytest.mark.parametrize("shard", ["auto", "3/3", "1", "a/b", "-1/3", "1/0", "/", "²/3"])
def test_shards_that_are_none(command, studies, tmp_path, shard):
    result = command("batch", studies, f"--shard={shard}", tmp_path / "out")
    assert result.code == 1
    assert f"--shard {shard}" in result.stderr
    assert "is not of the form I/N with I from 0 to N - 1" in result.stderr


@pytest.mark.parametrize("index", ["", "three", "9" * 5000])
def test_an_index_that_is_none(command, studies, tmp_path, monkeypatch, index):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", index)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "5")
    result = command("batch", studies, "--shard=auto", tmp_path / "out")
    assert result.code == 1
    assert "--shard auto is not of the form I/N" in result.stderr


def test_json_progress(command, studies, tmp_path):
    result = command("batch", studies, "--json-progress", tmp_path / "out")
    events = [json.loads(line)["event"] for line in result.stdout.splitlines()]
    assert events == ["start", *["case"] * 5, "end"]


def test_a_limit(command, studies, tmp_path):
    result = command("batch", studies, "--limit", 2, tmp_path / "out")
    assert result.code == 2
    assert "2 of 2 cases done" in result.stderr


def test_what_ends_early_says_how_to_go_on(command, studies, tmp_path, monkeypatch):
    from oncofm.workflow.batch.finish import BatchResult

    monkeypatch.setattr(run_module, "finish", lambda *_: BatchResult(None, 143))
    result = command("batch", studies, tmp_path / "out")
    assert result.code == 143
    assert "ended early; go on with --resume; finished cases are in" in result.stderr


def test_what_is_interrupted_says_how_to_go_on(command, studies, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "work_through", interrupted)
    result = command("batch", studies, tmp_path / "out")
    assert result.code == 130
    assert "interrupted; go on with --resume; finished cases are in" in result.stderr


def test_status_prints_no_control_characters(command, tmp_path):
    rows = json.dumps({"image_path": "gone.nii", "case_id": "a\x1b[31m\nfailed: b"})
    (tmp_path / "m.jsonl").write_text(rows)
    assert command("batch", tmp_path / "m.jsonl", tmp_path / "out").code == 3
    lines = command("batch", "status", tmp_path / "out").stdout.splitlines()
    assert sum(line.startswith("failed: ") for line in lines) == 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("batch", "x" * 300, "out"), "cannot be looked at (File name too long); correct it, or"),
        (("batch", "status", "x" * 300), "holds no batch; name the output folder"),
        (("batch", "nowhere", "out"), "nowhere does not exist; name a manifest or a folder."),
        (("batch", "status", "out"), "out holds no batch"),
        (("merge", "nowhere", "-o", "out"), "nowhere holds no batch"),
        (("batch", "in", "out", "--workers", "0"), "--workers"),
        (("batch", "in", "out", "--time-limit", "0"), "--time-limit"),
    ],
)
def test_usage_errors(command, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert result.code == 1
    assert sentence in result.stderr


def test_help_names_the_short_form(command):
    assert "FOLDER OUT" in command("batch", "--help").stdout
    assert "MANIFEST|FOLDER" in command("batch", "run", "--help").stdout
