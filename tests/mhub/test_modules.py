"""The files of ``mhub/`` and ``config/``: what MHub demands of them, with its own runner too."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import date
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import yaml
from fakes import voxels_of
from mhub_helpers import Run, install_model, true_patches

import oncofm
from oncofm.demo.samples import SAMPLES, write_sample
from oncofm.resources import resource_dir
from oncofm.workflow.mhub.models import find_models, load_modules, read_workflow
from oncofm.workflow.mhub.overrides import apply_overrides

MODULES = sorted(resource_dir("mhub").glob("*.py"))
WORKFLOWS = sorted(resource_dir("config").glob("*.yml"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_file_is_small_and_holds_its_class(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes if not node.name.startswith("_")] == [path.stem]
    futures = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    assert "__future__" not in [node.module for node in futures]
    for name in (node.module for node in futures):
        assert name.split(".")[0] in {"oncofm", "mhubio", "pathlib"}
    for node in ast.walk(classes[0]):
        if isinstance(node, ast.FunctionDef):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_key_is_declared_once_with_type_default_and_description(path):
    (cls,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef))
    keys = []
    for decorator in cls.decorator_list:
        assert ast.unparse(decorator.func) == "IO.Config"
        assert len(decorator.args) == 3
        described = {keyword.arg: keyword.value.value for keyword in decorator.keywords}
        assert len(described["the"]) > 10
        keys.append(decorator.args[0].value)
    annotated = [node.target.id for node in cls.body if isinstance(node, ast.AnnAssign)]
    assert keys == annotated


def test_every_workflow_has_a_sample_and_the_other_way_round():
    assert {path.stem for path in WORKFLOWS} == set(SAMPLES)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_file_is_whole(path, samples):
    workflow = read_workflow(path)
    assert list(workflow.content) == ["general", "execute", "modules", "sample"]
    assert workflow.content["general"]["data_base_dir"] == "/app/data"
    assert len(workflow.description) > 20
    (model,) = find_models().values()
    classes = load_modules(workflow, model)
    assert [cls.__name__ for cls in classes] == [name for name, _ in workflow.steps]
    assert set(workflow.content["modules"]) <= {cls.__name__ for cls in classes}
    assert apply_overrides(workflow, classes, [])["modules"] == workflow.content["modules"]
    sample = workflow.content["sample"]
    assert set(sample) == {"input", "output"}
    for place, description in (sample["input"] | sample["output"]).items():
        assert not place.startswith("/")
        assert len(description) > 10
    # Folders of one study are what they say; names of cases differ.
    for place in sample["input"]:
        if "/" in place and not place.startswith("lung_001"):
            assert (samples[path.stem].folder / place.split("/")[0]).is_dir()
    outputs = {Path(place).name for place in sample["output"]}
    tables = {"features.csv", "features.parquet", "cases.csv", "run.json"}
    assert outputs - _MORE_OUTPUTS.get(path.stem, set()) == tables


_MORE_OUTPUTS = {
    "biomarkers": {
        "predictions.csv",
        "report.html",
        "1.2.826.0.1.3680043.8.498.1-segment.dcm",
    }
}


# --- mhubio's own runner -------------------------------------------------------------------

_RUNNER = """
import sys
sys.path[:0] = [{parent!r}, {tests!r}]
from pathlib import Path
from fakes import VoxelEncoder
from oncofm.workflow.mhub import context
context.start_loading = lambda *_: lambda: VoxelEncoder()
from mhubio import run
run.scan_local_modules.__defaults__ = ({root!r},)
run.run({workflow!r})
"""


@pytest.fixture
def stock_run(tmp_path):
    """Run a workflow as ``python -m mhubio.run`` does, with /app/models at another place."""

    def run(workflow: str, base: Path) -> Run:
        root = tmp_path / "app" / "models"
        model = install_model(root)
        path = model / "config" / f"{workflow}.yml"
        content = yaml.safe_load(path.read_text())
        content["general"]["data_base_dir"] = str(base)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        code = _RUNNER.format(
            parent=str(root.parent),
            tests=str(Path(__file__).parents[1]),
            root=str(root),
            workflow=str(path),
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "--config", str(path), "--print"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(base)},
        )
        return Run(done.returncode, done.stdout, done.stderr, base / "output_data")

    return run


@pytest.mark.parametrize("workflow", ["default", "from_slicer"])
def test_mhubios_own_runner(workflow, stock_run, tmp_path):
    sample = write_sample(workflow, tmp_path / "data" / "input_data")
    result = stock_run(workflow, tmp_path / "data")
    assert result.code == 0, result.stderr
    expected = voxels_of(true_patches(sample))
    np.testing.assert_allclose(result.features(sample.case_id), expected, rtol=0, atol=1e-4)
    assert "1 of 1 cases done, 3 of 3 lesions" in result.stderr
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {"input_data", "output_data"}


def test_mhubios_own_runner_ends_non_zero_if_a_case_is_not_done(stock_run, tmp_path):
    folder = tmp_path / "data" / "input_data"
    bad = write_sample("from_centroids", folder, seed=1)
    write_sample("from_centroids", folder, seed=2)
    (folder / bad.case_id / "centroids.json").unlink()
    result = stock_run("from_centroids", tmp_path / "data")
    assert result.code == 2
    assert "1 of 2 cases done, 3 of 3 lesions" in result.stderr


def test_mhubios_own_runner_ends_non_zero_without_input(stock_run, tmp_path):
    (tmp_path / "data").mkdir()
    result = stock_run("default", tmp_path / "data")
    assert result.code == 1
    assert "InputNotFoundError" in result.stderr


# --- meta.json, mhub.toml, Dockerfile ------------------------------------------------------


def test_model_card_follows_mhubs_schema():
    """The rules of MHub's ``meta.schema.json`` (draft 7), key by key."""
    card = json.loads((resource_dir("mhub") / "meta.json").read_text(encoding="utf-8"))
    assert set(card) == {"id", "name", "title", "summary", "details", "info"}
    assert uuid.UUID(card["id"]).version == 4
    assert card["name"] == "fmcib"
    assert isinstance(card["title"], str)
    _check_summary(card["summary"])
    _check_details(card["details"])
    assert {"use", "analyses", "evaluation", "training"} <= set(card["info"])
    assert set(card["info"]) <= {"use", "analyses", "evaluation", "training", "ethics",
                                 "limitations"}  # fmt: skip
    for section in card["info"].values():
        assert {"title", "text"} <= set(section) <= {"title", "text", "references", "tables"}
        for reference in section.get("references", []):
            assert set(reference) == {"label", "uri"}
            assert _is_uri(reference["uri"])
        for table in section.get("tables", []):
            assert set(table) == {"label", "entries"}
            assert all(isinstance(entry, str) for entry in table["entries"].values())


def _check_summary(summary: dict) -> None:
    assert set(summary) == {"description", "inputs", "outputs", "model", "data"}
    texts = {"label", "description", "format", "modality", "bodypartexamined", "slicethickness"}
    for item in summary["inputs"]:
        assert set(item) == {*texts, "non-contrast", "contrast"}
        assert all(isinstance(item[key], str) for key in texts)
        assert len(item["description"]) <= 200
        assert isinstance(item["non-contrast"], bool)
        assert isinstance(item["contrast"], bool)
    for item in summary["outputs"]:
        assert set(item) == {"type", "valueType", "label", "description"}
        assert item["type"] == "Prediction"
    assert set(summary["model"]) == {"architecture", "training", "cmpapproach"}
    kinds = {"supervised", "semi-supervised", "unsupervised", "other", "algorithmic"}
    assert summary["model"]["training"] in kinds
    assert summary["model"]["cmpapproach"] in {"2D", "3D", "ensemble"}
    assert set(summary["data"]) == {"training", "evaluation", "public", "external"}
    for part in ("training", "evaluation"):
        assert isinstance(summary["data"][part]["vol_samples"], int)


def _check_details(details: dict) -> None:
    required = "name version devteam type date cite license publications github"
    assert set(required.split()) <= set(details)
    assert re.fullmatch(r"\d+(\.\d+)*", details["version"])
    assert details["version"] == oncofm.__version__
    assert set(details["date"]) <= {"weights", "code", "pub"}
    for day in details["date"].values():
        date.fromisoformat(day)
    assert set(details["license"]) == {"code", "weights"}
    for publication in details["publications"]:
        assert set(publication) == {"title", "uri"}
        assert _is_uri(publication["uri"])
    assert all(_is_uri(details[key]) for key in ("github", "zenodo") if key in details)


def _is_uri(text: str) -> bool:
    parts = urlparse(text)
    return parts.scheme == "https" and bool(parts.netloc)


def test_mhub_toml_names_a_test_archive_on_zenodo_or_says_that_there_is_none():
    with (resource_dir("mhub") / "mhub.toml").open("rb") as file:
        content = tomllib.load(file)
    test = content["model"]["deployment"]["test"]
    assert test == "" or re.match(r"^https://zenodo\.org/.+\.zip$", test)


@pytest.mark.slow
def test_the_test_archive_has_mhubs_form(seed0_weights, tmp_path):
    import zipfile

    program = Path(__file__).parents[2] / "utils" / "make_mhub_test_zip.py"
    archive = tmp_path / "test.zip"
    options = ("--weights", seed0_weights, "--workflows", "from_centroids")
    subprocess.run([sys.executable, program, archive, *options], check=True)
    assert set(zipfile.ZipFile(archive).namelist()) == {
        "from_centroids/sample/sample-0/CT.nrrd",
        "from_centroids/sample/sample-0/centroids.json",
        "from_centroids/reference/sample-0/features.csv",
        "from_centroids/reference/features.csv",
        "from_centroids/reference/features.parquet",
        "from_centroids/reference/cases.csv",
    }


def test_dockerfile_has_mhubs_form():
    """The rules of MHub's check of contributions, line by line."""
    text = (resource_dir("mhub") / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[0] == "FROM mhubai/base:latest"
    for line in lines[1:]:
        assert not line.startswith(("FROM", "COPY", "ADD", "WORKDIR"))
    assert "ARG MHUB_MODELS_REPO" in lines
    assert "RUN buildutils/import_mhub_model.sh fmcib ${MHUB_MODELS_REPO}" in lines
    assert f"oncofm=={oncofm.__version__}" in text
    assert lines[-2:] == ['ENTRYPOINT ["mhub.run"]', 'CMD ["--workflow", "default"]']
