"""docs/install-pacs.md, followed to the letter."""

import json
import os
import re
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path

import pydicom
import pytest
from containers import ROOT
from tools import require_tool

pytestmark = [pytest.mark.container, pytest.mark.slow]

_PAGE = ROOT / "docs" / "install-pacs.md"
_MAX_SECONDS = 600
_MAX_STOP_SECONDS = 25.0


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """The commands of the page, step by step; the last step takes everything down."""
    found = re.findall(r"^```bash\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 6
    return found


@pytest.fixture(scope="module")
def environment(engine, image_with_weights, seed0_weights, tmp_path_factory) -> dict[str, str]:
    """A user's: a home with the weights. Names of images and containers are the test's own."""
    for tool in ("make", "curl", "docker-compose"):
        require_tool(tool)
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o755)
    os.link(seed0_weights, home / "model_weights.torch")
    name = f"oncofm-test-{uuid.uuid4().hex[:8]}"
    return os.environ | {
        "HOME": str(home),
        "IMAGE": image_with_weights,
        "ORTHANC_IMAGE": f"{name}-orthanc",
        "COMPOSE_PROJECT_NAME": name,
        "DOCKER": engine.docker,
    }


@pytest.fixture(scope="module")
def followed(engine, blocks, environment):
    """The page up to its last step; gives what the shell printed."""
    try:
        yield _shell("\n".join(blocks[:-1]), environment)
    finally:
        _shell("cd utils/pacs\n" + blocks[-1], environment)
        engine("rmi", environment["ORTHANC_IMAGE"], check=False)


def _shell(script: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=_MAX_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_report_is_in_the_pacs(followed, environment):
    trial = Path(environment["HOME"]) / "trial"
    report = pydicom.dcmread(trial / "report.dcm")
    sent = [pydicom.dcmread(path) for path in (trial / "cohort").rglob("*.dcm")]
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert {report.StudyInstanceUID} == {dataset.StudyInstanceUID for dataset in sent}
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    of_study = {str(dataset.SeriesInstanceUID) for dataset in sent}
    assert {str(each.SeriesInstanceUID) for each in study.ReferencedSeriesSequence} <= of_study
    assert re.search(rf"^{re.escape(report.StudyInstanceUID)} +done", followed, re.MULTILINE)


def test_both_containers_are_hardened(engine, followed, environment):
    for service in ("oncofm", "orthanc"):
        container = _container(engine, environment, service)
        host = json.loads(engine("inspect", "--format={{json .HostConfig}}", container).stdout)
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        user = engine("exec", container, "id", "-u").stdout.strip()
        assert int(user) > 10_000
        changes = engine.lines("diff", container)
        assert all(re.search(r" /etc(/oncofm(/pacs\.yml)?)?$", line) for line in changes), changes


def test_the_spool_is_the_nodes_own(engine, followed, environment):
    container = _container(engine, environment, "oncofm")
    printed = engine("exec", container, "stat", "--format=%u %a", "/var/lib/oncofm").stdout
    assert printed.split() == ["10001", "700"]


def test_the_status_page_is_where_the_page_says(followed):
    with urllib.request.urlopen("http://localhost:9112/metrics", timeout=10) as answer:
        assert 'oncofm_pacs_studies{state="done"} 1' in answer.read().decode()
    with urllib.request.urlopen("http://localhost:9112/", timeout=10) as answer:
        assert "<html" in answer.read().decode()


def test_it_stops_within_seconds_and_knows_the_study_afterwards(engine, followed, environment):
    container = _container(engine, environment, "oncofm")
    start = time.perf_counter()
    engine("stop", "--time=30", container)
    assert time.perf_counter() - start < _MAX_STOP_SECONDS
    assert engine.lines("inspect", "--format={{.State.ExitCode}}", container) == ["0"]
    engine("start", container)
    command = ("oncofm", "pacs", "list", "--config", "/etc/oncofm/pacs.yml", "--state", "done")
    assert len(engine.lines("exec", container, *command)) == 1


def _container(engine, environment: dict[str, str], service: str) -> str:
    project = environment["COMPOSE_PROJECT_NAME"]
    labels = {"project": project, "service": service, "oneoff": "False"}
    filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()]
    (container,) = engine.lines("ps", "--quiet", *filters)
    return container


def test_a_wrong_configuration_ends_the_node_with_one_sentence(engine, image, tmp_path):
    (tmp_path / "pacs.yml").write_text("node:\n  folder: /var/lib/oncofm\n  nonsense: 1\n")
    (tmp_path / "pacs.yml").chmod(0o644)
    mount = f"--volume={tmp_path}/pacs.yml:/etc/oncofm/pacs.yml:ro"
    serve = ("pacs", "serve", "--config", "/etc/oncofm/pacs.yml")
    done = engine("run", "--rm", "--network=none", mount, image, *serve, check=False)
    assert done.returncode == 1
    assert "line" in done.stderr
    assert "Traceback" not in done.stderr
