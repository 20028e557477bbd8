"""The command line as a user meets it, in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

ONCOFM = Path(sys.executable).with_name("oncofm")


def oncofm(*arguments, **environment):
    return subprocess.run(
        [str(ONCOFM), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ONCOFM_HOME": "/nonexistent", "ONCOFM_WEIGHTS": ""} | environment,
    )


@pytest.mark.parametrize("command", ["", "run", "features", "demo", "doctor", "weights"])
def test_every_command_explains_itself(command):
    done = oncofm(*filter(None, [command]), "--help")
    assert done.returncode == 0
    assert "Usage: oncofm" in done.stdout
    assert done.stderr == ""


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['oncofm', '--help']\n"
        "from oncofm.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydicom', 'pandas', 'SimpleITK', 'monai', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_run_imports_only_what_it_needs():
    code = (
        "import sys, oncofm.workflow.job\n"
        "heavy = {'torch', 'SimpleITK', 'pandas', 'highdicom', 'monai', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["nonsense"], ["run", "--profile", "x", ".", "out"], ["features", "a.csv"]],
)
def test_usage_errors_are_one_sentence_and_exit_1(arguments, tmp_path):
    done = oncofm(*arguments)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_without_weights_a_run_stops_at_once_and_says_how_to_get_them(tmp_path):
    (tmp_path / "in").mkdir()
    done = oncofm("run", tmp_path / "in", tmp_path / "out")
    assert done.returncode == 1
    assert "oncofm weights fetch fmcib" in done.stderr
    assert "--weights" in done.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_weights_of_another_kind_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "w.torch").write_text("not weights")
    done = oncofm("run", tmp_path / "in", tmp_path / "out", "--weights", tmp_path / "w.torch")
    assert done.returncode == 1
    assert "w.torch" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_without_weights_is_not_ready(tmp_path):
    done = oncofm("doctor", "--output", tmp_path)
    assert done.returncode == 1
    assert "MISSING" in done.stdout
    assert "Not ready" in done.stdout
    assert "torch threads" in done.stdout


@pytest.mark.slow
def test_demo_end_to_end(tmp_path):
    done = oncofm("demo", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "RANDOM WEIGHTS" in done.stdout
    results = tmp_path / "demo/results"
    assert {path.name for path in results.iterdir()} == {
        "features.parquet",
        "features.csv",
        "cases.csv",
        "run.json",
        "predictions.csv",
        "report.html",
        "sr",
    }
    (report,) = (results / "sr").iterdir()
    assert pydicom.dcmread(report).Modality == "SR"
    assert b"caution=RANDOM WEIGHTS" in report.read_bytes()
    assert "RANDOM WEIGHTS" in (results / "report.html").read_text()
    manifest = json.loads((results / "run.json").read_text())
    assert manifest["summary"]["lesions"]["done"] == 3
    assert manifest["model"]["weights_sha256"].startswith("599b5950")
