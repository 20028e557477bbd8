"""Files that the image is built from; no engine is needed."""

import subprocess
import sys
import tomllib

import pytest
from containers import ROOT
from tools import require_tool

from oncofm.pacs.config import read_config


@pytest.mark.parametrize(("torch", "has_openvino"), [("cpu", True), ("cuda", False)])
def test_each_kind_of_image_has_the_node_and_one_cpu_engine(torch, has_openvino, tmp_path):
    source = [ROOT / name for name in ("pyproject.toml", "oncofm/__init__.py")]
    subprocess.run([sys.executable, ROOT / "utils/image/project.py", *source, tmp_path], check=True)
    listed = (tmp_path / f"dependencies-{torch}.txt").read_text().splitlines()
    project = tomllib.loads(source[0].read_text())["project"]
    groups = project["optional-dependencies"]
    assert set(groups["pacs"]) <= set(listed)
    assert (set(groups["openvino"]) <= set(listed)) == has_openvino
    assert not [line for line in listed if line.startswith("torch")]  # a layer of its own
    assert len(set(project["dependencies"]) - set(listed)) == 1


def test_compose_accepts_the_file():
    compose = require_tool("docker-compose")
    command = [compose, "--file", ROOT / "utils/pacs/compose.yml", "config", "--quiet"]
    subprocess.run(command, check=True)


def test_the_node_accepts_the_configuration():
    config = read_config(ROOT / "utils/pacs/pacs.yml")
    assert config.node.folder.as_posix() == "/var/lib/oncofm"
