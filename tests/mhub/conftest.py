"""Fixtures for the tests of the MHub layer."""

import json
import tempfile
from pathlib import Path

import pytest
import yaml
from fakes import VoxelEncoder
from mhub_helpers import Run, install_model

from oncofm.demo.samples import SAMPLES, Sample, write_sample


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> dict[str, Sample]:
    """The sample of every workflow, in ``<folder>/input_data``."""
    base = tmp_path_factory.mktemp("samples")
    return {name: write_sample(name, base / name / "input_data") for name in SAMPLES}


@pytest.fixture
def encoder(monkeypatch) -> VoxelEncoder:
    """An encoder without a network; `loads` of it counts how often it was loaded."""
    from oncofm.workflow.mhub import context

    encoder = VoxelEncoder()
    encoder.loads = 0

    def start_loading(*_):
        encoder.loads += 1
        return lambda: encoder

    monkeypatch.setattr(context, "start_loading", start_loading)
    return encoder


@pytest.fixture
def scratch(monkeypatch, tmp_path) -> Path:
    """Where temporary files go during a test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def mhub_run(monkeypatch, capfd, tmp_path):
    """Run ``mhub.run`` in this process: ``mhub_run("-w", "default", source=folder)``.

    `source` and `output` become absolute paths of the importer and the exporter.
    """
    from oncofm.cli.mhub_run import main

    def run(
        *arguments: object,
        source: Path | None = None,
        output: Path | None = None,
        importer: str = "",
    ) -> Run:
        given = [str(argument) for argument in arguments]
        output = output or tmp_path / "output"
        if source is not None:
            importer = importer or _importer_of(given)
            given.append(f"--config:modules.{importer}.source_dir={source}")
            given.append(f"--config:modules.ResultExporter.output_dir={output}")
        monkeypatch.setattr("sys.argv", ["mhub.run", *given])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        return Run(end.value.code, printed.out, printed.err, output)

    return run


def _importer_of(arguments: list[str]) -> str:
    structured = {"from_nifti_mask", "from_slicer", "from_centroids"}
    return "StructureImporter" if structured & set(arguments) else "DicomCTImporter"


@pytest.fixture
def model(monkeypatch, tmp_path) -> Path:
    """The layout of an image, instead of that of a source checkout."""
    from oncofm.workflow.mhub import models

    root = tmp_path / "models"
    find = models.find_models
    monkeypatch.setattr(models, "find_models", lambda: find(root))
    return install_model(root)


@pytest.fixture
def workflow_file(tmp_path):
    """Write a workflow file: ``workflow_file(execute, **modules)``."""

    def write(execute: list, base: Path | None = None, **modules: dict) -> Path:
        path = tmp_path / "workflow.yml"
        general = {"data_base_dir": str(base or tmp_path / "data"), "description": "test"}
        content = {"general": general, "execute": execute, "modules": modules}
        path.write_text(yaml.safe_dump(json.loads(json.dumps(content))), encoding="utf-8")
        return path

    return write
