"""The image under its hosts: mercure, and hosts of MONAI application packages."""

import json
import re
import shutil
from pathlib import Path

import pydicom
import pytest
from containers import HARDENED, USER, give_to, make_readable
from studies import write_study

import oncofm

pytestmark = pytest.mark.container

_SEMANTIC = re.compile(r"\d+\.\d+\.\d+")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A study as mercure lays it out: flat, named by series and instance, with a task."""
    study = write_study(tmp_path_factory.mktemp("study"), "container/hosts")
    folder = tmp_path_factory.mktemp("in")
    for path in (*study.ct_files, study.seg_file):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        shutil.copy(path, folder / f"{dataset.SeriesInstanceUID}#{dataset.SOPInstanceUID}.dcm")
    process = {"module_name": "oncofm", "settings": {"heads": ["lung1-survival"]}}
    (folder / "task.json").write_text(json.dumps({"id": "1", "process": process}))
    make_readable(folder)
    return folder


@pytest.fixture
def run(engine, image, weights_folder, tmp_path):
    """Run as a host does: as its user, with its mounts and variables; gives code and logs."""

    def run(source: Path, mounts: tuple[str, str], variables: dict[str, str], *command: str):
        target = tmp_path / "out"
        target.mkdir()
        give_to(USER, target)
        places = [f"--volume={source}:{mounts[0]}", f"--volume={target}:{mounts[1]}"]
        places.append(f"--volume={weights_folder}:/app/weights:ro")
        named = [f"--env={name}={value}" for name, value in variables.items()]
        options = (*HARDENED, f"--user={USER}", *places, *named)
        done = engine("run", "--rm", *options, *command[:1], image, *command[1:], check=False)
        return done, target

    return run


def test_mercure(engine, image, run, source):
    # mercure takes an image in which it finds this file for a package that must run as root.
    look = ("run", "--rm", "--entrypoint=", image, "cat", "/etc/monai/app.json")
    assert engine(*look, check=False).returncode != 0
    places = ("/tmp/data", "/tmp/output")
    names = (
        *(("MERCURE_IN_DIR", "MERCURE_OUT_DIR"), ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH")),
        ("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH"),
    )
    variables = {name: place for pair in names for name, place in zip(pair, places, strict=True)}
    done, target = run(source, places, variables)
    assert done.returncode == 0, done.stderr
    result = json.loads((target / "result.json").read_text())
    assert [lesion["state"] for lesion in result["lesions"]] == ["done"] * 3
    assert {row["head"] for row in result["lesions"][0]["predictions"]} == {"lung1-survival"}
    (name,) = result["files"]
    report = pydicom.dcmread(target / name)
    assert report.Modality == "SR"
    assert name == f"{report.SeriesInstanceUID}#{report.SOPInstanceUID}.dcm"
    assert {path.name for path in target.iterdir()} == {name, "result.json"}
    assert {f"{path.stat().st_uid}:{path.stat().st_gid}" for path in target.iterdir()} == {USER}


def test_mercure_sees_a_failure(run, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    source.chmod(0o755)
    variables = {"MERCURE_IN_DIR": "/tmp/data", "MERCURE_OUT_DIR": "/tmp/output"}
    done, target = run(source, ("/tmp/data", "/tmp/output"), variables)
    assert done.returncode != 0
    assert not list(target.glob("*.dcm"))


def test_manifests_of_an_application_package(engine, image):
    """Keys and types as in the tables of the specification, version 1.0."""
    app, pkg = (_manifest(engine, image, name) for name in ("app", "pkg"))
    labels = json.loads(engine("inspect", "--format={{json .Config.Labels}}", image).stdout)
    assert app["version"] == labels["org.opencontainers.image.version"] == oncofm.__version__
    assert labels["org.opencontainers.image.title"]
    assert app["type"] in ("service", "application")
    assert isinstance(app["command"], str)
    assert isinstance(app["timeout"], int)
    assert all(isinstance(format, dict) for format in app["input"]["formats"])
    assert isinstance(app["output"]["format"], dict)
    assert app["workingDirectory"].startswith("/")
    known = "HOLOSCAN_(INPUT|OUTPUT|MODEL|CONFIG|(APP|PKG)_MANIFEST)_PATH|HOLOSCAN_(WORKDIR|DOCS)"
    assert all(re.fullmatch(known, name) for name in app["environment"])
    places = [pkg["applicationRoot"], pkg["modelRoot"], *app["environment"].values()]
    listed = engine("run", "--rm", "--entrypoint=ls", image, "-d", *places)
    assert listed.stdout.splitlines() == sorted(places)
    assert [model["name"] for model in pkg["models"]] == ["fmcib"]
    assert all(re.fullmatch(r"\d+(\.\d)?", str(pkg["resources"][key])) for key in ("cpu", "gpu"))
    assert all(
        re.fullmatch(r"\d+(\.\d)?[MG]i", pkg["resources"][key])
        for key in ("memory", "sharedMemory")
    )
    for manifest in (app, pkg):
        assert _SEMANTIC.fullmatch(manifest["apiVersion"])
        assert _SEMANTIC.fullmatch(manifest["version"])


def _manifest(engine, image: str, name: str) -> dict:
    done = engine("run", "--rm", "--entrypoint=cat", image, f"/etc/holoscan/{name}.json")
    return json.loads(done.stdout)


def test_an_application_package_runs_its_command(engine, image, run, source):
    app = _manifest(engine, image, "app")
    environment = app["environment"]
    mounts = (environment["HOLOSCAN_INPUT_PATH"], environment["HOLOSCAN_OUTPUT_PATH"])
    program, *arguments = app["command"].split()
    done, target = run(source, mounts, environment, f"--entrypoint={program}", *arguments)
    assert done.returncode == 0, done.stderr
    assert {"features.parquet", "run.json", "sr"} <= {path.name for path in target.iterdir()}
    (report,) = (target / "sr").iterdir()
    assert pydicom.dcmread(report).Modality == "SR"
