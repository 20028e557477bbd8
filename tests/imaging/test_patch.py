"""Patches against the public pipelines on whole volumes, voxel by voxel."""

import csv

import numpy as np
import pytest
from imaging.oracles import itk_pipeline, monai_pipeline
from imaging.volumes import ArrayVolume, noise, sitk_affine, sitk_image
from scipy.spatial.transform import Rotation

from oncofm.errors import SeedOutsideVolumeError
from oncofm.imaging.dicom_series import ct_volumes
from oncofm.imaging.geometry import Geometry
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.scan import scan_dicom
from oncofm.imaging.volume_file import VolumeFile

MHUB, PAPER = PatchSpec("mhub"), PatchSpec("paper")
AXIAL, FLIPPED = np.eye(3), np.diag([-1.0, -1.0, -1.0])
HEAD_LAST, LEFT_HANDED = np.diag([-1.0, -1.0, 1.0]), np.diag([1.0, -1.0, 1.0])
CORONAL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
SAGITTAL = np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]])
OBLIQUE = Rotation.from_euler("xyz", [17, -23, 41], degrees=True).as_matrix()
TILTED = np.array([[1.0, 0, 0], [0, np.cos(0.3), 0], [0, np.sin(0.3), 1]])

GRIDS = {
    "axial": (AXIAL, (0.7, 0.7, 2.5), (-180.5, -33.25, 712.75)),
    "flipped": (FLIPPED, (0.8, 0.9, 1.5), (40, 50, -1700.3)),
    "head last": (HEAD_LAST, (0.9, 0.9, 3.0), (2500.5, -2500.5, 99)),
    "left-handed": (LEFT_HANDED, (0.6, 0.6, 2.0), (1.1, 2.2, 3.3)),
    "coronal": (CORONAL, (0.75, 1.5, 1.2), (0, 0, 0)),
    "sagittal": (SAGITTAL, (0.75, 1.5, 1.2), (-300, 20, 10)),
    "oblique": (OBLIQUE, (0.8, 0.9, 2.2), (-120.2, 64.6, -801.9)),
    "thick": (AXIAL, (1.3, 0.5, 7.5), (0.5, 0.25, 0.125)),
    "tilted": (TILTED, (0.8, 0.8, 2.5), (10, 20, 30)),
    "1 mm": (AXIAL, (1.0, 1.0, 1.0), (-57, 12, 400)),
    "1 mm flipped": (HEAD_LAST, (1.0, 1.0, 1.0), (-57, 12, 400)),
    "nearly 1 mm, kept": (AXIAL, (1.0009, 0.9992, 1.0005), (-57.5, 12, 400)),
    "nearly 1 mm, RAS, kept as it is": (HEAD_LAST, (1.0009, 0.9992, 1.0005), (3, 4, 5)),
    "just not kept": (AXIAL, (1.0011, 0.9988, 1.0), (-57.5, 12, 400)),
    "kept on another axis": (SAGITTAL, (1.0008, 2.0, 0.9993), (7, 8, 9)),
    "oblique 1 mm": (OBLIQUE, (1.0, 1.0, 1.0), (5, 5, 5)),
}
SHAPE = (90, 80, 44)


def affine_of(name: str) -> np.ndarray:
    directions, spacing_mm, origin_mm = GRIDS[name]
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing_mm
    affine[:3, 3] = origin_mm
    return affine


def seeds_of(affine: np.ndarray, shape: tuple[int, int, int]) -> list[tuple[float, ...]]:
    """The middle, and on every border one seed near, one on, and one just beyond it."""
    last = np.array(shape) - 1.0
    index = [last / 2, last * 0.3, last * 0, last]
    for axis in range(3):
        for place in (3.3, 0.0, -0.45, last[axis] - 3.3, last[axis], last[axis] + 0.45):
            near = last * (0.4, 0.55, 0.6)
            near[axis] = place
            index.append(near)
    points_mm = np.array(index) @ affine[:3, :3].T + affine[:3, 3]
    whole = np.round(points_mm[0])  # a seed on whole millimetres, as people type them
    return [tuple(point.tolist()) for point in (*points_mm, whole)]


@pytest.mark.parametrize("name", GRIDS)
def test_mhub_equals_monai_on_the_whole_volume(name):
    affine, hu = affine_of(name), noise(SHAPE)
    volume = ArrayVolume(hu, Geometry.from_affine(affine, SHAPE))
    truth_at = monai_pipeline(hu, affine)
    for seed_mm in seeds_of(affine, SHAPE):
        patch = sample_patch(volume, seed_mm, MHUB)
        assert patch.voxels.dtype == np.float32
        np.testing.assert_allclose(patch.voxels, truth_at(seed_mm), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "tilted"])
def test_paper_equals_simpleitk_on_the_whole_volume(name):
    image = sitk_image(noise(SHAPE), affine_of(name))
    affine = sitk_affine(image)
    volume = ArrayVolume(noise(SHAPE), Geometry.from_affine(affine, SHAPE))
    truth_at = itk_pipeline(image)
    for seed_mm in seeds_of(affine, SHAPE):
        patch = sample_patch(volume, seed_mm, PAPER)
        np.testing.assert_allclose(patch.voxels, truth_at(seed_mm), rtol=0, atol=1e-6)


@pytest.mark.parametrize("profile", ["mhub", "paper"])
@pytest.mark.parametrize("shape", [(30, 20, 12), (10, 200, 3), (2, 2, 2)])
def test_volumes_smaller_than_the_patch(profile, shape):
    image = sitk_image(noise(shape), affine_of("axial"))
    affine = sitk_affine(image)
    volume = ArrayVolume(noise(shape), Geometry.from_affine(affine, shape))
    truth_at = itk_pipeline(image) if profile == "paper" else monai_pipeline(volume.hu, affine)
    for seed_mm in seeds_of(affine, shape)[:4]:
        patch = sample_patch(volume, seed_mm, PatchSpec(profile))
        np.testing.assert_allclose(patch.voxels, truth_at(seed_mm), rtol=0, atol=1e-6)
        assert 0 < patch.padded_fraction < 1
        assert [notice.code for notice in patch.notices] == ["patch_padded"]


@pytest.mark.parametrize("profile", ["mhub", "paper"])
def test_the_axes_of_a_patch(profile):
    """x to the left, y to the back, z to the head, from any voxel order."""
    for name in ("axial", "flipped", "coronal", "sagittal", "left-handed"):
        affine = affine_of(name)
        index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
        x, y, z = np.moveaxis(index @ affine[:3, :3].T, -1, 0)
        hu = np.rint(2 * x - 3 * y + 5 * z).transpose(2, 1, 0)
        volume = ArrayVolume(hu, Geometry.from_affine(affine, SHAPE))
        seed_mm = volume.geometry.to_lps((np.array(SHAPE) / 2)[None])[0]
        inner = sample_patch(volume, tuple(seed_mm), PatchSpec(profile)).voxels[
            0, 20:30, 20:30, 20:30
        ]
        slopes_hu = [np.diff(inner, axis=axis).mean() * 3072 for axis in (2, 1, 0)]
        np.testing.assert_allclose(slopes_hu, [2, -3, 5], atol=0.15)


# --- what lies outside --------------------------------------------------------------------


@pytest.mark.parametrize("spec", [MHUB, PAPER])
@pytest.mark.parametrize("name", ["axial", "oblique", "sagittal"])
def test_a_seed_beyond_the_outer_voxel_edges_is_rejected(spec, name):
    affine = affine_of(name)
    volume = ArrayVolume(noise(SHAPE), Geometry.from_affine(affine, SHAPE))
    for axis in range(3):
        for place in (-0.51, SHAPE[axis] - 0.49, -40.0, 1e9):
            index = np.array(SHAPE) / 2
            index[axis] = place
            seed_mm = tuple(volume.geometry.to_lps(index[None])[0])
            with pytest.raises(SeedOutsideVolumeError, match=r"outside volume array"):
                sample_patch(volume, seed_mm, spec)
    assert volume.boxes == []


def test_padded_fraction_counts_what_is_not_in_the_volume():
    geometry = Geometry.from_affine(np.diag([1.0, 1.0, 2.0, 1.0]), (200, 200, 50))
    volume = ArrayVolume(np.zeros((50, 200, 200), np.int16), geometry)
    assert sample_patch(volume, (100, 100, 50), MHUB).padded_fraction == 0
    assert sample_patch(volume, (100, 100, 50), MHUB).notices == ()
    # 10 mm from the right border, x = 0 .. 34 of the volume are left: 15 of 50 are padding.
    patch = sample_patch(volume, (10, 100, 50), MHUB)
    assert patch.padded_fraction == pytest.approx(0.3)
    assert (patch.voxels == 0).mean() == pytest.approx(0.3)
    corner = sample_patch(volume, (0, 0, 0), MHUB)
    assert corner.padded_fraction == pytest.approx(1 - 0.5**3)
    assert "87.5%" in corner.notices[0].message


def test_padded_fraction_of_an_oblique_volume_counts_its_empty_corners():
    affine = affine_of("oblique")
    geometry = Geometry.from_affine(affine, SHAPE)
    volume = ArrayVolume(np.zeros(SHAPE[::-1], np.int16), geometry)
    seed_mm = tuple(geometry.to_lps(np.array([[2.0, 2.0, 2.0]]))[0])
    patch = sample_patch(volume, seed_mm, MHUB)
    # Zero HU are 1/3 inside the volume; less than half of that is outside its outer edge.
    assert np.mean(patch.voxels < 1e-9) < patch.padded_fraction
    assert patch.padded_fraction < np.mean(patch.voxels < 1 / 3 - 1e-6)


# --- irregular stacks ---------------------------------------------------------------------


def test_uneven_slices_are_sampled_where_they_are():
    """Slices at whole millimetres, some missing, against the even stack interpolated by hand."""
    z_mm = np.array([0, 1, 2, 3, 5, 6, 8, 9, 10, 12, 13, 14, 15, 17, 18, 20, 21, 22, 24.0])
    hu = noise((60, 60, len(z_mm)))
    column_mm, row_mm = np.array([0.8, 0, 0]), np.array([0, 0.8, 0])
    origins_mm = np.stack([np.full_like(z_mm, -20), np.full_like(z_mm, 7), z_mm], axis=1)
    volume = ArrayVolume(hu, Geometry(column_mm, row_mm, origins_mm, 60, 60))
    k = np.interp(np.arange(25), z_mm, np.arange(len(z_mm)))
    below = np.minimum(k.astype(int), len(z_mm) - 2)
    weight = (k - below)[:, None, None]
    even = (1 - weight) * hu[below] + weight * hu[below + 1]
    affine = np.diag([0.8, 0.8, 1, 1])
    affine[:3, 3] = origins_mm[0]
    truth_at = monai_pipeline(even, affine)
    seed_mm = (1.0, 30.0, 11.0)
    voxels = sample_patch(volume, seed_mm, MHUB).voxels
    np.testing.assert_allclose(voxels, truth_at(seed_mm), rtol=0, atol=1e-6)


def test_slices_that_shift_sideways_are_sampled_where_they_are():
    """A plane wave looks the same through a straight stack and through a shifted one."""

    def wave(geometry: Geometry) -> np.ndarray:
        i, j, k = geometry.shape
        index = np.stack(np.meshgrid(*map(np.arange, (i, j, k)), indexing="ij"), axis=-1)
        x, y, z = geometry.to_lps(index.reshape(-1, 3)).T
        return (300 * np.sin(x / 9 + y / 13 + z / 17)).reshape(i, j, k).transpose(2, 1, 0)

    straight = Geometry.from_affine(np.diag([0.5, 0.5, 0.5, 1]), (120, 120, 120))
    shift_mm = np.random.default_rng(0).uniform(-3, 3, (120, 1)) * [0.5, 0.8, 0]
    shift_mm[[0, -1]] = 0
    shifted = Geometry(
        straight.column_step_mm, straight.row_step_mm, straight.origins_mm + shift_mm, 120, 120
    )
    assert not shifted.is_regular
    for spec in (MHUB, PAPER):
        expected = sample_patch(ArrayVolume(wave(straight), straight), (30, 30, 30), spec)
        patch = sample_patch(ArrayVolume(wave(shifted), shifted), (30, 30, 30), spec)
        np.testing.assert_allclose(patch.voxels, expected.voxels, atol=3 / 3072)


# --- cost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [MHUB, PAPER])
def test_only_the_box_around_the_seed_is_read(spec):
    geometry = Geometry.from_affine(np.diag([0.7, 0.7, 5.0, 1]), (300, 300, 40))
    volume = ArrayVolume(noise((300, 300, 40)), geometry)
    sample_patch(volume, (100, 100, 100), spec)
    ((start, stop),) = volume.boxes
    assert np.all(np.subtract(stop, start) <= (50 / 0.7 + 2, 50 / 0.7 + 2, 12))


def test_a_slice_that_ends_the_patch_is_the_last_one_read():
    geometry = Geometry.from_affine(np.eye(4), (80, 80, 80))
    volume = ArrayVolume(noise((80, 80, 80)), geometry)
    sample_patch(volume, (40, 40, 40), MHUB)
    assert volume.boxes == [((15, 15, 15), (65, 65, 65))]


def test_profile_must_be_known():
    with pytest.raises(ValueError, match="profile must be mhub or paper"):
        PatchSpec("other")  # type: ignore[arg-type]


# --- what upstream computed on real scans -------------------------------------------------


@pytest.fixture(scope="module")
def real_volumes(shared_data):
    (series,) = scan_dicom(shared_data / "petct_ct").series
    return {
        "lung1/lung1_image.nrrd": VolumeFile(shared_data / "lung1" / "lung1_image.nrrd"),
        "petct_ct": ct_volumes(series).volumes[0],
    }


CASES = (
    "lung1",
    "petct_mediastinum",
    "petct_lung",
    "petct_first_slice_border",
    "lung1_near_border",
)


@pytest.mark.parametrize("case", CASES)
def test_reference_patches(case, shared_data, real_volumes):
    with (shared_data / "reference" / "seeds.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["case"] == case)
    seed_mm = (float(row["coordX"]), float(row["coordY"]), float(row["coordZ"]))
    patch = sample_patch(real_volumes[row["image_path"]], seed_mm, MHUB)
    expected = np.load(shared_data / "reference" / "patches" / f"{case}.npy")
    assert patch.voxels.shape == expected.shape
    np.testing.assert_allclose(patch.voxels, expected, rtol=0, atol=1e-6)
