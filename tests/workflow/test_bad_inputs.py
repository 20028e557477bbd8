"""Everything that hospitals send and that is not a healthy CT with a healthy SEG.

Each bad input lies next to a healthy study. It must end in its own state, with its reason and
a sentence; the neighbour's features must be what they are when it is alone.
"""

import json
import os
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
)
from studies import GRID, cut, edit_file, write_study

from oncofm.demo.dicom import ct_geometry, write_ct_series, write_localizer
from oncofm.demo.headers import phantom_uid
from oncofm.demo.phantom import chest_scene
from oncofm.demo.segmentation import lesion_segments, write_seg

SLICES_OF_A_LESION = 20
"""A slice that the patches of the first two lesions touch, and that of the third does not."""
FAR_SLICE = 0
"""A slice that no patch touches."""


@pytest.fixture(scope="session")
def good_study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("good") / "study", "good", seed=1)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("template") / "study", "bad", seed=2)


@pytest.fixture
def bench(cli, tmp_path, good_study, template):
    """Both studies side by side, the second one to be spoiled."""

    class Bench:
        folder = tmp_path / "in"
        good = good_study
        bad = folder / "bad"
        ct = bad / "ct"
        seg = bad / "seg.dcm"
        series_uid = template.series_uid
        seg_uid = template.seg_uid

        def slices(self):
            return sorted(self.ct.iterdir())

        def run(self, *options):
            return cli("run", self.folder, *options, tmp_path / "out")

        def case(self, result, case_id=None):
            """The row of the spoiled case, after a look at its neighbour."""
            rows = result.rows("case")
            (neighbour,) = [row for row in rows if row["case_id"] == good_study.series_uid]
            assert (neighbour["state"], neighbour["n_done"]) == ("done", "3")
            rows.remove(neighbour)
            if case_id is not None:
                rows = [row for row in rows if row["case_id"] == case_id]
            assert len(rows) == 1, [(row["case_id"], row["reason"]) for row in rows]
            return rows[0]

    shutil.copytree(good_study.folder, Bench.folder / "good")
    shutil.copytree(template.folder, Bench.bad)
    return Bench()


def expect(result, row, state, reason, code):
    assert (row["state"], row["reason"]) == (state, reason)
    assert row["message"].endswith(".")
    assert result.code == code
    if state != "done":
        assert row["message"] in result.stderr


def test_neighbours_have_the_features_they_have_alone(bench, cli, tmp_path):
    alone = cli("run", bench.good.folder, tmp_path / "alone").features
    for path in bench.slices()[::2]:
        path.unlink()
    together = bench.run().features
    of_good = together[together["case_id"] == bench.good.series_uid]
    np.testing.assert_allclose(  # a real network rounds by the size of its batches
        of_good.filter(like="pred_").to_numpy(),
        alone.filter(like="pred_").to_numpy(),
        rtol=0,
        atol=1e-5,
    )


def test_two_healthy_studies(bench):
    result = bench.run()
    assert result.code == 0
    assert {row["state"] for row in result.cases} == {"done"}
    features = result.features
    assert len(features) == 6
    assert np.isfinite(features.filter(like="pred_").to_numpy()).all()
    assert features["segment_label"].tolist()[:3] == [
        "lung lesion", "mediastinal lesion", "chest wall lesion",
    ]  # fmt: skip
    assert result.manifest["summary"]["cases"]["done"] == 2
    assert result.manifest["inputs"]["segmentation_uids"] == sorted(
        [bench.good.seg_uid, bench.seg_uid]
    )
    text = (result.output / "features.csv").read_text()
    for output in ("cases.csv", "features.csv", "run.json"):
        assert "RANDOM WEIGHTS" in (result.output / output).read_text()
    assert len(text.splitlines()) == 7


# --- files --------------------------------------------------------------------------------


def test_an_empty_folder_is_no_success(cli, tmp_path):
    (tmp_path / "in").mkdir()
    result = cli("run", tmp_path / "in", tmp_path / "out")
    assert result.code == 3
    assert result.cases == []
    assert "no CT volume" in result.stderr


def test_an_input_that_does_not_exist(cli, tmp_path):
    result = cli("run", tmp_path / "nowhere", tmp_path / "out")
    assert result.code == 1
    assert "nowhere does not exist" in result.stderr


def test_text_files_are_listed_and_skipped(bench):
    (bench.bad / "notes.txt").write_text("DICM is not enough")
    (bench.bad / "empty").touch()
    result = bench.run()
    assert result.code == 0
    skipped = (result.output / "skipped.csv").read_text()
    assert "notes.txt" in skipped
    assert "not_dicom" in skipped
    assert "empty_file" in skipped
    assert result.manifest["inputs"]["n_files_skipped"] == 2


def test_ten_thousand_unrelated_files(bench):
    for index in range(10_000):
        (bench.bad / f"{index}.txt").write_text("nothing to see here")
    result = bench.run()
    assert result.code == 0
    assert result.manifest["inputs"]["n_files_skipped"] == 10_000


def test_a_file_cut_inside_its_header_is_a_case_of_its_own(bench):
    cut(bench.slices()[FAR_SLICE], 0.02)
    result = bench.run()
    assert result.code == 2
    (row,) = result.rows("file")
    assert row["reason"] == "unreadable_file"
    assert "copy it again" in row["message"]
    assert row["message"] in result.stderr


def test_a_truncated_slice_counts_only_where_it_is_needed(bench):
    cut(bench.slices()[FAR_SLICE], 0.6)
    assert bench.run().code == 0
    cut(bench.slices()[SLICES_OF_A_LESION], 0.6)
    result = bench.run()
    row = bench.case(result)
    expect(result, row, "partial", "slice_undecodable", 2)
    assert row["n_done"] == "1"
    assert "2.25." in row["message"]


def test_a_zero_byte_slice_is_a_missing_slice(bench):
    bench.slices()[SLICES_OF_A_LESION].write_bytes(b"")
    result = bench.run()
    assert result.code == 0
    assert "missing_slices" in bench.case(result)["warnings"]


def test_a_slice_of_noise(bench):
    path = bench.slices()[SLICES_OF_A_LESION]
    edit_file(path, lambda ds: ds.compress("1.2.840.10008.1.2.4.80", generate_instance_uid=False))
    data = path.read_bytes()
    path.write_bytes(data[:-2000] + b"\x55" * 2000)
    result = bench.run()
    row = bench.case(result)
    expect(result, row, "partial", "slice_undecodable", 2)


def test_spaces_and_umlauts_in_paths(bench, cli, tmp_path):
    folder = tmp_path / "Fälle für Köln 2"
    bench.folder.rename(folder)
    result = cli("run", folder, tmp_path / "Größe und Maß")
    assert result.code == 0
    assert len(result.features) == 6


def test_the_same_files_in_two_folders_count_once(bench):
    shutil.copytree(bench.ct, bench.bad / "copy")
    result = bench.run()
    assert result.code == 0
    assert "duplicate_dropped" in bench.case(result)["warnings"]
    assert len(result.features) == 6


def test_one_uid_with_different_pixels_is_refused(bench):
    shutil.copytree(bench.ct, bench.bad / "copy")
    changed = sorted((bench.bad / "copy").iterdir())[SLICES_OF_A_LESION]
    edit_file(changed, lambda ds: ds.__setattr__("PixelData", bytes(len(ds.PixelData))))
    result = bench.run()
    expect(result, bench.case(result), "rejected", "duplicate_position", 2)


def test_a_zip_gives_what_its_folder_gives(bench, cli, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", bench.folder)
    zipped = cli("run", archive, tmp_path / "zipped").features
    plain = bench.run().features
    np.testing.assert_array_equal(zipped.filter(like="pred_"), plain.filter(like="pred_"))


# --- series -------------------------------------------------------------------------------


def test_localizers_never_become_slices(bench):
    scene = chest_scene(2)
    write_localizer(bench.bad / "scout.dcm", scene, uid_seed="bad")
    write_localizer(bench.bad / "in-series.dcm", scene, uid_seed="bad", series_uid=bench.series_uid)
    result = bench.run()
    assert result.code == 0
    assert "localizer_left_out" in bench.case(result)["warnings"]
    (row,) = result.rows("series")
    assert row["reason"] == "localizer"


def test_a_secondary_capture_in_the_series_is_left_out(bench):
    def to_screen(ds):
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        ds.SOPInstanceUID = phantom_uid("screen")
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.ImageType = ["DERIVED", "SECONDARY"]
        del ds.ImagePositionPatient

    shutil.copy(bench.slices()[0], bench.bad / "screen.dcm")
    edit_file(bench.bad / "screen.dcm", to_screen)
    result = bench.run()
    assert result.code == 0
    assert "secondary_capture_left_out" in bench.case(result)["warnings"]


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [("MR", MRImageStorage), ("PT", PositronEmissionTomographyImageStorage)],
)
def test_another_modality_with_a_seg_on_it(bench, modality, sop_class):
    for path in bench.slices():
        edit_file(path, lambda ds: ds.update({"Modality": modality, "SOPClassUID": sop_class}))
    result = bench.run()
    row = bench.case(result, bench.seg_uid)
    expect(result, row, "rejected", "not_ct", 2)
    assert modality in row["message"]
    assert [r["reason"] for r in result.rows("series")] == ["not_ct"]
    lesions = [r for r in result.rows("lesion") if r["case_id"] == bench.seg_uid]
    assert [r["reason"] for r in lesions] == ["not_ct"] * 3


def test_only_mr(cli, bench, tmp_path):
    bench.seg.unlink()
    for path in bench.slices():
        edit_file(path, lambda ds: ds.update({"Modality": "MR", "SOPClassUID": MRImageStorage}))
    result = cli("run", bench.bad, tmp_path / "out")
    assert result.code == 3
    assert [row["reason"] for row in result.cases] == ["not_ct"]


def test_a_series_without_rescale(bench):
    def without_rescale(ds):
        del ds.RescaleSlope
        del ds.RescaleIntercept

    for path in bench.slices():
        edit_file(path, without_rescale)
    result = bench.run()
    expect(result, bench.case(result), "rejected", "missing_rescale", 2)


def test_a_series_without_geometry(bench):
    for path in bench.slices():
        edit_file(path, lambda ds: ds.__delitem__("ImagePositionPatient"))
    result = bench.run()
    expect(result, bench.case(result), "rejected", "missing_geometry", 2)


def test_one_slice_only(bench):
    for path in bench.slices()[1:]:
        path.unlink()
    result = bench.run()
    expect(result, bench.case(result), "rejected", "single_slice", 2)


def test_a_gap_inside_a_patch_and_elsewhere(bench):
    for path in bench.slices()[1:4]:
        path.unlink()
    result = bench.run()
    assert result.code == 0
    assert "missing_slices" in bench.case(result)["warnings"]
    for path in bench.slices()[SLICES_OF_A_LESION - 3 : SLICES_OF_A_LESION]:
        path.unlink()
    result = bench.run()
    row = bench.case(result)
    expect(result, row, "partial", "gap_in_patch", 2)


def origins(shift_mm=0.0, jitter_mm=0.0):
    origins_mm = ct_geometry(chest_scene(2), **GRID).origins_mm.copy()
    k = np.arange(len(origins_mm))
    origins_mm[:, 1] += shift_mm * (k - k.mean())
    origins_mm[:, 2] += jitter_mm * (k % 2)
    return origins_mm


@pytest.mark.parametrize(
    ("moved", "warning"),
    [({"shift_mm": 1.2}, "gantry_tilt"), ({"jitter_mm": 1.5}, "varying_spacing")],
)
def test_stacks_that_are_not_boxes_are_sampled_where_they_lie(bench, moved, warning, tmp_path):
    shutil.rmtree(bench.bad)
    write_study(bench.bad, "bad", seed=2, slice_origins_mm=origins(**moved))
    result = bench.run()
    assert result.code == 0
    row = bench.case(result)
    assert warning in row["warnings"]
    features = result.features
    warned = features[features["case_id"] == bench.series_uid]["warnings"]
    assert warned.str.contains(warning).all()


def test_two_orientations_in_one_series_are_two_volumes(bench):
    write_ct_series(
        bench.bad / "coronal",
        chest_scene(2),
        shape=(40, 30, 20),
        spacing_mm=(8.0, 8.0, 10.0),
        direction=((1, 0, 0), (0, 0, 1), (0, -1, 0)),
        uid_seed="bad",
        series_uid=bench.series_uid,
        edit=lambda ds, k: ds.update(
            {"SOPInstanceUID": phantom_uid("coronal", k)}
        ) or ds.file_meta.update({"MediaStorageSOPInstanceUID": phantom_uid("coronal", k)}),
    )  # fmt: skip
    result = bench.run()
    cases = {row["case_id"]: row for row in result.rows("case")}
    assert cases[bench.series_uid]["state"] == "done"
    assert cases[f"{bench.series_uid}#2"]["reason"] == "no_seeds"
    assert result.code == 2


# --- segmentations ------------------------------------------------------------------------


def test_a_ct_without_seg(bench):
    bench.seg.unlink()
    result = bench.run()
    row = bench.case(result, bench.series_uid)
    expect(result, row, "rejected", "no_seeds", 2)
    assert "--seeds" in row["message"]


def test_only_a_seg(bench, cli, tmp_path):
    shutil.rmtree(bench.ct)
    result = cli("run", bench.bad, tmp_path / "out")
    assert result.code == 3
    (row,) = result.rows("case")
    assert row["reason"] == "series_absent"
    assert bench.series_uid in row["message"]
    assert len(result.rows("lesion")) == 3


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_seg_cut_off(bench, share):
    cut(bench.seg, share)
    result = bench.run()
    assert result.code == 2
    reasons = {row["reason"] for row in result.cases if row["state"] != "done"}
    assert "no_seeds" in reasons
    assert reasons & {"segmentation_invalid", "unreadable_file"}


def strip_references(ds):
    del ds.ReferencedSeriesSequence
    del ds.SourceImageSequence
    for group in (*ds.SharedFunctionalGroupsSequence, *ds.PerFrameFunctionalGroupsSequence):
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence


def test_a_seg_without_references_goes_by_frame_of_reference(bench):
    edit_file(bench.seg, strip_references)
    result = bench.run()
    assert result.code == 0
    assert "reference_inferred" in bench.case(result)["warnings"]


def test_a_seg_without_references_and_two_candidates(bench):
    edit_file(bench.seg, strip_references)
    write_ct_series(bench.bad / "second", chest_scene(2), **GRID, uid_seed="bad/second")
    result = bench.run()
    row = bench.case(result, bench.seg_uid)
    expect(result, row, "rejected", "segmentation_unreferenced", 2)


def test_a_seg_in_another_frame_of_reference(bench):
    edit_file(bench.seg, lambda ds: ds.update({"FrameOfReferenceUID": "2.25.99"}))
    result = bench.run()
    expect(result, bench.case(result, bench.seg_uid), "rejected", "frame_of_reference_mismatch", 2)


def test_a_segment_without_voxels_leaves_its_neighbours(bench, template):
    segments = lesion_segments(template.scene, ct_geometry(template.scene, **GRID))
    segments[1].mask[:] = 0
    write_seg(bench.seg, bench.slices(), segments, uid_seed="bad/seg", omit_empty_frames=False)
    result = bench.run()
    row = bench.case(result)
    assert (row["state"], row["reason"], row["n_done"]) == ("partial", "segment_empty", "2")
    assert result.code == 2


def test_a_seed_outside_the_volume(bench, tmp_path):
    seeds = tmp_path / "seeds.csv"
    seeds.write_text(
        f"series_uid,coordX,coordY,coordZ\n{bench.series_uid},0,0,0\n"
        f"{bench.series_uid},0,0,900\n{bench.series_uid},nan,0,0\n9.9.9,0,0,0\n"
    )
    result = bench.run("--seeds", seeds)
    assert result.code == 2
    assert [row["reason"] for row in result.rows("lesion")] == [
        "", "seed_outside_volume", "seed_invalid", "series_absent",
    ]  # fmt: skip
    assert {row["reason"] for row in result.rows("series")} == {"seeds_given", "no_seeds"}


def test_seeds_without_a_series_are_not_guessed_among_two(bench, tmp_path):
    seeds = tmp_path / "seeds.csv"
    seeds.write_text("coordX,coordY,coordZ\n0,0,0\n")
    result = bench.run("--seeds", seeds)
    assert result.code == 3
    assert [row["reason"] for row in result.rows("lesion")] == ["series_ambiguous"]


def test_an_rtstruct_without_contours(bench):
    shutil.copy(bench.slices()[0], bench.bad / "rtstruct.dcm")

    def to_rtstruct(ds):
        ds.Modality = "RTSTRUCT"
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = phantom_uid("rtstruct")
        ds.SeriesInstanceUID = phantom_uid("rtstruct series")
        del ds.PixelData

    edit_file(bench.bad / "rtstruct.dcm", to_rtstruct)
    result = bench.run()
    expect(result, bench.case(result, phantom_uid("rtstruct")), "rejected", "rtstruct_invalid", 2)


# --- outputs ------------------------------------------------------------------------------


def test_an_output_that_is_a_file(bench, cli, tmp_path):
    (tmp_path / "out").write_text("")
    result = bench.run()
    assert result.code == 1
    assert "cannot be written" in result.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 1 MB; root only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"NO TMPFS: {done.stderr.strip()}, full disks go untested"
        if os.environ.get("ONCOFM_REQUIRE_TOOLS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_found_before_work(bench, cli, small_disk):
    result = cli("run", bench.good.folder, small_disk / "out")
    assert result.code == 1
    assert "free space" in result.stderr
    assert list((small_disk / "out").iterdir()) == []


def test_a_disk_without_room_for_key_images(bench, cli, tmp_path, monkeypatch):
    everything = ["--sr", "both", "--sr-features", "full", "--key-images", "--report"]
    result = cli("run", bench.good.folder, *everything, tmp_path / "all")
    assert result.code == 0
    files = [path for path in (tmp_path / "all").rglob("*") if path.is_file()]
    needed = sum(path.stat().st_size for path in files)
    usage = shutil.disk_usage(tmp_path)._replace(free=needed)
    monkeypatch.setattr("oncofm.workflow.write.shutil.disk_usage", lambda _: usage)
    assert cli("run", bench.good.folder, tmp_path / "tables").code == 0
    refused = cli("run", bench.good.folder, *everything, tmp_path / "none")
    assert refused.code == 1
    assert "the results of 3 lesions need up to" in refused.stderr
    assert list((tmp_path / "none").iterdir()) == []


def test_a_disk_that_fills_up_during_the_run(bench, cli, small_disk, monkeypatch):
    monkeypatch.setattr("oncofm.workflow.write.check_free_space", lambda *_: None)
    (small_disk / "other").write_bytes(bytes(900 * 1024))
    result = cli("run", bench.good.folder, small_disk / "out")
    assert result.code == 1
    assert "No space left" in result.stderr
    assert not list((small_disk / "out").glob("*.tmp"))


def test_an_output_without_permission(bench, cli, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        result = cli("run", bench.good.folder, tmp_path / "locked" / "out")
    finally:
        os.seteuid(user)
    assert result.code == 1
    assert "Permission denied" in result.stderr


def test_inputs_are_never_touched(bench):
    before = {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert bench.run().code == 0
    finally:
        for path in before:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*")} == before


@pytest.mark.parametrize("option", [("--profile", "none"), ("--threshold", "0")])
def test_usage_errors_exit_with_1(cli, tmp_path, option):
    result = cli("run", *option, tmp_path, tmp_path / "out")
    assert result.code == 1
    assert option[0] in result.stderr


def test_ct_storage_without_a_modality_is_not_lost(bench):
    """A file whose header names no modality is listed, whatever it is."""
    for path in bench.slices():
        edit_file(path, lambda ds: ds.update({"Modality": "", "SOPClassUID": CTImageStorage}))
    result = bench.run()
    assert result.code == 2
    assert bench.case(result, bench.seg_uid)["state"] == "rejected"


def test_no_patient_name_leaves(bench):
    def name(ds):
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "CANARY^BIRD", "CANARY", "19010101"
        ds.StudyDate, ds.ContentDate = "19020202", "19020202"

    for path in (*bench.slices(), bench.seg):
        edit_file(path, name)
        # Dates that are none: readers like to quote what they complain about.
        broken = (
            path.read_bytes().replace(b"19010101", b"CANARY-1").replace(b"19020202", b"CANARY-2")
        )
        path.write_bytes(broken)
    cut(bench.slices()[SLICES_OF_A_LESION], 0.6)
    result = bench.run("--debug")
    assert result.code == 2
    assert "CANARY" not in result.stdout + result.stderr
    for path in result.output.rglob("*"):
        assert "CANARY" not in path.name
        assert path.is_dir() or b"CANARY" not in path.read_bytes()


def test_json_progress(bench):
    events = [json.loads(line) for line in bench.run("--json-progress").stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "case", "case", "end"]
    assert events[0]["n_lesions"] == 6
    assert events[-1]["exit_code"] == 0


def test_pydicom_still_reads_what_we_ran_on(bench):
    assert all(pydicom.dcmread(path).PatientName == "PHANTOM^ONCOFM" for path in bench.slices())
