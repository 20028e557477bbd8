"""``oncofm run --sr``: a report per CT series, judged by DICOM's own tools."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from heads import write_head
from studies import edit_file, write_study
from tools import require_tool

from oncofm.imaging.sources import FileSource
from oncofm.seeds.dicom_sr import read_sr


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("reports") / "study", "reports", seed=9)


def reports(result):
    return {path.stem.rpartition("-")[2]: path for path in (result.output / "sr").glob("*.dcm")}


def seeds_of(path, *seg_files):
    segs = {pydicom.dcmread(file).SOPInstanceUID: FileSource(file) for file in seg_files}
    return read_sr(FileSource(path), segmentations=segs, images={}).seeds


def test_reports_of_both_styles(study, cli, tmp_path):
    write_head(tmp_path / "two", n_features=4096)
    result = cli("run", study.folder, "--sr", "both", "--head", tmp_path / "two", tmp_path / "out")
    assert result.code == 0
    written = reports(result)
    assert written.keys() == {"segment", "point"}
    uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in written.values()}
    assert uids == set(result.manifest["reports"]["sop_instance_uids"])
    expected = result.features[["seed_x_mm", "seed_y_mm", "seed_z_mm"]].to_numpy()
    for path in written.values():
        found = [seed.position_mm for seed in seeds_of(path, study.seg_file)]
        np.testing.assert_allclose(found, expected, atol=1e-3)
        judged = subprocess.run(
            [require_tool("dciodvfy"), path], capture_output=True, text=True, check=False
        )
        assert not [line for line in judged.stderr.splitlines() if line.startswith("Error")]
        assert str(study.series_uid) in path.name


def test_the_same_run_gives_the_same_reports(study, cli, tmp_path):
    first, second = (
        reports(cli("run", study.folder, "--sr", "auto", tmp_path / name)) for name in "ab"
    )
    assert first.keys() == second.keys() == {"segment"}
    assert first["segment"].read_bytes() == second["segment"].read_bytes()


def test_parts_of_segments_are_points(study, cli, tmp_path):
    result = cli("run", study.folder, "--per", "component", "--sr", "auto", tmp_path / "out")
    assert reports(result).keys() == {"point"}


def test_two_segs_with_equal_ids_are_one_report_of_points(study, cli, tmp_path):
    shutil.copytree(study.folder, tmp_path / "in")
    shutil.copy(tmp_path / "in" / "seg.dcm", tmp_path / "in" / "seg2.dcm")

    def rename(ds):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID[:-2]}11"

    edit_file(tmp_path / "in" / "seg2.dcm", rename)
    result = cli("run", tmp_path / "in", "--sr", "auto", tmp_path / "out")
    assert result.code == 0
    assert len(seeds_of(reports(result)["point"])) == 6


def test_a_report_that_cannot_be_is_said(study, cli, tmp_path):
    shutil.copytree(study.folder, tmp_path / "in")
    for path in sorted((tmp_path / "in" / "ct").iterdir()):
        edit_file(path, lambda ds: delattr(ds, "FrameOfReferenceUID"))
    result = cli("run", tmp_path / "in", "--sr", "point", tmp_path / "out")
    assert result.code == 2
    (failure,) = result.manifest["reports"]["failures"]
    assert "Frame of Reference" in failure
    assert failure in result.stderr
    assert len(result.features) == 3


def test_reports_of_an_earlier_run_are_removed(study, cli, tmp_path):
    assert reports(cli("run", study.folder, "--sr", "auto", tmp_path / "out"))
    again = cli("run", study.folder, "--sr", "point", tmp_path / "out")
    assert reports(again).keys() == {"point"}
    without = cli("run", study.folder, tmp_path / "out")
    assert without.manifest["reports"] is None
    assert reports(without) == {}
