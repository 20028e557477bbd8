"""Which annotation counts for which volume, and which lesions are asked for."""

import json
import shutil

import pydicom
import pytest
from studies import GRID, write_study

from oncofm.demo.dicom import ct_geometry
from oncofm.demo.enhanced import write_enhanced_ct
from oncofm.demo.markups import write_centroids, write_markups
from oncofm.demo.phantom import chest_scene
from oncofm.demo.report import write_sr
from oncofm.demo.rtstruct import lesion_contours, write_rtstruct
from oncofm.demo.samples import write_mask, write_volume
from oncofm.errors import InputNotFoundError, SettingInvalidError
from oncofm.seeds.seed import Seed
from oncofm.workflow.gather import gather
from oncofm.workflow.settings import Settings
from oncofm.workflow.survey import survey_inputs


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A CT with SEG, RTSTRUCT and SR of the same three lesions."""
    study = write_study(tmp_path_factory.mktemp("study") / "all", "all", seed=4)
    geometry = ct_geometry(study.scene, **GRID)
    write_rtstruct(study.folder / "rt.dcm", study.ct_files, lesion_contours(study.scene, geometry))
    write_sr(study.folder / "sr.dcm", study.ct_files, study.scene.lesions, style="point")
    return study


def only(study, folder, *names):
    """The CT with some of its annotations."""
    folder.mkdir()
    shutil.copytree(study.folder / "ct", folder / "ct")
    for name in names:
        shutil.copy(study.folder / name, folder / name)
    return folder


def cases(inputs, seeds=None, **settings):
    worklist = gather(survey_inputs(inputs, seeds), Settings(**settings))
    return worklist, {case.case_id: case for case in worklist.cases}


def kinds(case):
    return [lesion.source.kind for lesion in case.seeds]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("seg.dcm", "rt.dcm", "sr.dcm"), "seg"),
        (("rt.dcm", "sr.dcm"), "rtstruct"),
        (("sr.dcm",), "sr"),
    ],
)
def test_the_first_kind_that_a_volume_has(study, tmp_path, names, kind):
    worklist, found = cases([only(study, tmp_path / "in", *names)])
    case = found[study.series_uid]
    assert kinds(case) == [kind] * 3
    left_out = [n for n in case.notices if n.code == "other_annotations_left_out"]
    assert len(left_out) == (len(names) > 1)
    for lesion, truth in zip(case.seeds, study.scene.lesions, strict=True):
        assert isinstance(lesion, Seed)
        assert lesion.position_mm == pytest.approx(truth.centre_mm, abs=1.5)  # 4 x 4 x 5 mm voxels
    assert worklist.verdicts == ()


def test_kinds_that_are_asked_for(study):
    worklist, found = cases([study.folder], seed_kinds=("rtstruct", "sr"))
    assert kinds(found[study.series_uid]) == ["rtstruct"] * 3 + ["sr"] * 3
    (verdict,) = worklist.verdicts
    assert (verdict.name, verdict.error.code) == (study.seg_series_uid, "seeds_given")
    assert "rtstruct, sr" in str(verdict.error)


def test_labels_that_are_asked_for(study):
    _, found = cases([study.folder], labels=("LUNG*", "chest*"))
    case = found[study.series_uid]
    assert [lesion.source.segment_label for lesion in case.seeds] == [
        "lung lesion",
        "chest wall lesion",
    ]
    assert "labels_left_out" in [notice.code for notice in case.notices]


def test_labels_that_match_nothing(study):
    _, found = cases([study.folder], labels=("liver",))
    case = found[study.series_uid]
    assert case.error is not None
    assert case.error.code == "no_seeds"
    assert "oncofm seeds" in str(case.error)


@pytest.mark.parametrize("name", ["rt.dcm", "sr.dcm", "seg.dcm"])
def test_a_dicom_object_that_lists_the_lesions(study, name):
    _, found = cases([study.folder / "ct"], study.folder / name)
    assert len(found[study.series_uid].seeds) == 3


def test_a_report_of_segments_finds_their_segmentation(study, tmp_path):
    folder = only(study, tmp_path / "in", "seg.dcm")
    write_sr(
        folder / "sr.dcm",
        study.ct_files,
        study.scene.lesions,
        style="segment",
        seg_file=study.seg_file,
    )
    _, found = cases([folder], seed_kinds=("seg", "sr"))
    seeds = found[study.series_uid].seeds
    by_kind = [[s.position_mm for s in seeds if s.source.kind == k] for k in ("seg", "sr")]
    assert len(by_kind[0]) == 3
    assert by_kind[0] == by_kind[1]


def test_a_report_of_frames_of_an_enhanced_ct(tmp_path):
    scene = chest_scene(7)
    ct_file = write_enhanced_ct(tmp_path / "ct.dcm", scene, **GRID)
    geometry = ct_geometry(scene, **GRID)
    frame = 18
    i, j = 40, 22

    def outline(dataset):
        """Turn the 3D point of the first group into a point on a frame."""
        from pydicom.dataset import Dataset

        image = Dataset()
        image.RelationshipType, image.ValueType = "SELECTED FROM", "IMAGE"
        image.ReferencedSOPSequence = [Dataset()]
        image.ReferencedSOPSequence[0].ReferencedSOPClassUID = ct.SOPClassUID
        image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = ct.SOPInstanceUID
        image.ReferencedSOPSequence[0].ReferencedFrameNumber = frame + 1
        for _, item in walk(dataset):
            if item.get("ValueType") == "SCOORD3D":
                item.ValueType = "SCOORD"
                del item.ReferencedFrameOfReferenceUID
                item.GraphicData = [i + 0.5, j + 0.5]
                item.ContentSequence = [image]

    ct = pydicom.dcmread(ct_file, stop_before_pixels=True)
    write_sr(tmp_path / "sr.dcm", [ct_file], scene.lesions[:1], style="point", edit=outline)
    _, found = cases([tmp_path])
    (seed,) = found[ct.SeriesInstanceUID].seeds
    assert seed.position_mm == pytest.approx(geometry.to_lps([(i, j, frame)])[0], abs=1e-3)


def walk(dataset):
    for item in dataset.get("ContentSequence", ()):
        yield dataset, item
        yield from walk(item)


def test_a_report_without_a_place_is_listed(study, tmp_path):
    folder = only(study, tmp_path / "in", "seg.dcm", "sr.dcm")
    report = pydicom.dcmread(folder / "sr.dcm")
    del report.ContentSequence
    report.save_as(folder / "sr.dcm")
    worklist, found = cases([folder])
    assert kinds(found[study.series_uid]) == ["seg"] * 3
    assert [verdict.error.code for verdict in worklist.verdicts] == ["report_invalid"]
    _, found = cases([folder], seed_kinds=("sr",))
    assert found[report.SOPInstanceUID].error.code == "report_invalid"


def test_points_named_after_a_series(study, tmp_path):
    folder = only(study, tmp_path / "in")
    points = [lesion.centre_mm for lesion in study.scene.lesions]
    write_centroids(folder / f"{study.series_uid}.json", points, ["a", "b", "c"])
    write_centroids(folder / "1.2.3.4.json", points[:1], ["a"])
    worklist, found = cases([folder], seed_kinds=("points",))
    assert [seed.position_mm for seed in found[study.series_uid].seeds] == points
    assert found["1.2.3.4.json"].error.code == "series_absent"
    worklist, found = cases([folder])  # a JSON file may be anything unless it is asked for
    assert found[study.series_uid].error.code == "no_seeds"
    assert len(worklist.skipped) == 2


def test_points_of_no_series_go_to_the_only_volume(study, tmp_path):
    write_markups(tmp_path / "F.mrk.json", [study.scene.lesions[0].centre_mm])
    _, found = cases([study.folder], tmp_path / "F.mrk.json")
    assert kinds(found[study.series_uid]) == ["markup"]


def test_points_that_might_belong_to_either_volume(study, tmp_path):
    other = write_study(tmp_path / "other", "other", seed=5)
    write_markups(tmp_path / "F.mrk.json", [study.scene.lesions[0].centre_mm])
    _, found = cases([study.folder, other.folder], tmp_path / "F.mrk.json")
    assert found["F.mrk.json"].error.code == "series_ambiguous"


def test_a_json_table_is_no_point_file(study, tmp_path):
    x, y, z = study.scene.lesions[0].centre_mm
    rows = [{"coordX": x, "coordY": y, "coordZ": z, "series_uid": study.series_uid}] * 2
    (tmp_path / "seeds.json").write_text("\n".join(map(json.dumps, rows)))
    _, found = cases([study.folder], tmp_path / "seeds.json")
    assert kinds(found[study.series_uid]) == ["table"] * 2


def test_a_mask_of_a_volume(study, tmp_path):
    write_volume(tmp_path / "ct.nii.gz", study.scene)
    write_mask(tmp_path / "mask.nrrd", study.scene)
    _, found = cases([tmp_path / "ct.nii.gz"], tmp_path / "mask.nrrd")
    assert [lesion.lesion_id for lesion in found["ct.nii.gz"].seeds] == [
        "label-1",
        "label-2",
        "label-3",
    ]


def test_seeds_that_are_nothing_of_the_kind(study, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputNotFoundError, match="name one of those"):
        cases([study.folder], tmp_path / "notes.txt")
    with pytest.raises(InputNotFoundError, match="does not exist"):
        cases([study.folder], tmp_path / "absent.csv")
    with pytest.raises(InputNotFoundError, match=r"cannot be looked at \(File name too long\); co"):
        cases([study.folder], tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    "wrong",
    [
        {"per": "lesion"},
        {"profile": "other"},
        {"seed_kinds": ("seg", "nix")},
        {"seg_threshold": 0.0},
        {"seg_threshold": float("nan")},
        {"min_volume_mm3": -1.0},
        {"batch_size": 0},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(SettingInvalidError):
        Settings(**wrong)
