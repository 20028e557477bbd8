"""Where MHub's ``fmcib_radiomics`` is wrong: each line of docs/differences.md has a test here.

The right seeds are written down by hand, come from the scene, or are SimpleITK's.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from fakes import voxels_of
from mhub_runs import FEATURES, run_workflow
from studies import GRID, Study, write_study

from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.markups import write_centroid, write_centroids
from oncofm.demo.phantom import chest_scene
from oncofm.demo.rtstruct import RoiContours, write_rtstruct
from oncofm.demo.samples import write_volume
from oncofm.demo.segmentation import SegmentMask, lesion_segments, write_seg
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.volume_file import VolumeFile

SCENE = chest_scene(0, centre_mm=(14.0, -95.0, -230.0))
TRUTH_MM = [lesion.centre_mm for lesion in SCENE.lesions]


@pytest.fixture
def inputs(tmp_path) -> Path:
    folder = tmp_path / "input_data"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def volume(tmp_path_factory) -> Path:
    """The phantom as NRRD."""
    path = tmp_path_factory.mktemp("volume") / "CT.nrrd"
    write_volume(path, SCENE)
    return path


@pytest.fixture(scope="module")
def nifti(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("volume") / "CT.nii.gz"
    write_volume(path, SCENE)
    return path


@pytest.fixture
def run(encoder, tmp_path):
    return lambda workflow, *overrides: run_workflow(workflow, tmp_path, *overrides)


def nrrd_case(inputs: Path, name: str, volume: Path) -> Path:
    folder = inputs / name
    folder.mkdir()
    (folder / "CT.nrrd").symlink_to(volume)
    return folder


def nifti_case(inputs: Path, name: str, volume: Path, labels: np.ndarray) -> sitk.Image:
    """Volume and mask of a case; returns the mask."""
    folder = inputs / name / "masks"
    folder.mkdir(parents=True)
    (folder.parent / "CT.nii.gz").symlink_to(volume)
    mask = sitk.GetImageFromArray(labels)
    mask.CopyInformation(sitk.ReadImage(str(volume)))
    sitk.WriteImage(mask, str(folder / "GTV.nii.gz"))
    return mask


def itk_centroids_mm(mask: sitk.Image) -> list[tuple[float, ...]]:
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(mask)
    return [shapes.GetCentroid(label) for label in shapes.GetLabels()]


def empty_labels(volume: Path) -> np.ndarray:
    return np.zeros(sitk.ReadImage(str(volume)).GetSize()[::-1], np.uint8)


# --- points -------------------------------------------------------------------------------


def markup(system: str, *positions: list[float]) -> dict:
    points = [
        {"id": str(n), "position": position, "positionStatus": "defined"}
        for n, position in enumerate(positions, start=1)
    ]
    return {
        "type": "Fiducial",
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "controlPoints": points,
    }


def write_slicer_file(path: Path, *markups: dict) -> None:
    schema = (
        "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
        "Resources/Schema/markups-schema-v1.0.3.json#"
    )
    path.write_text(json.dumps({"@schema": schema, "markups": list(markups)}))


def test_ras_markups_are_turned(inputs, volume, run):
    """Upstream takes LPS only: the case ends without a row and without a word."""
    folder = nrrd_case(inputs, "ras", volume)
    write_slicer_file(folder / "F.mrk.json", markup("RAS", [70.3, 116.7, -193.6]))
    done = run("from_slicer")
    assert done.code == 0
    np.testing.assert_allclose(done.seeds_mm(), [[-70.3, -116.7, -193.6]], atol=1e-6)
    patch = sample_patch(VolumeFile(volume), (-70.3, -116.7, -193.6), PatchSpec())
    features = done.table("ras")[FEATURES].to_numpy(np.float32)
    np.testing.assert_allclose(features, voxels_of(patch.voxels[None]), atol=1e-6)


def test_several_markups_of_one_file_all_count(inputs, volume, run):
    """Upstream takes files with one markup only."""
    folder = nrrd_case(inputs, "two-lists", volume)
    write_slicer_file(
        folder / "F.mrk.json",
        markup("LPS", [-70.3, -116.7, -193.6], [6.4, -143.2, -217.1]),
        markup("RAS", [-151.4, 48.9, -258.7]),
    )
    done = run("from_slicer")
    assert done.code == 0
    np.testing.assert_allclose(done.seeds_mm(), TRUTH_MM, atol=1e-6)
    assert done.table("two-lists")["Mhub ROI"].tolist() == [0, 1, 2]


# --- contours and segmentations ------------------------------------------------------------


def write_ct(inputs: Path, name: str = "ct") -> list[Path]:
    return write_ct_series(inputs / name, SCENE, **GRID, uid_seed=name)


def box_mm(x: tuple[float, float], y: tuple[float, float], z_mm: list[float]) -> list[np.ndarray]:
    """Rectangles on several slices."""
    corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]
    return [np.array([(*corner, height_mm) for corner in corners]) for height_mm in z_mm]


def heights_mm(first: int, stop: int) -> list[float]:
    return ct_geometry(SCENE, **GRID).origins_mm[first:stop, 2].tolist()


def test_overlapping_rois_do_not_eat_each_other(inputs, run):
    """Upstream draws all ROIs into one label map, where a later one takes an earlier one's voxels.

    The right half of the first ROI lies under the second: upstream would put its seed at x = -5.
    """
    z_mm = heights_mm(15, 20)
    rois = [
        RoiContours("outer", box_mm((-10, 10), (-100, -80), z_mm)),
        RoiContours("inner", box_mm((0, 20), (-100, -80), z_mm)),
    ]
    write_rtstruct(inputs / "rtstruct.dcm", write_ct(inputs), rois)
    done = run("from_rtstruct")
    assert done.code == 0
    expected_mm = [[0, -90, z_mm[2]], [10, -90, z_mm[2]]]
    np.testing.assert_allclose(done.seeds_mm(), expected_mm, atol=1e-3)


@pytest.mark.parametrize("workflow", ["default", "from_rtstruct"])
def test_a_comma_does_not_split_a_name(workflow, inputs, run):
    """Upstream takes what is between commas for names of label 1, label 2, ..."""
    names = ["node, left, 4L", "GTV"]
    ct_files = write_ct(inputs)
    if workflow == "default":
        masks = [segment.mask for segment in lesion_segments(SCENE, ct_geometry(SCENE, **GRID))]
        segments = [SegmentMask(*pair) for pair in zip(names, masks[:2], strict=True)]
        write_seg(inputs / "seg.dcm", ct_files, segments)
    else:
        drawn = box_mm((-10, 10), (-100, -80), heights_mm(15, 20))
        write_rtstruct(
            inputs / "rtstruct.dcm", ct_files, [RoiContours(name, drawn) for name in names]
        )
    done = run(workflow)
    assert done.code == 0
    (case_id,) = done.tables()
    assert done.table(case_id)["Mhub ROI"].tolist() == names


@pytest.mark.parametrize("same_series", [False, True])
def test_two_segs_of_one_ct_series_both_count(same_series, inputs, run):
    """Upstream stops at a SEG series of two objects, and does not say which SEG a row is from."""
    ct_files = write_ct(inputs)
    masks = [segment.mask for segment in lesion_segments(SCENE, ct_geometry(SCENE, **GRID))]
    segs = [
        write_seg(
            inputs / f"{reader}.dcm",
            ct_files,
            [SegmentMask("GTV", mask)],
            uid_seed=f"seg/{reader}",
            edit=_in_one_series if same_series else None,
        )
        for reader, mask in zip(("first", "second"), masks[:2], strict=True)
    ]
    done = run("default")
    assert done.code == 0
    (case_id,) = done.tables()
    table = done.table(case_id)
    assert table["Mhub ROI"].tolist() == ["GTV", "GTV"]
    uids = [pydicom.dcmread(seg).SOPInstanceUID for seg in segs]
    assert sorted(table["Centroid"]) == sorted(uids)
    found_mm = dict(zip(table["Centroid"], done.seeds_mm(), strict=True))
    itk_mm = [itk_centroid_mm(mask) for mask in masks[:2]]
    np.testing.assert_allclose([found_mm[uid] for uid in uids], itk_mm, atol=1e-3)


def _in_one_series(seg: pydicom.Dataset) -> None:
    seg.SeriesInstanceUID = "2.25.31415926535"


def itk_centroid_mm(mask: np.ndarray) -> tuple[float, ...]:
    """Centroid of a mask on the grid of the CT."""
    geometry = ct_geometry(SCENE, **GRID)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(GRID["spacing_mm"])
    image.SetOrigin(geometry.origins_mm[0].tolist())
    return itk_centroids_mm(image)[0]


def test_two_ct_series_in_one_folder_each_with_its_seg(tmp_path, inputs, run):
    studies = [write_study(tmp_path / name, name, seed) for seed, name in enumerate(("a", "b"))]
    for study in studies:
        for file in (*study.ct_files, study.seg_file):
            (inputs / f"{study.folder.name}-{file.name}").symlink_to(file)
    done = run("default")
    assert done.code == 0
    assert done.tables() == {study.series_uid for study in studies}
    for study in studies:
        _check_own_lesions(study, done)


def _check_own_lesions(study: Study, done) -> None:
    """All rows of a study's table come from its own SEG, and hold its own voxels."""
    table = done.table(study.series_uid)
    assert set(table["Centroid"]) == {study.seg_uid}
    rows = done.rows().query("series_uid == @study.series_uid")
    truth_mm = [lesion.centre_mm for lesion in study.scene.lesions]
    seeds_mm = rows[["seed_x_mm", "seed_y_mm", "seed_z_mm"]].to_numpy()
    np.testing.assert_allclose(seeds_mm, truth_mm, atol=1.5)  # half a voxel
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in study.ct_files])
    path = study.folder / "itk.nrrd"
    sitk.WriteImage(reader.Execute(), str(path))
    patches = [sample_patch(VolumeFile(path), tuple(seed), PatchSpec()) for seed in seeds_mm]
    expected = voxels_of(np.stack([patch.voxels for patch in patches]))
    np.testing.assert_allclose(table[FEATURES].to_numpy(np.float32), expected, atol=1e-4)


def test_a_seg_on_some_of_the_slices(inputs, run):
    """Its slices 0, 1, 2 ... are slices 14, 15, 16 ... of the CT."""
    ct_files = write_ct(inputs)
    mask = np.zeros((36, 64, 96), bool)
    mask[16:19, 20:23, 40:45] = True
    whole = ct_geometry(SCENE, **GRID)
    part = replace(whole, origins_mm=whole.origins_mm[14:22])
    write_seg(
        inputs / "seg.dcm",
        ct_files[14:22],
        [SegmentMask("GTV", mask[14:22])],
        geometry=part,
        omit_empty_frames=False,
    )
    done = run("default")
    assert done.code == 0
    expected_mm = whole.origins_mm[0] + [42 * 4.0, 21 * 4.0, 17 * 5.0]
    np.testing.assert_allclose(done.seeds_mm(), [expected_mm], atol=1e-3)


# --- label masks ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 3, 255])
def test_any_label_value_is_a_lesion(value, inputs, nifti, run):
    """Upstream looks for 1 only, and writes an empty table if it is not there."""
    labels = empty_labels(nifti)
    labels[20:24, 40:47, 50:59] = value
    mask = nifti_case(inputs, "case", nifti, labels)
    done = run("from_nifti_mask")
    assert done.code == 0
    np.testing.assert_allclose(done.seeds_mm(), itk_centroids_mm(mask), atol=1e-3)
    assert done.table("case")["Mhub ROI"].tolist() == [f"label-{value}"]


def test_every_label_of_a_mask_is_a_lesion(inputs, nifti, run):
    """Upstream takes label 1 and leaves the others."""
    labels = empty_labels(nifti)
    labels[20:24, 40:47, 50:59] = 1
    labels[22:30, 30:34, 70:75] = 2
    labels[40:44, 60:63, 90:99] = 255
    mask = nifti_case(inputs, "case", nifti, labels)
    done = run("from_nifti_mask")
    assert done.code == 0
    assert len(done.table("case")) == 3
    np.testing.assert_allclose(done.seeds_mm(), itk_centroids_mm(mask), atol=1e-3)


# --- what goes wrong is seen ---------------------------------------------------------------


def test_a_missing_centroid_file_is_a_rejected_case(inputs, volume, run, capsys):
    """Upstream ends with 0 and writes nothing."""
    nrrd_case(inputs, "forgotten", volume)
    done = run("from_centroids")
    assert done.code == 3
    assert done.tables() == set()
    (case,) = done.cases().to_dict("records")
    assert (case["case_id"], case["state"], case["reason"]) == ("forgotten", "rejected", "no_seeds")
    assert "forgotten" in capsys.readouterr().err


def test_an_empty_mask_is_a_rejected_case(inputs, nifti, run):
    """Upstream ends with 0 and writes an empty table, which pandas cannot even read."""
    nifti_case(inputs, "empty", nifti, empty_labels(nifti))
    done = run("from_nifti_mask")
    assert done.code == 3
    assert done.tables() == set()
    (case,) = done.cases().to_dict("records")
    assert (case["state"], case["reason"]) == ("rejected", "segment_empty")


def test_a_case_without_its_volume_is_a_rejected_case(inputs, run):
    (inputs / "no-ct").mkdir()
    write_centroid(inputs / "no-ct" / "centroids.json", (0, 0, 0))
    done = run("from_centroids")
    assert done.code == 3
    (case,) = done.cases().to_dict("records")
    assert (case["case_id"], case["reason"]) == ("no-ct", "series_absent")


def test_a_seg_whose_series_is_absent_does_not_stop_the_others(tmp_path, inputs, run):
    """Upstream's importer stops, and with it the run."""
    here, gone = (write_study(tmp_path / name, name) for name in ("here", "gone"))
    for file in (*here.ct_files, here.seg_file, gone.seg_file):
        (inputs / f"{file.parent.name}-{file.name}").symlink_to(file)
    done = run("default")
    assert done.code == 2
    assert done.tables() == {here.series_uid}
    states = done.cases().set_index("case_id")
    assert states.loc[here.series_uid, "state"] == "done"
    assert states.loc[gone.seg_uid, "state"] == "rejected"
    assert states.loc[gone.seg_uid, "reason"] == "series_absent"


def test_points_of_a_series_that_is_absent_are_a_rejected_case(inputs, run):
    """Upstream passes over the file, and over the series that has none."""
    write_ct(inputs)
    write_centroid(inputs / "2.25.271828.json", TRUTH_MM[0])
    done = run("from_json")
    assert done.code == 3
    cases = done.cases()
    assert cases["state"].tolist() == ["rejected", "rejected"]
    assert sorted(cases["reason"]) == ["no_seeds", "series_absent"]


def test_a_point_outside_the_volume_is_a_rejected_lesion(inputs, volume, run):
    """Upstream takes points up to 25 mm outside and fails on others."""
    folder = nrrd_case(inputs, "case", volume)
    write_centroids(folder / "centroids.json", [TRUTH_MM[0], (-70.3, -116.7, 400)], ["in", "out"])
    done = run("from_centroids")
    assert done.code == 2
    assert done.table("case")["Mhub ROI"].tolist() == ["in"]
    lesions = done.cases("lesion")
    assert lesions["state"].tolist() == ["done", "rejected"]
    assert lesions["reason"][1] == "seed_outside_volume"


@pytest.mark.parametrize("damage", ["volume", "points"])
def test_a_bad_case_does_not_stop_the_others(damage, inputs, volume, run):
    for name in ("a", "b", "c"):
        folder = nrrd_case(inputs, name, volume)
        write_centroids(folder / "centroids.json", TRUTH_MM, ["1", "2", "3"])
    if damage == "volume":
        (inputs / "b" / "CT.nrrd").unlink()
        (inputs / "b" / "CT.nrrd").write_bytes(volume.read_bytes()[:5000])
    else:
        (inputs / "b" / "centroids.json").write_text('{"coordX": 1, ')
    done = run("from_centroids")
    assert done.code == 2
    assert done.tables() == {"a", "c"}
    states = done.cases().set_index("case_id")["state"]
    assert states.drop("b").tolist() == ["done", "done"]
    assert states["b"] in ("rejected", "failed")
    np.testing.assert_array_equal(done.table("a")[FEATURES], done.table("c")[FEATURES])


def test_an_older_table_does_not_pass_for_a_result(inputs, volume, run, tmp_path):
    folder = nrrd_case(inputs, "a", volume)
    write_centroid(folder / "centroids.json", TRUTH_MM[0])
    assert run("from_centroids").code == 0
    (folder / "centroids.json").unlink()
    done = run("from_centroids")
    assert done.code == 3
    assert done.tables() == set()


def test_nothing_is_written_but_the_results(inputs, run, tmp_path):
    """Upstream copies the DICOM files, sorted, and leaves converted volumes beside them."""
    ct_files = write_ct(inputs)
    write_seg(inputs / "seg.dcm", ct_files, lesion_segments(SCENE, ct_geometry(SCENE, **GRID)))
    before = {path: path.stat().st_mtime_ns for path in inputs.rglob("*")}
    done = run("default")
    assert done.code == 0
    assert {path: path.stat().st_mtime_ns for path in inputs.rglob("*")} == before
    assert {path.name for path in tmp_path.iterdir()} == {"input_data", "output_data"}
    (case_id,) = done.tables()
    expected = {case_id, "features.parquet", "features.csv", "cases.csv", "run.json"}
    assert {path.name for path in done.output.iterdir()} >= expected


def test_the_model_is_loaded_once_for_all_lesions(inputs, volume, run, encoder):
    """Upstream builds the network anew, weights and all, for every point."""
    for name in ("a", "b", "c"):
        folder = nrrd_case(inputs, name, volume)
        write_centroids(folder / "centroids.json", TRUTH_MM, ["1", "2", "3"])
    assert run("from_centroids").code == 0
    assert encoder.loads == 1
    assert sum(encoder.batches) == 9
    assert len(encoder.batches) == 3, "batches reach across cases: 4 + 4 + 1"
