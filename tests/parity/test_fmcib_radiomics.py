"""Each workflow against the rows of MHub's ``fmcib_radiomics``, on real scans.

The reference features were computed with upstream's own preprocessing and network, with the
seeded random weights that `seed0_weights` holds.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from mhub_runs import FEATURES, WHAT_ABOUT, WorkflowRun, run_workflow

from oncofm.demo.markups import write_centroid, write_centroids, write_markups
from oncofm.demo.rtstruct import RoiContours, write_rtstruct
from oncofm.demo.segmentation import SegmentMask, write_seg

pytestmark = pytest.mark.slow

PETCT = ["petct_mediastinum", "petct_lung", "petct_first_slice_border"]
LUNG1 = ["lung1", "lung1_near_border"]


@pytest.fixture(scope="module")
def seeds_mm(shared_data) -> dict[str, np.ndarray]:
    """Where upstream was asked to look, LPS mm."""
    table = pd.read_csv(shared_data / "reference" / "seeds.csv", index_col="case")
    return {case: row.to_numpy(float) for case, row in table.iloc[:, 1:].iterrows()}


@pytest.fixture
def run(shared_data, seed0_weights, tmp_path):
    def run(workflow: str) -> WorkflowRun:
        weights = f"modules.FeatureExtractor.weights={seed0_weights}"
        return run_workflow(workflow, tmp_path, weights)

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """One case's folder in the input."""
    folder = tmp_path / "input_data" / "patient-7"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def petct_files(shared_data, tmp_path) -> list[Path]:
    """The real series in the input, feet to head; links, because scans are not copied."""
    input_folder = tmp_path / "input_data"
    input_folder.mkdir()
    (input_folder / "ct").symlink_to(shared_data / "petct_ct")
    (input_folder / "topograms").symlink_to(shared_data / "petct_topograms")
    return sorted((shared_data / "petct_ct").glob("*.dcm"), key=height_mm)


@pytest.fixture
def series_uid(petct_files) -> str:
    return str(pydicom.dcmread(petct_files[0], stop_before_pixels=True).SeriesInstanceUID)


def height_mm(file: Path) -> float:
    header = pydicom.dcmread(file, specific_tags=["ImagePositionPatient"])
    return float(header.ImagePositionPatient[2])


def check(done: WorkflowRun, case_id: str, cases: list[str], shared_data: Path) -> pd.DataFrame:
    """Compare the only table of a run with upstream's features."""
    assert done.code == 0
    assert done.tables() == {case_id}
    table = done.table(case_id)
    assert list(table.columns) == [*(f"feature_{n}" for n in range(4096)), *WHAT_ABOUT]
    assert len(table) == len(cases)
    expected = np.stack([np.load(shared_data / "reference" / f"{case}.npy") for case in cases])
    np.testing.assert_allclose(table[FEATURES].to_numpy(np.float32), expected, rtol=0, atol=1e-4)
    return table


def test_from_slicer(shared_data, seeds_mm, folder, run):
    (folder / "scan.nrrd").symlink_to(shared_data / "lung1/lung1_image.nrrd")
    write_markups(folder / "F.mrk.json", [seeds_mm[case] for case in LUNG1])
    table = check(run("from_slicer"), "patient-7", LUNG1, shared_data)
    assert table["Mhub ROI"].tolist() == [0, 1], "the place in the file, as upstream says it"


def test_from_centroids(shared_data, seeds_mm, folder, run):
    (folder / "CT.nrrd").symlink_to(shared_data / "lung1/lung1_image.nrrd")
    points_mm = [seeds_mm[case] for case in LUNG1]
    write_centroids(folder / "centroids.json", points_mm, ["GTV-1", "GTV-2"])
    table = check(run("from_centroids"), "patient-7", LUNG1, shared_data)
    assert table["Mhub ROI"].tolist() == ["GTV-1", "GTV-2"]


def test_from_centroids_with_a_single_point(shared_data, seeds_mm, folder, run):
    (folder / "CT.nrrd").symlink_to(shared_data / "lung1/lung1_image.nrrd")
    write_centroid(folder / "centroids.json", seeds_mm["lung1"])
    table = check(run("from_centroids"), "patient-7", ["lung1"], shared_data)
    assert table["Mhub ROI"].tolist() == [0]


def test_from_nifti_mask(shared_data, folder, run):
    image = sitk.ReadImage(str(shared_data / "lung1/lung1_image.nrrd"))
    mask = sitk.ReadImage(str(shared_data / "lung1/lung1_label.nrrd"))
    (folder / "masks").mkdir()
    sitk.WriteImage(image, str(folder / "CT.nii.gz"))
    sitk.WriteImage(mask, str(folder / "masks" / "GTV.nii.gz"))
    check(run("from_nifti_mask"), "patient-7", ["lung1"], shared_data)


def test_from_json(shared_data, seeds_mm, petct_files, series_uid, tmp_path, run):
    points_mm = [seeds_mm[case] for case in PETCT]
    write_centroids(tmp_path / "input_data" / f"{series_uid}.json", points_mm, PETCT)
    table = check(run("from_json"), series_uid, PETCT, shared_data)
    assert table["Mhub ROI"].tolist() == PETCT


@pytest.mark.filterwarnings("ignore:The string:UserWarning")  # the scan's patient name
def test_default(shared_data, seeds_mm, petct_files, series_uid, tmp_path, run):
    first = pydicom.dcmread(petct_files[0], stop_before_pixels=True)
    segments = [SegmentMask(case, blob(first, len(petct_files), seeds_mm[case])) for case in PETCT]
    write_seg(tmp_path / "input_data" / "seg.dcm", petct_files, segments)
    done = run("default")
    table = check(done, series_uid, PETCT, shared_data)
    assert table["Mhub ROI"].tolist() == PETCT
    # Within what a mask on the voxels of the CT can say.
    expected_mm = [seeds_mm[case] for case in PETCT]
    np.testing.assert_allclose(done.seeds_mm(), expected_mm, atol=0.25)


def test_from_rtstruct(shared_data, seeds_mm, petct_files, series_uid, tmp_path, run):
    heights_mm = [height_mm(file) for file in petct_files]
    rois = [RoiContours(case, squares_mm(heights_mm, seeds_mm[case])) for case in PETCT]
    write_rtstruct(tmp_path / "input_data" / "rtstruct.dcm", petct_files, rois)
    done = run("from_rtstruct")
    table = check(done, series_uid, PETCT, shared_data)
    assert table["Mhub ROI"].tolist() == PETCT
    expected_mm = [seeds_mm[case] for case in PETCT]
    np.testing.assert_allclose(done.seeds_mm(), expected_mm, atol=1e-3)


def blob(first_slice: pydicom.Dataset, n_slices: int, seed_mm: np.ndarray) -> np.ndarray:
    """Mask whose centroid is the seed, to a quarter of a voxel in the plane.

    All seeds of the series lie nine tenths of the way from a slice to the next, so nine times
    the voxels are drawn on the upper one.
    """
    row_mm, column_mm = map(float, first_slice.PixelSpacing)
    offset_mm = seed_mm - np.array(first_slice.ImagePositionPatient, float)
    i, j, k = offset_mm / (column_mm, row_mm, 5.0)
    assert k % 1 == pytest.approx(0.9)
    mask = np.zeros((n_slices, first_slice.Rows, first_slice.Columns), bool)
    for slice_index, times in ((int(k), 1), (int(k) + 1, 3)):
        mask[slice_index, around(j, times), around(i, times)] = True
    return mask


def around(index: float, times: int) -> slice:
    """Take 1 voxel, or 2 where the half between them is nearer, or `times` as many."""
    halves = round(2 * index)
    width = times * (1 + halves % 2)
    return slice((halves - width + 1) // 2, (halves - width + 1) // 2 + width)


def squares_mm(heights_mm: list[float], seed_mm: np.ndarray) -> list[np.ndarray]:
    """Squares around the seed on the slices below and above it, nine times as large above."""
    lower = int(np.searchsorted(heights_mm, seed_mm[2])) - 1
    assert seed_mm[2] - heights_mm[lower] == pytest.approx(0.9 * 5)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return [
        np.column_stack([seed_mm[:2] + half_mm * corners, np.full(4, heights_mm[index])])
        for index, half_mm in ((lower, 2.0), (lower + 1, 6.0))
    ]
