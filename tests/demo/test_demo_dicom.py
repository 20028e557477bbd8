"""Phantom files judged by others: dciodvfy, SimpleITK, highdicom and pydicom."""

import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless
from tools import require_tool

from oncofm.demo.dicom import ct_geometry, write_ct_series, write_localizer
from oncofm.demo.encode import TRANSFER_SYNTAXES
from oncofm.demo.enhanced import write_enhanced_ct
from oncofm.demo.phantom import chest_scene, regular_geometry, sample_scene, slice_points_mm
from oncofm.demo.segmentation import lesion_segments, write_seg
from oncofm.demo.study import write_demo_study

OBLIQUE = np.array([[0.8, 0.6, 0.0], [-0.48, 0.64, 0.6], [0.36, -0.48, 0.8]])
FLIPPED = np.diag([-1.0, -1.0, 1.0])
SMALL = {"shape": (40, 32, 7), "spacing_mm": (5.0, 6.0, 8.0)}


def assert_valid(path: Path) -> None:
    done = subprocess.run(
        [require_tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if "Error" in line or "Abort" in line] == []


@pytest.mark.parametrize("transfer_syntax", TRANSFER_SYNTAXES, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("signed", [False, True])
def test_every_transfer_syntax_decodes_to_the_scene(tmp_path, transfer_syntax, signed):
    scene = chest_scene()
    files = write_ct_series(
        tmp_path, scene, transfer_syntax=transfer_syntax, signed=signed, **SMALL
    )
    datasets = [pydicom.dcmread(file) for file in files]
    assert {dataset.file_meta.TransferSyntaxUID for dataset in datasets} == {transfer_syntax}
    hu = np.stack([dataset.pixel_array - 1024.0 for dataset in datasets])
    assert np.array_equal(hu, sample_scene(scene, ct_geometry(scene, **SMALL)))
    if transfer_syntax != DeflatedExplicitVRLittleEndian:  # dciodvfy cannot inflate
        assert_valid(files[0])


@pytest.mark.parametrize("direction", [np.eye(3), FLIPPED, OBLIQUE, -OBLIQUE])
def test_simpleitk_reads_the_geometry_asked_for(tmp_path, direction):
    scene = chest_scene()
    centre_mm = (-400.0, 31.5, 912.25)
    files = write_ct_series(tmp_path, scene, direction=direction, centre_mm=centre_mm, **SMALL)
    image = sitk.ReadImage([str(file) for file in files])
    geometry = regular_geometry(SMALL["shape"], SMALL["spacing_mm"], centre_mm, direction)
    assert image.GetSize() == SMALL["shape"]
    assert image.GetSpacing() == pytest.approx(SMALL["spacing_mm"])
    assert image.GetOrigin() == pytest.approx(geometry.origins_mm[0], abs=1e-6)
    # SimpleITK's third axis follows the files, whichever side of the slices they climb
    assert np.reshape(image.GetDirection(), (3, 3)) == pytest.approx(direction, abs=1e-9)
    middle = [(size - 1) / 2 for size in image.GetSize()]
    assert image.TransformContinuousIndexToPhysicalPoint(middle) == pytest.approx(centre_mm)


def test_slices_lie_where_they_are_put(tmp_path):
    scene = chest_scene()
    origins_mm = ct_geometry(scene, **SMALL).origins_mm.copy()
    origins_mm[:, 1] += 0.3 * (origins_mm[:, 2] - origins_mm[0, 2])  # gantry tilt
    origins_mm[4:, 2] += 8.0  # a missing slice
    files = write_ct_series(tmp_path, scene, slice_origins_mm=origins_mm, **SMALL)
    read_mm = [pydicom.dcmread(file).ImagePositionPatient for file in files]
    assert np.array(read_mm, dtype=float) == pytest.approx(origins_mm)
    geometry = ct_geometry(scene, slice_origins_mm=origins_mm, **SMALL)
    assert slice_points_mm(geometry, 5)[0, 0] == pytest.approx(origins_mm[5])
    stored = pydicom.dcmread(files[5]).pixel_array
    assert np.array_equal(stored - 1024.0, sample_scene(scene, geometry)[5])


def test_rescale_is_written_and_undone(tmp_path):
    scene = chest_scene()
    files = write_ct_series(tmp_path, scene, slope=0.5, intercept=-1100.25, signed=True, **SMALL)
    image = sitk.GetArrayFromImage(sitk.ReadImage([str(file) for file in files]))
    assert np.abs(image - sample_scene(scene, ct_geometry(scene, **SMALL))).max() <= 0.25


def test_the_hook_edits_one_file(tmp_path):
    def drop_position(dataset, index):
        if index == 2:
            del dataset.ImagePositionPatient

    files = write_ct_series(tmp_path, chest_scene(), edit=drop_position, **SMALL)
    has = ["ImagePositionPatient" in pydicom.dcmread(file) for file in files]
    assert has == [True, True, False, True, True, True, True]


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, JPEGLSLossless])
def test_enhanced_ct_is_valid_and_holds_the_scene(tmp_path, transfer_syntax):
    scene = chest_scene()
    path = write_enhanced_ct(
        tmp_path / "enhanced.dcm",
        scene,
        direction=OBLIQUE,
        transfer_syntax=transfer_syntax,
        slope=2.0,
        **SMALL,
    )
    assert_valid(path)
    volume = highdicom.imread(path).get_volume(apply_real_world_transform=False)
    geometry = ct_geometry(scene, direction=OBLIQUE, **SMALL)
    expected = sample_scene(scene, geometry)
    first_mm = volume.affine @ (0, 0, 0, 1)
    if not np.allclose(first_mm[:3], geometry.origins_mm[0]):
        assert first_mm[:3] == pytest.approx(geometry.origins_mm[-1])
        expected = expected[::-1]
    assert np.abs(volume.array - expected).max() <= 1
    assert volume.spacing == pytest.approx(SMALL["spacing_mm"][::-1])


def test_writing_twice_gives_the_same_bytes(tmp_path):
    scene = chest_scene()
    for name in ("one", "two"):
        folder = tmp_path / name
        files = write_ct_series(folder / "ct", scene, **SMALL)
        segments = lesion_segments(scene, ct_geometry(scene, **SMALL))
        for kind in ("BINARY", "FRACTIONAL", "LABELMAP"):
            write_seg(folder / f"{kind}.dcm", files, segments, segmentation_type=kind)
        write_localizer(folder / "localizer.dcm", scene)
        write_enhanced_ct(folder / "enhanced.dcm", scene, **SMALL)
    one, two = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.dcm")}
        for name in ("one", "two")
    )
    assert len(one) == 12
    assert one == two


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("own_grid", [False, True])
def test_seg_holds_the_lesions(tmp_path, kind, own_grid):
    scene = chest_scene()
    files = write_ct_series(tmp_path / "ct", scene)
    geometry = ct_geometry(scene)
    if own_grid:
        geometry = regular_geometry((80, 70, 60), (5.0, 4.0, 3.0), scene.centre_mm, OBLIQUE)
    path = write_seg(
        tmp_path / "seg.dcm",
        files,
        lesion_segments(scene, geometry),
        segmentation_type=kind,
        geometry=geometry if own_grid else None,
    )
    if kind != "LABELMAP":  # newer than the validator
        assert_valid(path)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=False)
    for number, lesion in enumerate(scene.lesions):
        indices = np.argwhere(volume.array[..., number] > 0.5)
        centre_mm = volume.map_indices_to_reference(indices).mean(axis=0)
        assert centre_mm == pytest.approx(lesion.centre_mm, abs=1.0)


def test_demo_study_is_small_valid_and_true(tmp_path):
    study = write_demo_study(tmp_path / "study")
    files = [path for path in study.folder.rglob("*") if path.is_file()]
    assert set(files) == {*study.ct_files, study.seg_file, study.localizer_file}
    assert sum(path.stat().st_size for path in files) < 20e6
    for path in (study.ct_files[0], study.ct_files[-1], study.seg_file, study.localizer_file):
        assert_valid(path)
    series_uids = {
        pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID for path in files
    }
    assert len(series_uids) == 3
    volume = highdicom.seg.segread(study.seg_file).get_volume()
    for number, lesion in enumerate(study.lesions):
        indices = np.argwhere(volume.array[..., number])
        centre_mm = volume.map_indices_to_reference(indices).mean(axis=0)
        assert centre_mm == pytest.approx(lesion.centre_mm, abs=0.3)
