"""The phantom's structure set judged by others."""

import subprocess

import numpy as np
import pydicom
import pytest
from tools import require_tool

from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.phantom import chest_scene
from oncofm.demo.rtstruct import RoiContours, lesion_contours, write_rtstruct

GRID = {"shape": (24, 20, 30), "spacing_mm": (15.0, 15.0, 4.0)}


@pytest.fixture(scope="module")
def scene():
    return chest_scene(centre_mm=(5.0, -90.0, 300.0))


@pytest.fixture(scope="module")
def files(scene, tmp_path_factory):
    return write_ct_series(tmp_path_factory.mktemp("ct"), scene, **GRID)


def test_it_is_valid_and_reproducible(scene, files, tmp_path):
    rois = lesion_contours(scene, ct_geometry(scene, **GRID))
    rois.append(RoiContours("point", [np.array([[1.0, 2.0, 3.0]])], "POINT"))
    rois.append(RoiContours("nothing", []))
    path = write_rtstruct(tmp_path / "a.dcm", files, rois)
    done = subprocess.run(
        [require_tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if "Error" in line or "Abort" in line] == []
    assert write_rtstruct(tmp_path / "b.dcm", files, rois).read_bytes() == path.read_bytes()


def test_contours_lie_on_the_lesions_and_on_the_slices_they_name(scene, files, tmp_path):
    rois = lesion_contours(scene, ct_geometry(scene, **GRID))
    dataset = pydicom.dcmread(write_rtstruct(tmp_path / "a.dcm", files, rois))
    heights = {
        image.SOPInstanceUID: float(image.ImagePositionPatient[2])
        for image in (pydicom.dcmread(file, stop_before_pixels=True) for file in files)
    }
    for lesion, item in zip(scene.lesions, dataset.ROIContourSequence, strict=True):
        assert len(item.ContourSequence) == pytest.approx(lesion.radii_mm[2] / 2, abs=1)
        for contour in item.ContourSequence:
            points_mm = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            assert len(points_mm) == contour.NumberOfContourPoints
            distances = np.sum(((points_mm - lesion.centre_mm) / lesion.radii_mm) ** 2, axis=1)
            assert distances == pytest.approx(1, abs=1e-6)
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            assert points_mm[:, 2] == pytest.approx(heights[uid])
