"""Every workflow on its sample, through the image's own entry point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import VoxelEncoder, voxels_of
from mhub_helpers import FEATURES, Run, read_csv, snapshot, true_patches

from oncofm.demo.samples import SAMPLES, write_sample

MHUB_RUN = Path(sys.executable).with_name("mhub.run")
ROI_NAMES = {
    "from_nifti_mask": ["label-1", "label-2", "label-3"],
    "from_slicer": ["0", "1", "2"],
}
ORIGINS = {
    "default": "seg",
    "biomarkers": "seg",
    "from_rtstruct": "rtstruct",
    "from_json": "json",
    "from_nifti_mask": "mask",
    "from_slicer": "markup",
    "from_centroids": "json",
}
MORE = {"biomarkers": {"predictions.csv", "report.html", "sr"}}

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.symlink")


@pytest.mark.parametrize("workflow", SAMPLES)
def test_rows_are_the_features_at_the_true_centres(
    workflow, samples, encoder, mhub_run, scratch, tmp_path
):
    sample = samples[workflow]
    before = snapshot(sample.folder)
    result = mhub_run("--workflow", workflow, "--non-interactive", source=sample.folder)
    assert (result.code, result.stdout) == (0, "")
    assert result.stderr == "1 of 1 cases done, 3 of 3 lesions\n"
    expected = voxels_of(true_patches(sample))
    np.testing.assert_allclose(result.features(sample.case_id), expected, rtol=0, atol=1e-4)

    rows = read_csv(result.output / sample.case_id / "features.csv")
    assert list(rows[0]) == [*FEATURES, "Mhub ROI", "Centroid", "Image", "MHub Metadata"]
    labels = [lesion.label for lesion in sample.scene.lesions]
    assert [row["Mhub ROI"] for row in rows] == ROI_NAMES.get(workflow, labels)
    assert {row["Image"] for row in rows} == {sample.case_id}
    origin = ORIGINS[workflow]
    assert {row["MHub Metadata"] for row in rows} == {f"type=fmcibcoordinates:origin={origin}"}

    assert [row["state"] for row in result.cases] == ["done"] * 4
    assert result.manifest["summary"]["exit_code"] == 0
    table = pd.read_parquet(result.output / "features.parquet")
    predictions = table[[f"pred_{number}" for number in range(4096)]].to_numpy()
    np.testing.assert_array_equal(predictions.astype(np.float32), result.features(sample.case_id))
    names = {path.name for path in result.output.iterdir()}
    tables = {"cases.csv", "features.csv", "features.parquet", "run.json"}
    assert names == {sample.case_id} | tables | MORE.get(workflow, set())
    assert snapshot(sample.folder) == before
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("workflow", ["default", "from_slicer"])
def test_nothing_is_opened_for_writing_but_outputs(
    workflow, samples, encoder, mhub_run, scratch, tmp_path
):
    """A superuser may write where the mode forbids it, so every attempt is watched instead."""
    writes: list[str] = []
    watching = True

    def watch(event, arguments):
        opened = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        # Another last argument than -1 is an open folder that the path is relative to.
        changed = event in _CHANGES and arguments[-1] == -1
        if watching and (opened or changed):
            writes.append(str(arguments[0]))

    sys.addaudithook(watch)
    result = mhub_run("--workflow", workflow, source=samples[workflow].folder)
    watching = False
    assert result.code == 0
    places = {Path(name).absolute() for name in writes} - {Path(os.devnull)}
    assert any(path.is_relative_to(result.output) for path in places)
    allowed = (result.output, scratch)
    elsewhere = {path for path in places if not any(path.is_relative_to(at) for at in allowed)}
    assert {path for path in elsewhere if "__pycache__" not in path.parts} == set()


@pytest.fixture
def read_only(tmp_path):
    """Mount a folder read-only, as containers do; that stops a superuser too. Root only."""
    place = tmp_path / "read_only"
    place.mkdir()
    mounted = False

    def mount(folder: Path) -> Path:
        nonlocal mounted
        commands = (
            ["mount", "--bind", str(folder), str(place)],
            ["mount", "-o", "remount,ro,bind", str(place)],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"NO BIND MOUNT: {done.stderr.strip()}, read-only input goes untested")
            mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("workflow", ["default", "from_slicer"])
def test_read_only_input(workflow, samples, encoder, mhub_run, read_only):
    folder = read_only(samples[workflow].folder)
    with pytest.raises(OSError, match="Read-only"):
        (folder / "probe").touch()
    assert mhub_run("--workflow", workflow, source=folder).code == 0
    output = folder / "out"
    complaint = mhub_run("--workflow", workflow, source=folder, output=output).complaint()
    assert complaint.startswith(f"Output folder {output} cannot be written (Read-only file system)")


def test_zip_archive_as_input(samples, encoder, mhub_run, tmp_path):
    import shutil

    archive = shutil.make_archive(str(tmp_path / "study"), "zip", samples["default"].folder)
    result = mhub_run("--workflow", "default", source=Path(archive))
    assert result.code == 0
    case_id = samples["default"].case_id
    expected = voxels_of(true_patches(samples["default"]))
    np.testing.assert_allclose(result.features(case_id), expected, rtol=0, atol=1e-4)


def test_one_model_load_and_batches_that_cross_cases(encoder, mhub_run, tmp_path):
    folder = tmp_path / "input"
    for number in range(12):
        write_sample("from_centroids", folder, seed=number)
    result = mhub_run("--workflow", "from_centroids", source=folder)
    assert result.code == 0
    assert encoder.loads == 1
    assert encoder.batches == [VoxelEncoder.batch_size] * 9
    assert len(result.rows("case")) == 12
    assert len(list(result.output.glob("*/features.csv"))) == 12


def test_a_case_without_lesions_does_not_stop_its_neighbour(encoder, mhub_run, tmp_path):
    folder = tmp_path / "input"
    good = write_sample("from_centroids", folder, seed=1)
    bad = write_sample("from_centroids", folder, seed=2)
    (folder / bad.case_id / "centroids.json").unlink()
    output = tmp_path / "output"
    (output / bad.case_id).mkdir(parents=True)
    (output / bad.case_id / "features.csv").write_text("of an earlier run")
    result = mhub_run("--workflow", "from_centroids", source=folder)
    assert result.code == 2
    assert "Traceback" not in result.stderr
    assert f"rejected: Nothing says where the lesions of volume {bad.case_id} are" in result.stderr
    assert result.stderr.endswith("1 of 2 cases done, 3 of 3 lesions\n")
    assert len(result.features(good.case_id)) == 3
    assert not (output / bad.case_id / "features.csv").exists()
    assert result.manifest["summary"]["exit_code"] == 2


def test_overrides_reach_the_modules(samples, encoder, mhub_run):
    result = mhub_run(
        "--workflow",
        "default",
        "--config:modules.SeedExtractor.labels=lung*",
        "--config:modules.FeatureExtractor.profile=paper",
        "--config:modules.SeedExtractor.min_volume_mm3=1",
        source=samples["default"].folder,
    )
    assert result.code == 0
    assert [row["segment_label"] for row in result.rows("lesion")] == ["lung lesion"]
    configuration = result.manifest["configuration"]
    assert configuration["profile"] == "paper"
    assert configuration["labels"] == ["lung*"]
    assert configuration["min_volume_mm3"] == 1.0


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_hostile_series_uid_leads_nowhere(encoder, mhub_run, tmp_path):
    from studies import edit_file, write_study

    study = write_study(tmp_path / "input", "hostile")

    def rename(dataset):
        dataset.SeriesInstanceUID = "../../escaped"

    def refer(dataset):
        dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "../../escaped"

    for file in study.ct_files:
        edit_file(file, rename)
    edit_file(study.seg_file, refer)
    result = mhub_run("-w", "default", source=study.folder, output=tmp_path / "a" / "b" / "out")
    assert result.code == 0
    assert len(list(result.output.glob("case-*/features.csv"))) == 1
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.slow
@pytest.mark.parametrize("workflow", ["default", "from_slicer"])
def test_the_program_computes_what_the_library_does(workflow, samples, seed0_weights, tmp_path):
    from oncofm.encoders import load_encoder

    sample = samples[workflow]
    before = snapshot(sample.folder)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    importer = "DicomCTImporter" if workflow == "default" else "StructureImporter"
    done = subprocess.run(
        [
            MHUB_RUN,
            "--workflow",
            workflow,
            "--non-interactive",
            f"--config:general.data_base_dir={tmp_path}",
            f"--config:modules.{importer}.source_dir={sample.folder}",
            "--stream-json-progress",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ONCOFM_WEIGHTS": str(seed0_weights), "TMPDIR": str(temporary)},
    )
    result = Run(done.returncode, done.stdout, done.stderr, tmp_path / "output_data")
    assert result.code == 0, result.stderr
    events = [json.loads(line)["event"] for line in result.stdout.splitlines()]
    assert events == ["start", "case", "end"]
    encoder = load_encoder("fmcib", seed0_weights, device="auto", precision="fp32")
    expected = encoder.encode(true_patches(sample).astype(np.float32))
    np.testing.assert_allclose(result.features(sample.case_id), expected, rtol=0, atol=1e-4)
    assert snapshot(sample.folder) == before
    assert list(temporary.iterdir()) == []
