"""The phantom is what it says: textured, asymmetric, the same however it is sampled."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from oncofm.demo.phantom import (
    chest_scene,
    hu_at,
    lesion_mask,
    regular_geometry,
    sample_scene,
    slice_points_mm,
)

OBLIQUE = np.array([[0.8, 0.6, 0.0], [-0.48, 0.64, 0.6], [0.36, -0.48, 0.8]])


def test_no_flip_or_swap_of_axes_goes_unnoticed():
    scene = chest_scene()
    hu = sample_scene(scene, regular_geometry((48, 48, 48), (7, 7, 7), scene.centre_mm))
    for axes in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        for flips in range(8):
            if axes == (0, 1, 2) and flips == 0:
                continue
            slices = tuple(slice(None, None, -1 if flips >> axis & 1 else 1) for axis in range(3))
            other = hu.transpose(axes)[slices]
            assert np.mean(np.abs(hu - other) > 100) > 0.05


@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1, -1, 1]), OBLIQUE])
def test_lesions_lie_where_the_scene_says(direction):
    scene = chest_scene(centre_mm=(-310.0, 87.5, -1204.0))
    for lesion in scene.lesions:
        grid = regular_geometry((50, 50, 50), (0.9, 0.8, 1.1), lesion.centre_mm, direction)
        mask = lesion_mask(lesion, grid)
        points_mm = np.stack([slice_points_mm(grid, k) for k in range(50)])[mask]
        assert points_mm.mean(axis=0) == pytest.approx(lesion.centre_mm, abs=0.1)
        half_mm = np.ptp(points_mm, axis=0) / 2
        assert half_mm == pytest.approx(lesion.radii_mm, abs=1.2)
        volume_mm3 = mask.sum() * 0.9 * 0.8 * 1.1
        assert volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(lesion.radii_mm), rel=0.02)
        hu = sample_scene(scene, grid)
        assert hu[mask].mean() == pytest.approx(lesion.hu, abs=10)
        assert hu[mask].std() > 5


def test_an_oblique_grid_sees_the_same_scene():
    """Interpolating a fine axial scan agrees with scanning the oblique grid directly."""
    scene = chest_scene(centre_mm=(12.0, -250.0, 900.0))
    fine = regular_geometry((180, 180, 180), (1, 1, 1), scene.centre_mm)
    oblique = regular_geometry((40, 40, 40), (1.7, 1.9, 2.1), scene.centre_mm, OBLIQUE)
    points_mm = np.stack([slice_points_mm(oblique, k) for k in range(40)])
    index = (points_mm - fine.origins_mm[0])[..., ::-1]
    expected = map_coordinates(
        sample_scene(scene, fine).astype(float), np.moveaxis(index, -1, 0), order=1
    )
    off = np.abs(sample_scene(scene, oblique) - expected)
    assert np.median(off) < 2
    assert np.mean(off > 60) < 0.1  # only where the surface of an organ runs through


def test_the_same_seed_is_the_same_scene_and_another_is_not():
    points_mm = np.random.default_rng(1).uniform(-150, 150, (1000, 3))
    assert np.array_equal(hu_at(chest_scene(3), points_mm), hu_at(chest_scene(3), points_mm))
    assert not np.array_equal(hu_at(chest_scene(3), points_mm), hu_at(chest_scene(4), points_mm))


def test_moving_the_scene_moves_nothing_in_it():
    points_mm = np.random.default_rng(1).uniform(-150, 150, (1000, 3))
    shift_mm = (-512.0, 64.0, 1024.0)
    moved = hu_at(chest_scene(centre_mm=shift_mm), np.add(points_mm, shift_mm))
    assert np.abs(moved - hu_at(chest_scene(), points_mm)).max() <= 1
