"""Overlays against SimpleITK's resampling, and against markers whose place is known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from imaging.volumes import ArrayVolume, noise, sitk_affine, sitk_image
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

import oncofm
from oncofm.demo.dicom import write_ct_series
from oncofm.demo.phantom import Lesion, Scene, regular_geometry, sample_scene
from oncofm.errors import OutputNotWritableError, SeedOutsideVolumeError, SliceUndecodableError
from oncofm.imaging.dicom_series import ct_volumes
from oncofm.imaging.geometry import Geometry
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.scan import scan_dicom
from oncofm.imaging.volume import Volume
from oncofm.imaging.volume_file import VolumeFile
from oncofm.results.overlay import draw_overlay
from oncofm.results.overlay_drawing import PLANES, panel_corner_px
from oncofm.seeds.seed import Seed, SeedSource

N, PX_MM = 480, 0.25
AXIAL, CORONAL, SAGITTAL = 0, 1, 2
VIEWS = {
    AXIAL: ((1, 0, 0), (0, 1, 0)),
    CORONAL: ((1, 0, 0), (0, 0, -1)),
    SAGITTAL: ((0, 1, 0), (0, 0, -1)),
}
"""Where the right and the lower edge of each panel point, in LPS."""

RAS, FEET_FIRST = np.diag([-1.0, -1.0, 1.0]), np.diag([1.0, 1.0, -1.0])
PERMUTED = np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]])
OBLIQUE = Rotation.from_euler("xyz", [17, -23, 41], degrees=True).as_matrix()
SHAPE = (90, 80, 44)

CUBE_RGB, SEED_RGB, LESION_RGB = (86, 180, 233), (255, 225, 50), (255, 140, 60)
HATCH_RGB = ((40, 36, 74), (84, 76, 140))


def seed_at(position_mm, extent_mm=None, lesion_id="segment-1") -> Seed:
    x, y, z = (float(value) for value in position_mm)
    return Seed(lesion_id, (x, y, z), SeedSource("table"), extent_mm)


def panels_of(path: Path) -> list[np.ndarray]:
    pixels = np.asarray(Image.open(path))
    corners = [panel_corner_px(number) for number in VIEWS]
    return [pixels[top : top + N, left : left + N].astype(int) for left, top in corners]


def drawn(volume: Volume, seed: Seed, tmp_path: Path) -> list[np.ndarray]:
    draw_overlay(volume, seed, tmp_path / "overlay.png")
    return panels_of(tmp_path / "overlay.png")


def grey_of(hu: np.ndarray) -> np.ndarray:
    return np.clip((hu + 1000) / 1400 * 255, 0, 255)


def unmarked() -> np.ndarray:
    """Pixels that no mark without a lesion box touches, with a margin."""
    free = np.ones((N, N), bool)
    for edge in (140, 340):
        free[136:344, edge - 4 : edge + 4] = free[edge - 4 : edge + 4, 136:344] = False
    free[236:244, 210:270] = free[210:270, 236:244] = False  # cross hair
    free[220:260, :32] = free[220:260, -32:] = free[:32, 220:260] = free[-32:, 220:260] = False
    free[-50:, :110] = False  # scale bar
    return free


def is_hatched(panel: np.ndarray) -> np.ndarray:
    return (panel == HATCH_RGB[0]).all(axis=-1) | (panel == HATCH_RGB[1]).all(axis=-1)


def assert_shows(panel: np.ndarray, hu: np.ndarray, inside: np.ndarray) -> None:
    free = unmarked()
    np.testing.assert_array_equal(is_hatched(panel)[free], ~inside[free])
    seen = panel[free & inside]
    assert (seen == seen[:, :1]).all()
    assert np.abs(seen[:, 0] - grey_of(hu)[free & inside]).max() <= 1


def points_of(number: int, seed_mm: np.ndarray) -> np.ndarray:
    right, down = np.array(VIEWS[number], dtype=float)
    offset_mm = (np.arange(N) - (N - 1) / 2) * PX_MM
    return seed_mm + offset_mm[None, :, None] * right + offset_mm[:, None, None] * down


def itk_plane(image: sitk.Image, number: int, seed_mm: np.ndarray) -> tuple[np.ndarray, ...]:
    """Hounsfield units and inside, as ITK resamples the whole volume onto the plane."""
    right, down = np.array(VIEWS[number], dtype=float)
    plane = sitk.Image(N, N, 1, sitk.sitkFloat32)
    plane.SetSpacing((PX_MM, PX_MM, 1.0))
    plane.SetOrigin(points_of(number, seed_mm)[0, 0].tolist())
    plane.SetDirection(np.stack([right, down, np.cross(right, down)], axis=1).ravel().tolist())

    def resampled(source: sitk.Image) -> np.ndarray:
        result = sitk.Resample(
            sitk.Cast(source, sitk.sitkFloat32), plane, sitk.Transform(), sitk.sitkLinear, -5000.0
        )
        return sitk.GetArrayFromImage(result)[0]

    return resampled(image), resampled(image * 0) == 0


# --- the grey values ----------------------------------------------------------------------

GRIDS = {
    "identity": (np.eye(3), (0.97, 0.88, 2.5)),
    "feet first": (FEET_FIRST, (1.5, 1.5, 3.0)),
    "stored as RAS": (RAS, (0.7, 1.3, 2.2)),
    "permuted": (PERMUTED, (1.4, 0.9, 1.2)),
    "oblique": (OBLIQUE, (1.2, 1.1, 2.6)),
}
PLACES = {"middle": (0.5, 0.5, 0.5), "first corner": (0.01, 0.03, 0.02), "last": (0.4, 0.99, 0.98)}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRIDS)
def test_panels_equal_simpleitk_on_the_whole_volume(name, place, tmp_path):
    directions, spacing_mm = GRIDS[name]
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing_mm
    affine[:3, 3] = (-57.13, 112.29, -603.41)
    image = sitk_image(noise(SHAPE), affine)
    sitk.WriteImage(image, tmp_path / "scan.nii")
    volume = VolumeFile(tmp_path / "scan.nii")
    index = (np.array(SHAPE) - 1) * PLACES[place]
    seed_mm = affine[:3, :3] @ index + affine[:3, 3] + 0.013

    stored = sitk.ReadImage(tmp_path / "scan.nii")
    for number, panel in enumerate(drawn(volume, seed_at(seed_mm), tmp_path)):
        assert_shows(panel, *itk_plane(stored, number, seed_mm))
    np.testing.assert_allclose(sitk_affine(stored), affine, atol=1e-4)


def test_tilted_gantry(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, np.cos(0.3), 0], [0, np.sin(0.3), 1]]) * (1.2, 1, 2.5)
    affine[:3, 3] = (10, 20, 30)
    hu, seed_mm = noise(SHAPE), affine[:3, :3] @ (44.2, 38.7, 19.3) + affine[:3, 3]
    volume = ArrayVolume(hu, Geometry.from_affine(affine, SHAPE))
    for number, panel in enumerate(drawn(volume, seed_at(seed_mm), tmp_path)):
        index = (points_of(number, seed_mm) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        truth = map_coordinates(
            hu.astype(float), index[..., ::-1].transpose(2, 0, 1), order=1, mode="nearest"
        )
        inside = ((index >= -0.5) & (index < np.array(SHAPE) - 0.5)).all(axis=-1)
        assert_shows(panel, truth, inside)


def ramp_volume(z_mm: np.ndarray) -> ArrayVolume:
    """Density that rises along every axis, so that any linear interpolation gives it exactly."""
    geometry = Geometry(
        column_step_mm=np.array([2.0, 0, 0]),
        row_step_mm=np.array([0, 2.0, 0]),
        origins_mm=np.stack([0 * z_mm, 0 * z_mm, z_mm], axis=1),
        n_columns=100,
        n_rows=100,
    )
    x, y = np.arange(100)[None, None, :] * 2.0, np.arange(100)[None, :, None] * 2.0
    return ArrayVolume(ramp(x, y, z_mm[:, None, None]), geometry)


def ramp(x_mm, y_mm, z_mm):
    return -900 + 2 * x_mm + 1.5 * y_mm + 3 * z_mm


def test_uneven_slices_are_shown_where_they_lie(tmp_path):
    steps_mm = np.random.default_rng(3).uniform(2.0, 4.0, 60)
    seed_mm = np.array([97.3, 101.1, 92.2])
    panels = drawn(ramp_volume(np.cumsum(steps_mm)), seed_at(seed_mm), tmp_path)
    for number, panel in enumerate(panels):
        truth = ramp(*points_of(number, seed_mm).transpose(2, 0, 1))
        assert_shows(panel, truth, np.ones((N, N), bool))


def test_missing_slices_are_hatched(tmp_path):
    z_mm = np.concatenate([np.arange(0, 120, 3.0), np.arange(132, 240, 3.0)])
    _, coronal, sagittal = drawn(ramp_volume(z_mm), seed_at((100, 100, 90.1)), tmp_path)
    z_of_row = 90.1 + (239.5 - np.arange(N)) * PX_MM
    in_hole = (z_of_row > 117) & (z_of_row < 132)
    for panel in (coronal, sagittal):
        np.testing.assert_array_equal(is_hatched(panel)[:, 60], in_hole)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_hatched(bad, tmp_path):
    volume = ramp_volume(np.arange(0, 240, 3.0))
    volume.hu[30, 50, 65] = bad  # at (130, 100, 90), 30 mm to the left of the seed
    axial, coronal, sagittal = drawn(volume, seed_at((100, 100, 90)), tmp_path)
    assert is_hatched(axial)[240, 360]
    assert is_hatched(coronal)[240, 360]
    assert not is_hatched(axial)[240, 340:345].any()
    assert not is_hatched(sagittal).any()


# --- the sides of the patient -------------------------------------------------------------

MARKER_HU = {"left": 390.0, "back": 40.0, "head": -400.0}
CENTRE_MM = (31.0, -42.0, 653.0)


def marker_scene() -> Scene:
    """Three balls of their own density in air, 36 mm to the left, back and head of the seed."""
    lesions = []
    for axis, (name, hu) in enumerate(MARKER_HU.items()):
        place = np.array(CENTRE_MM)
        place[axis] += 36
        lesions.append(Lesion(name, tuple(place.tolist()), (12.0, 12.0, 12.0), hu))
    return Scene(0, (5000.0, 0.0, 0.0), tuple(lesions))  # the chest itself lies far away


def dicom(directions):
    def write(folder: Path) -> Volume:
        write_ct_series(
            folder,
            marker_scene(),
            shape=(100, 90, 60),
            spacing_mm=(2.0, 2.0, 3.0),
            direction=directions,
            centre_mm=CENTRE_MM,
        )
        (series,) = scan_dicom(folder).series
        return ct_volumes(series).volumes[0]

    return write


def nifti(directions):
    def write(folder: Path) -> Volume:
        geometry = regular_geometry((100, 90, 60), (2.0, 2.0, 3.0), CENTRE_MM, directions)
        image = sitk_image(sample_scene(marker_scene(), geometry), geometry.affine)
        sitk.WriteImage(image, folder / "scan.nii.gz")
        return VolumeFile(folder / "scan.nii.gz")

    return write


@pytest.mark.parametrize(
    "write",
    [
        dicom(np.eye(3)),
        dicom(RAS @ FEET_FIRST),
        dicom(OBLIQUE),
        nifti(RAS),
        nifti(PERMUTED),
        nifti(OBLIQUE),
    ],
    ids=["identity", "flipped", "oblique", "RAS NIfTI", "permuted NIfTI", "oblique NIfTI"],
)
def test_markers_appear_on_their_side(write, tmp_path):
    axial, coronal, sagittal = drawn(write(tmp_path), seed_at(CENTRE_MM), tmp_path)
    left, back, head = (round(float(grey_of(np.array(hu)))) for hu in MARKER_HU.values())
    for panel, at_right, at_top, at_bottom in (
        (axial, left, 0, back),
        (coronal, left, head, 0),
        (sagittal, back, head, 0),
    ):
        assert abs(panel[245, 384] - at_right).max() <= 1
        assert abs(panel[96, 245] - at_top).max() <= 1
        assert abs(panel[384, 245] - at_bottom).max() <= 1
        assert panel[245, 96].max() == 0


def test_letters_name_the_sides():
    toward = {(1, 0, 0): "L", (0, 1, 0): "P", (0, 0, -1): "F"}
    opposite = {"L": "R", "P": "A", "F": "H"}
    for plane, (right, down) in zip(PLANES, VIEWS.values(), strict=True):
        expected = opposite[toward[right]], toward[right], opposite[toward[down]], toward[down]
        assert plane.letters == expected


def test_letters_stand_at_the_edges(tmp_path):
    for panel in drawn(ramp_volume(np.arange(0, 240, 3.0)), seed_at((100, 100, 100)), tmp_path):
        for edge in (panel[225:255, :28], panel[225:255, -28:], panel[:28, 225:255]):
            assert (edge == 235).all(axis=-1).sum() > 20
            assert (edge == 0).all(axis=-1).sum() > 20


# --- the marks ----------------------------------------------------------------------------


@pytest.fixture
def volume() -> ArrayVolume:
    return ramp_volume(np.arange(0, 240, 3.0))


def coloured(panel: np.ndarray, rgb: tuple[int, int, int]) -> tuple[int, ...]:
    """First and last column and row of a colour."""
    rows, columns = np.nonzero((panel == rgb).all(axis=-1))
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_cube_is_50_mm_wide(volume, tmp_path):
    for panel in drawn(volume, seed_at((100, 100, 100)), tmp_path):
        assert coloured(panel, CUBE_RGB) == (139, 340, 139, 340)  # lines of 2 pixels on the edge
        assert (panel[139:341, 139:141] == CUBE_RGB).all()


def test_cross_hair_is_open_at_the_seed(volume, tmp_path):
    for panel in drawn(volume, seed_at((100, 100, 100)), tmp_path):
        left, right, top, bottom = coloured(panel, SEED_RGB)
        assert left + right == top + bottom == N - 1
        middle = panel[235:245, 235:245]
        assert (middle == middle[..., :1]).all()  # grey: nothing is drawn over the seed
        assert middle.min() > 0


def test_scale_bar_is_20_mm_long(volume, tmp_path):
    for panel in drawn(volume, seed_at((100, 100, 100)), tmp_path):
        (columns,) = np.nonzero((panel[N - 13, :200] == 235).all(axis=-1))
        assert (np.diff(columns) == 1).all()
        assert len(columns) * PX_MM == 20


def test_lesion_box_has_its_size_in_every_panel(volume, tmp_path):
    panels = drawn(volume, seed_at((100, 100, 100), (20.0, 30.0, 40.0)), tmp_path)
    for panel, (width_mm, height_mm) in zip(panels, ((20, 30), (20, 40), (30, 40)), strict=True):
        left, right, top, bottom = coloured(panel, LESION_RGB)
        assert (right - left - 1, bottom - top - 1) == (width_mm * 4, height_mm * 4)
        edge = (panel[top : bottom + 1, left] == LESION_RGB).all(axis=-1)
        assert 0.4 < edge.mean() < 0.75  # dashed


@pytest.mark.parametrize("extent_mm", [None, (400.0, 1e300, np.inf)])
def test_no_lesion_box_where_there_is_none_to_see(extent_mm, volume, tmp_path):
    for panel in drawn(volume, seed_at((100, 100, 100), extent_mm), tmp_path):
        assert not (panel == LESION_RGB).all(axis=-1).any()


# --- the file -----------------------------------------------------------------------------


def test_same_lesion_gives_the_same_bytes(volume, tmp_path):
    seed = seed_at((100, 100, 100), (20.0, 30.0, 40.0))
    for name in ("a.png", "b.png", "b.png"):
        draw_overlay(volume, seed, tmp_path / name, title="case 1")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info == {"Software": f"oncofm {oncofm.__version__}"}
        assert picture.mode == "RGB"


@pytest.mark.parametrize("change", ["lesion_id", "title", "volume_id", "position"])
def test_header_shows_what_it_is_about(change, volume, tmp_path):
    seed, title = seed_at((100, 100, 100)), ""
    draw_overlay(volume, seed, tmp_path / "a.png", title=title)
    if change == "lesion_id":
        seed = dataclasses.replace(seed, lesion_id="segment-2")
    elif change == "title":
        title = "case 1"
    elif change == "volume_id":
        volume.volume_id = "1.2.826.0.1.3680043.8.498.1234567890123456789"
    else:
        seed = dataclasses.replace(seed, position_mm=(100.1, 100.0, 100.0))
    draw_overlay(volume, seed, tmp_path / "b.png", title=title)
    before, after = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert (before[:65] != after[:65]).any()


@pytest.mark.parametrize(
    "text", ["", "two\nlines\ttab", "x" * 50_000, "Läsion 病变 \ud800\x00\u202e", "\u0301" * 300]
)
def test_any_text_fits_the_header(text, volume, tmp_path):
    volume.volume_id = text
    draw_overlay(volume, seed_at((100, 100, 100)), tmp_path / "plain.png")
    path = tmp_path / "overlay.png"
    draw_overlay(volume, seed_at((100, 100, 100), None, text), path, title=text)
    with Image.open(tmp_path / "plain.png") as plain, Image.open(path) as picture:
        assert picture.size == plain.size
        for part in (slice(60, None), (slice(None), slice(-10, None))):  # only the header differs
            np.testing.assert_array_equal(np.asarray(picture)[part], np.asarray(plain)[part])


def test_reads_no_more_at_a_time_than_a_patch_does(tmp_path):
    for directions in (np.eye(3), OBLIQUE):
        geometry = regular_geometry((300, 300, 300), (1.0, 1.0, 1.0), (0, 0, 0), directions)
        volume = ArrayVolume(np.zeros((300, 300, 300), np.int16), geometry)
        sample_patch(volume, (0, 0, 0), PatchSpec("mhub"))
        (patch_box,) = volume.boxes
        volume.boxes.clear()
        draw_overlay(volume, seed_at((0, 0, 0)), tmp_path / "overlay.png")
        largest = max(np.subtract(stop, start).prod() for start, stop in volume.boxes)
        assert largest <= np.subtract(patch_box[1], patch_box[0]).prod()
        ends = np.array(volume.boxes)
        assert (ends[:, 1] - ends[:, 0]).max() < 110


# --- what cannot be drawn -----------------------------------------------------------------


@pytest.mark.parametrize("position_mm", [(-1.1, 100, 100), (100, 199.1, 100), (0, 0, np.nan)])
def test_seed_outside(position_mm, volume, tmp_path):
    with pytest.raises(SeedOutsideVolumeError, match=r"Seed .* lies outside volume array") as ours:
        draw_overlay(volume, seed_at(position_mm), tmp_path / "overlay.png")
    with pytest.raises(SeedOutsideVolumeError) as patch_error:
        sample_patch(volume, position_mm, PatchSpec("mhub"))
    assert str(ours.value) == str(patch_error.value)
    assert list(tmp_path.iterdir()) == []


def test_slice_that_cannot_be_decoded(volume, tmp_path):
    def read_box(start, stop):
        raise SliceUndecodableError("Slice 3 cannot be decoded; copy the file again.")

    volume.read_box = read_box
    with pytest.raises(SliceUndecodableError):
        draw_overlay(volume, seed_at((100, 100, 100)), tmp_path / "overlay.png")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_there(volume, tmp_path):
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        draw_overlay(volume, seed_at((100, 100, 100)), tmp_path / "absent" / "overlay.png")
