"""The image, built for real and run as a hospital would: no network, read-only, any user."""

import hashlib
import json
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK
from containers import USER, give_to, make_readable
from studies import Study, write_study

import oncofm
from oncofm.demo.dicom import ct_geometry
from oncofm.demo.markups import write_markups
from oncofm.demo.rtstruct import lesion_contours, write_rtstruct
from oncofm.encoders.prepare import LARGEST_DIFFERENCE

pytestmark = pytest.mark.container

_FEATURES = [f"feature_{number}" for number in range(4096)]
_PREDICTIONS = [f"pred_{number}" for number in range(4096)]
_WORKFLOWS = (
    "biomarkers",
    "default",
    "from_rtstruct",
    "from_nifti_mask",
    "from_json",
    "from_slicer",
    "from_centroids",
)
_MAX_IMAGE_BYTES = 1.6e9
_MAX_STOP_SECONDS = 60.0
_TOLERANCE = {"rtol": 0, "atol": LARGEST_DIFFERENCE}
"""Of OpenVINO's features, in the image, to torch's, in the library."""
_WITHOUT_TORCH = "--tmpfs=/opt/oncofm/lib/python3.11/site-packages/torch"
"""Hides torch: an import fails."""


@dataclass(frozen=True)
class Workload:
    """Input of a workflow, the name of its instance, and what the library itself makes of it."""

    folder: Path
    instance: str
    expected: np.ndarray


@pytest.fixture(scope="session")
def seg_study(tmp_path_factory) -> Study:
    return write_study(tmp_path_factory.mktemp("seg"), "container")


@pytest.fixture(scope="session")
def seg_workload(seg_study, seed0_weights, tmp_path_factory) -> Workload:
    expected = _run_library(seg_study.folder, seed0_weights, tmp_path_factory.mktemp("own"))
    return Workload(seg_study.folder, seg_study.series_uid, expected)


@pytest.fixture(scope="session")
def rtstruct_workload(seed0_weights, tmp_path_factory) -> Workload:
    folder = tmp_path_factory.mktemp("rtstruct")
    study = write_study(folder, "container/rtstruct")
    study.seg_file.unlink()
    geometry = ct_geometry(study.scene, shape=(96, 64, 36), spacing_mm=(4.0, 4.0, 5.0))
    write_rtstruct(folder / "rt.dcm", study.ct_files, lesion_contours(study.scene, geometry))
    expected = _run_library(folder, seed0_weights, tmp_path_factory.mktemp("own"))
    return Workload(folder, study.series_uid, expected)


@pytest.fixture(scope="session")
def slicer_workload(seg_study, seed0_weights, tmp_path_factory) -> Workload:
    folder = tmp_path_factory.mktemp("slicer")
    case = folder / "lung_001"
    case.mkdir()
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(seg_study.folder / "ct")))
    SimpleITK.WriteImage(reader.Execute(), case / "CT.nrrd", useCompression=True)
    points_mm = [lesion.centre_mm for lesion in seg_study.scene.lesions]
    write_markups(case / "F.mrk.json", points_mm, coordinate_system="RAS")

    work = tmp_path_factory.mktemp("own")
    seeds = pd.DataFrame(points_mm, columns=["coordX", "coordY", "coordZ"])
    seeds.insert(0, "image_path", str(case / "CT.nrrd"))
    seeds.to_csv(work / "seeds.csv", index=False)
    _oncofm("features", work / "seeds.csv", "-o", work / "features.parquet", weights=seed0_weights)
    expected = pd.read_parquet(work / "features.parquet")[_PREDICTIONS].to_numpy(np.float32)
    return Workload(folder, case.name, expected)


def _run_library(folder: Path, weights: Path, output: Path) -> np.ndarray:
    _oncofm("run", folder, output, weights=weights)
    table = pd.read_parquet(output / "features.parquet")
    return table[_PREDICTIONS].to_numpy(np.float32)


def _oncofm(*arguments: object, weights: Path) -> None:
    _call(*arguments, "--weights", weights)


def _call(*arguments: object) -> None:
    command = [str(Path(sys.executable).with_name("oncofm")), *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _content(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Size, modification time and hash of everything in a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(
    ("workflow", "workload"),
    [
        ("default", "seg_workload"),
        ("from_rtstruct", "rtstruct_workload"),
        ("from_slicer", "slicer_workload"),
    ],
)
def test_features_are_the_librarys_own(workflow, workload, request, run_container, output):
    given: Workload = request.getfixturevalue(workload)
    make_readable(given.folder)
    before = _content(given.folder)

    result = run_container(given.folder, output, "--workflow", workflow, extra=[_WITHOUT_TORCH])

    assert result.code == 0, result.stderr
    table = pd.read_csv(output / given.instance / "features.csv")
    np.testing.assert_allclose(table[_FEATURES], given.expected, **_TOLERANCE)
    assert _model(output)["engine"] == "openvino"
    assert {"cases.csv", "run.json", "features.parquet"} <= {path.name for path in output.iterdir()}
    assert result.changes == []
    assert _content(given.folder) == before
    _check_ownership(output)


def test_torch_gives_the_librarys_own_bytes(
    run_container, seg_workload, plain_weights_folder, output
):
    result = run_container(seg_workload.folder, output, weights=plain_weights_folder)
    assert result.code == 0, result.stderr
    table = pd.read_csv(output / seg_workload.instance / "features.csv")
    np.testing.assert_array_equal(table[_FEATURES].to_numpy(np.float32), seg_workload.expected)
    assert _model(output)["engine"] == "torch"


def _model(output: Path) -> dict[str, str]:
    return json.loads((output / "run.json").read_text())["model"]


def _check_ownership(output: Path) -> None:
    for path in output.rglob("*"):
        facts = path.stat()
        assert f"{facts.st_uid}:{facts.st_gid}" == USER, path
        assert stat.S_IMODE(facts.st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_biomarkers_to_tables_sr_and_page(run_container, seg_workload, seed0_weights, output):
    make_readable(seg_workload.folder)
    result = run_container(seg_workload.folder, output, "--workflow", "biomarkers")
    assert result.code == 0, result.stderr
    assert result.changes == []
    table = pd.read_csv(output / seg_workload.instance / "features.csv")
    np.testing.assert_allclose(table[_FEATURES], seg_workload.expected, **_TOLERANCE)
    later = output.with_name("later.csv")
    heads = ("--head", "lung1-survival", "--head", "lung1-survival-cox")
    _call("predict", output, *heads, "-o", later)
    columns = ["lesion_id", "head", "class", "probability", "risk", "training_percentile"]
    expected, found = (pd.read_csv(path)[columns] for path in (later, output / "predictions.csv"))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)
    assert set(found["head"]) == {"lung1-survival", "lung1-survival-cox"}
    (report,) = (output / "sr").iterdir()
    dataset = pydicom.dcmread(report)
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert dataset.StudyInstanceUID in {
        pydicom.dcmread(path).StudyInstanceUID for path in seg_workload.folder.rglob("*.dcm")
    }
    assert (output / "report.html").read_text().count("segment-1") > 1
    _check_ownership(output)


def test_default_user_and_default_workflow(run_container, seg_workload, output):
    give_to("10001:10001", output)
    result = run_container(seg_workload.folder, output, user="")
    assert result.code == 0, result.stderr
    assert (output / "run.json").stat().st_uid == 10001


@pytest.mark.parametrize("kind", ["read-only mount", "folder of root"])
def test_unwritable_output_ends_it_before_work(kind, run_container, seg_workload, output):
    target: Path | str = output
    if kind == "read-only mount":
        target = f"{output}:ro"
    else:
        give_to("0:0", output)
    result = run_container(seg_workload.folder, target)
    assert result.code == 1
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "output_data" in result.stderr
    assert list(output.iterdir()) == []


def test_unknown_workflow(run_container, seg_workload, output):
    result = run_container(seg_workload.folder, output, "--workflow", "nonsense")
    _check_refused(result, output, "nonsense", *_WORKFLOWS)


def test_unknown_module(run_container, seg_workload, output, tmp_path):
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "own.yml").write_text("execute:\n- DicomCTImporter\n- Nonsense\n", encoding="utf-8")
    folder.chmod(0o755)
    result = run_container(
        seg_workload.folder,
        output,
        "--config",
        "/media/own.yml",
        extra=[f"--volume={folder}:/media:ro"],
    )
    _check_refused(result, output, "Nonsense", "SeedExtractor", "ResultExporter")


def test_unknown_key(run_container, seg_workload, output):
    override = "--config:modules.SeedExtractor.nonsense=1"
    result = run_container(seg_workload.folder, output, "--workflow", "default", override)
    _check_refused(result, output, "nonsense", "per", "min_volume_mm3")


def test_weights_missing(run_container, seg_workload, output):
    result = run_container(seg_workload.folder, output, weights=None)
    _check_refused(result, output, "/app/weights/fmcib")


def _check_refused(result, output: Path, *words: str) -> None:
    assert result.code == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert list(output.iterdir()) == []


def test_stops_at_once(engine, start_container, seg_workload, output):
    # A fifth of a core, so that it is still at work when it is asked to stop.
    container = start_container(seg_workload.folder, output, extra=["--cpus=0.2"])
    time.sleep(5)
    assert engine.lines("inspect", "--format={{.State.Running}}", container) == ["true"]
    start = time.perf_counter()
    engine("stop", "--time=120", container)
    assert time.perf_counter() - start < _MAX_STOP_SECONDS
    assert engine.lines("inspect", "--format={{.State.ExitCode}}", container) == ["143"]


def test_weights_in_the_image(image_with_weights, run_container, seg_workload, output):
    result = run_container(
        seg_workload.folder,
        output,
        image=image_with_weights,
        weights=None,
        extra=[_WITHOUT_TORCH],
    )
    assert result.code == 0, result.stderr
    table = pd.read_csv(output / seg_workload.instance / "features.csv")
    np.testing.assert_allclose(table[_FEATURES], seg_workload.expected, **_TOLERANCE)
    assert _model(output)["engine"] == "openvino"


def test_a_damaged_prepared_model_is_noticed(
    image_with_weights, run_container, seg_workload, output, tmp_path
):
    place = "/app/weights/fmcib/model_weights.torch.openvino/model.bin"
    (tmp_path / "model.bin").write_bytes(b"damaged")
    result = run_container(
        seg_workload.folder,
        output,
        image=image_with_weights,
        weights=None,
        extra=[f"--volume={tmp_path}/model.bin:{place}:ro"],
    )
    assert result.code == 0, result.stderr
    assert _model(output)["engine"] == "torch"


def test_build_refuses_weights_of_another_checksum(build_image, seed0_weights):
    with pytest.raises(AssertionError, match="SHA-256"):
        build_image(TORCH="cpu", WEIGHTS=seed0_weights, WEIGHTS_SHA256="0" * 64)


def test_labels(engine, image):
    labels = json.loads(engine("inspect", "--format={{json .Config.Labels}}", image).stdout)
    assert labels["org.opencontainers.image.version"] == oncofm.__version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.oncofm.model"] == "fmcib"
    assert labels["org.oncofm.weights.license"] == "CC-BY-NC-4.0"
    assert labels["org.oncofm.weights.sha256"] == ""
    assert {"title", "description", "revision", "created", "source"} <= {
        name.removeprefix("org.opencontainers.image.") for name in labels
    }


def test_size(engine, image):
    size = int(engine("inspect", "--format={{.Size}}", image).stdout)
    assert size <= _MAX_IMAGE_BYTES, f"{size / 1e9:.2f} GB"


def test_sbom_lists_what_is_inside(engine, image):
    """The build validates it against CycloneDX's schema; here: is it true?"""
    sbom = json.loads(_in_image(engine, image, "cat", "/usr/share/oncofm/sbom.cdx.json"))
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "oncofm"
    listed = {(part["name"].lower(), part["version"].lower()) for part in sbom["components"]}
    program = (
        "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    )
    installed = _in_image(engine, image, "python", "-c", program).splitlines()
    debian = _in_image(engine, image, "dpkg-query", "--show", "-f", "${Package} ${Version}\\n")
    inside = {tuple(line.lower().split()) for line in (*installed, *debian.splitlines())}
    assert len(inside) > 100
    assert inside - listed == {("oncofm", oncofm.__version__)}


def test_nothing_of_the_site_or_the_build_is_inside(engine, image):
    places = "/run/secrets /root/.cache /root/.config /wheels /build /opt/tools /usr/bin/pip3"
    program = f"for place in {places}; do test ! -e $place || echo $place; done"
    assert _in_image(engine, image, "sh", "-c", program) == ""
    program = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    packages = set(_in_image(engine, image, "python", "-c", program).split())
    assert not packages & {"pip", "pytest", "ruff", "pyright", "hatchling", "cyclonedx-bom"}
    assert "openvino-telemetry" not in packages  # which would report to OpenVINO's makers


def test_threads_follow_the_limit(engine, image):
    program = "from oncofm.encoders.threads import usable_processors as n; print(n())"
    limited = ("run", "--rm", "--network=none", "--cpus=1", "--entrypoint=python", image)
    assert engine.lines(*limited, "-c", program) == ["1"]


def test_doctor_is_content(engine, image, weights_folder):
    printed = engine(
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--tmpfs=/tmp",
        f"--user={USER}",
        f"--volume={weights_folder}:/app/weights:ro",
        image,
        "doctor",
        "-o",
        "/tmp",
    )
    assert "Ready." in printed.stdout


def _in_image(engine, image: str, *command: str) -> str:
    program, *arguments = command
    return engine(
        "run", "--rm", "--network=none", "--user=0", f"--entrypoint={program}", image, *arguments
    ).stdout
