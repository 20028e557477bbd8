"""One lesion, said in every way there is, on straight, flipped and oblique scans: one answer.

Nothing here is symmetric: the chest, the three radii of the lesion, the three spacings, and the
lesion's place away from the middle of the scan, which is away from the origin.

The features are compared to 1e-4 although the profile ``mhub`` cuts the seed off to whole
millimetres of a grid of its own: the lesion lies in the middle of a cell of that grid, so seeds
that scatter by less than half a millimetre give the same patch; a test makes sure. It also lies
on a voxel, so that masks of it are symmetric and their centroids exact, and pictures of it agree
to the grey level; `test_seeds_agree_for_a_lesion_between_voxels` is about the other ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from PIL import Image

from oncofm import extract_features
from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.markups import write_markups
from oncofm.demo.phantom import Lesion, Scene, chest_scene, hu_at, lesion_mask, sample_scene
from oncofm.demo.report import write_sr
from oncofm.demo.rtstruct import lesion_contours, write_rtstruct
from oncofm.demo.segmentation import lesion_segments, write_seg
from oncofm.imaging.geometry import Geometry
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.volume_file import VolumeFile
from oncofm.results.overlay_drawing import PANEL_PX, PANELS_TOP_PX, panel_corner_px

SHAPE, SPACING_MM = (120, 90, 64), (1.7, 2.3, 3.1)
LESION = Lesion("target", (-70.3, -116.7, -193.6), (7.5, 12.0, 16.0), 250.0)
SCENE = replace(chest_scene(0, centre_mm=(14.0, -95.0, -230.0)), lesions=(LESION,))
HALF_A_CELL_MM = 0.44
DASHED_BOX = (255, 140, 60)
FLIPPED = -np.eye(3)


def rotation(axis: Sequence[float], degrees: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


GRIDS = {
    # Directions of the scan, and the voxel that the lesion lies on.
    "axial": (np.eye(3), (74, 54, 25)),
    "prone, head first": (FLIPPED, (45, 35, 38)),
    "oblique": (rotation((1, 2, 3), 25), (83, 31, 35)),
}


@dataclass(frozen=True)
class Scan:
    """The phantom on one grid: the volume in three formats, the lesion in eight ways."""

    folder: Path
    scene: Scene
    geometry: Geometry

    @property
    def ways(self) -> dict[str, list[Path | str]]:
        """Arguments of ``oncofm run`` and ``oncofm seeds`` up to the output."""
        ct = self.folder / "ct"
        return {
            "seg": [ct, self.folder / "seg", "--from", "seg"],
            "rtstruct": [ct, self.folder / "rtstruct", "--from", "rtstruct"],
            "nifti": [self.folder / "ct.nii.gz", "--seeds", self.folder / "mask.nii.gz"],
            "nrrd": [self.folder / "ct.nrrd", "--seeds", self.folder / "mask.nrrd"],
            "ras": [ct, "--seeds", self.folder / "ras.mrk.json"],
            "lps": [ct, "--seeds", self.folder / "lps.mrk.json"],
            "sr point": [ct, self.folder / "sr-point", "--from", "sr"],
            "sr segment": [ct, self.folder / "sr-segment", "--from", "sr"],
        }


WAYS = ("seg", "rtstruct", "nifti", "nrrd", "ras", "lps", "sr point", "sr segment")
WAYS_WITHOUT_EXTENT = {"ras", "lps", "sr point"}


def write_scan(folder: Path, grid: str, shift_mm: Sequence[float] = (0, 0, 0)) -> Scan:
    """Write everything; `shift_mm` moves the lesion off its voxel."""
    direction, voxel = GRIDS[grid]
    offset = np.array(voxel) - (np.array(SHAPE) - 1) / 2
    placed = {
        "shape": SHAPE,
        "spacing_mm": SPACING_MM,
        "direction": direction,
        "centre_mm": tuple(LESION.centre_mm - direction * SPACING_MM @ offset),
    }
    moved_mm = tuple((np.array(LESION.centre_mm) + shift_mm).tolist())
    scene = replace(SCENE, lesions=(replace(LESION, centre_mm=moved_mm),))
    geometry = ct_geometry(scene, **placed)
    ct_files = write_ct_series(folder / "ct", scene, **placed, uid_seed=grid)

    segments = lesion_segments(scene, geometry)
    write_seg(folder / "seg" / "seg.dcm", ct_files, segments, uid_seed=f"{grid}/seg")
    # Contours are axial whichever way the scan is.
    axial = ct_geometry(scene, SHAPE, SPACING_MM, centre_mm=LESION.centre_mm)
    axial = replace(axial, origins_mm=axial.origins_mm + np.array([0, 0, SPACING_MM[2] / 2]))
    contours = lesion_contours(scene, axial)
    (folder / "rtstruct").mkdir()
    write_rtstruct(folder / "rtstruct" / "rt.dcm", ct_files, contours, uid_seed=f"{grid}/rt")
    voxels = sample_scene(scene, geometry).astype(np.int16)
    mask = lesion_mask(scene.lesions[0], geometry).astype(np.uint8)
    for suffix in ("nii.gz", "nrrd"):
        write_image(folder / f"ct.{suffix}", voxels, geometry)
        write_image(folder / f"mask.{suffix}", mask, geometry)
    for system in ("RAS", "LPS"):
        path = folder / f"{system.lower()}.mrk.json"
        write_markups(path, [moved_mm], coordinate_system=system)
    sr_segment = folder / "sr-segment"
    seg = write_seg(sr_segment / "seg.dcm", ct_files, segments, uid_seed=f"{grid}/seg")
    write_sr(sr_segment / "sr.dcm", ct_files, scene.lesions, style="segment", seg_file=seg)
    write_sr(folder / "sr-point" / "sr.dcm", ct_files, scene.lesions, style="point")
    return Scan(folder, scene, geometry)


def write_image(path: Path, voxels: np.ndarray, geometry: Geometry) -> None:
    steps_mm = geometry.affine[:3, :3]
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING_MM)
    image.SetDirection((steps_mm / SPACING_MM).ravel().tolist())
    image.SetOrigin(geometry.origins_mm[0].tolist())
    sitk.WriteImage(image, str(path))


@pytest.fixture(scope="module", params=GRIDS)
def scan(request, tmp_path_factory) -> Scan:
    folder = tmp_path_factory.mktemp(request.param.split(",")[0])
    return write_scan(folder, request.param)


@pytest.fixture
def find_seeds(cli, tmp_path) -> Callable[..., pd.Series]:
    """Run ``oncofm seeds``; its only row."""

    def find(scan: Scan, way: str, *more: object) -> pd.Series:
        table = tmp_path / f"{way}.csv"
        done = cli("seeds", *scan.ways[way], *more, "-o", table)
        assert done.code == 0, done.stderr
        found = pd.read_csv(table)
        assert len(found) == 1
        return found.iloc[0]

    return find


def position_mm(row: pd.Series) -> np.ndarray:
    return np.array([row["coordX"], row["coordY"], row["coordZ"]], float)


def test_the_lesion_lies_in_the_middle_of_a_cell(scan):
    """No seed within `HALF_A_CELL_MM` on any axis gives another patch."""
    volume = VolumeFile(scan.folder / "ct.nrrd")
    x, y, z = LESION.centre_mm
    patch = sample_patch(volume, (x, y, z), PatchSpec()).voxels
    for axis in range(3):
        for offset_mm in (-HALF_A_CELL_MM, HALF_A_CELL_MM):
            shifted = np.array([x, y, z])
            shifted[axis] += offset_mm
            again = sample_patch(volume, tuple(shifted.tolist()), PatchSpec()).voxels
            np.testing.assert_array_equal(again, patch)


def test_every_way_gives_the_true_seed_and_the_true_size(scan, find_seeds):
    assert set(scan.ways) == set(WAYS)
    for way in WAYS:
        row = find_seeds(scan, way)
        np.testing.assert_allclose(position_mm(row), LESION.centre_mm, atol=0.02, err_msg=way)
        extent_mm = np.array([row[f"extent_{axis}_mm"] for axis in "xyz"], float)
        if way in WAYS_WITHOUT_EXTENT:
            assert np.isnan(extent_mm).all(), way
        else:
            # A voxel more or less; an oblique voxel is up to 4.2 mm across.
            expected_mm = 2 * np.array(LESION.radii_mm)
            np.testing.assert_allclose(extent_mm, expected_mm, atol=4.2, err_msg=way)
            assert extent_mm[0] < extent_mm[1] < extent_mm[2]


@pytest.mark.parametrize("grid", ["axial", "oblique"])
def test_seeds_agree_for_a_lesion_between_voxels(grid, tmp_path, find_seeds):
    shift_mm = (0.31, -0.87, 1.23)
    scan = write_scan(tmp_path / "scan", grid, shift_mm)
    truth_mm = np.array(LESION.centre_mm) + shift_mm
    found_mm = {way: position_mm(find_seeds(scan, way)) for way in WAYS}
    for way, seed_mm in found_mm.items():
        assert np.linalg.norm(seed_mm - truth_mm) < 0.5, way


def test_every_way_gives_the_same_features(scan, cli, tmp_path):
    features = {}
    for way in WAYS:
        done = cli("run", *scan.ways[way], tmp_path / way)
        assert done.code == 0, done.stderr
        assert len(done.features) == 1
        features[way] = done.features.filter(like="pred_").to_numpy(np.float32)[0]
    for way in WAYS:
        np.testing.assert_allclose(features[way], features["lps"], atol=1e-4, err_msg=way)
    assert np.ptp(features["lps"]) > 0.3, "the patch shows something"


def test_the_patch_is_the_scene_around_the_lesion(scan):
    """Not only the same, but right: seen with the left to the right and the head up."""
    x, y, z = LESION.centre_mm
    volume = VolumeFile(scan.folder / "ct.nrrd")
    patch = sample_patch(volume, (x, y, z), PatchSpec()).voxels[0] * 3072 - 1024
    truth = ct_geometry(SCENE, (50, 50, 50), (1.0, 1.0, 1.0), centre_mm=(x - 0.5, y - 0.5, z - 0.5))
    expected = sample_scene(SCENE, truth)
    right = np.corrcoef(patch.ravel(), expected.ravel())[0, 1]
    assert right > 0.9
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        assert np.corrcoef(np.flip(patch, axes).ravel(), expected.ravel())[0, 1] < right - 0.05
    for axes in ((0, 2, 1), (2, 1, 0), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
        turned = patch.transpose(axes)
        assert np.corrcoef(turned.ravel(), expected.ravel())[0, 1] < right - 0.05


@pytest.mark.slow
def test_every_way_gives_the_same_features_of_the_network(scan, find_seeds, seed0_weights):
    """The tables of ``oncofm seeds`` are seed tables."""
    table = pd.DataFrame([find_seeds(scan, way) for way in WAYS])
    table["lesion_id"] = WAYS
    columns = ["image_path", "lesion_id", "coordX", "coordY", "coordZ"]
    features = extract_features(table.filter(columns).reset_index(drop=True), seed0_weights)
    assert features["state"].tolist() == ["done"] * len(WAYS)
    vectors = features.filter(like="pred_").to_numpy(np.float32)
    np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], vectors.shape), atol=1e-4)


# --- pictures -----------------------------------------------------------------------------


def overlay(row: pd.Series) -> np.ndarray:
    return np.asarray(Image.open(str(row["overlay"])).convert("RGB")).astype(int)


def panels_of(picture: np.ndarray) -> np.ndarray:
    """Without the texts above and below."""
    return picture[PANELS_TOP_PX : PANELS_TOP_PX + PANEL_PX]


def is_grey(picture: np.ndarray) -> np.ndarray:
    """Pixels of the image itself: marks are coloured; letters are grey too, and alike."""
    return np.ptp(picture, axis=-1) == 0


def has_dashed_box(picture: np.ndarray) -> bool:
    """Whether the panels hold pixels in the colour of a lesion's box."""
    return bool((panels_of(picture) == DASHED_BOX).all(axis=-1).any())


def test_every_way_gives_the_same_picture(scan, find_seeds, tmp_path):
    pictures = {
        way: overlay(find_seeds(scan, way, "--overlay", tmp_path / f"pictures {way}"))
        for way in WAYS
    }
    reference = panels_of(pictures["lps"])
    for way, picture in pictures.items():
        panels = panels_of(picture)
        both = is_grey(panels) & is_grey(reference)
        assert both.mean() > 0.9, way
        assert np.abs(panels - reference)[both].max() <= 2, way
        assert has_dashed_box(picture) == (way not in WAYS_WITHOUT_EXTENT), way


def test_the_picture_shows_the_scene_the_right_way_round(scan, find_seeds, tmp_path):
    """Panels as a radiologist expects them, against the scene itself, a sample every 2 mm."""
    picture = overlay(find_seeds(scan, "seg", "--overlay", tmp_path / "pictures"))
    offsets_mm = np.arange(-59.0, 60.0, 2.0)
    x, y, z = LESION.centre_mm
    planes = {
        # (across, down) -> x, y, z: right on the left, front above; head above; front left.
        "axial": lambda a, d: (x + a, y + d, z + 0 * a),
        "coronal": lambda a, d: (x + a, y + 0 * a, z - d),
        "sagittal": lambda a, d: (x + 0 * a, y + a, z - d),
    }
    for number, points_mm in enumerate(planes.values()):
        across_mm, down_mm = np.meshgrid(offsets_mm, offsets_mm)
        hu = hu_at(SCENE, np.stack(points_mm(across_mm, down_mm), axis=-1))
        expected = np.clip((hu + 1000) / 1400 * 255, 0, 255)
        left, top = panel_corner_px(number)
        px = np.round((offsets_mm + 60) * 4).astype(int)  # 0.25 mm each
        shown = picture[top + px[:, None], left + px[None, :]]
        grey = is_grey(shown)
        right = np.corrcoef(shown[..., 0][grey], expected[grey])[0, 1]
        assert right > 0.85
        for turned in (expected[::-1], expected[:, ::-1], expected.T):
            assert np.corrcoef(shown[..., 0][grey], turned[grey])[0, 1] < right - 0.1
