"""Points on a grid are interpolated axis by axis, to the bit as points anywhere are."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from oncofm.imaging.interpolation import trilinear

BOX = np.random.default_rng(0).normal(0, 500, (9, 11, 13))


def grid(dtype=np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1).uniform
    i, j, k = draw(0, 12, 6), draw(0, 10, 5), draw(0, 8, 4)
    i, j, k = (values.astype(dtype) for values in (i, j, k))
    return i[None, None, :], j[None, :, None], k[:, None, None]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_grid_gives_the_values_of_its_points_to_the_bit(dtype):
    index = grid(dtype)
    i, j, k = (np.broadcast_to(axis, (4, 5, 6)).ravel() for axis in index)
    values = trilinear(BOX, index)
    assert values.shape == (4, 5, 6)
    np.testing.assert_array_equal(values.ravel(), trilinear(BOX, (i, j, k)))
    expected = map_coordinates(BOX, (k, j, i), order=1)
    np.testing.assert_allclose(values.ravel(), expected, atol=1e-3 if dtype == np.float32 else 1e-9)


def test_an_index_may_be_repeated_along_axes_that_it_does_not_vary_on():
    i, j, k = grid()
    repeated = np.repeat(i, 4, axis=0), np.repeat(j, 4, axis=0), np.broadcast_to(k, (4, 5, 6))
    np.testing.assert_array_equal(trilinear(BOX, repeated), trilinear(BOX, (i, j, k)))


@pytest.mark.parametrize("axis", [0, 1])
def test_an_index_that_varies_along_another_axis_is_followed(axis):
    i, j, k = grid()
    sheared = i * np.linspace(0.5, 1, 4 + axis).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    full = tuple(np.broadcast_to(values, (4, 5, 6)) for values in (sheared, j, k))
    expected = map_coordinates(BOX, [values.ravel() for values in full[::-1]], order=1)
    np.testing.assert_allclose(trilinear(BOX, (sheared, j, k)).ravel(), expected, atol=1e-9)


def test_a_plane_and_a_constant_index_keep_their_shape():
    i, j, _ = grid()
    flat = trilinear(BOX, (i[0], j[0], np.array(2.5)))
    assert flat.shape == (5, 6)
    thick = trilinear(BOX, (np.repeat(i, 3, axis=0), j, np.full((1, 1, 1), 2.5)))
    assert thick.shape == (3, 5, 6)
    np.testing.assert_array_equal(thick, np.broadcast_to(flat, (3, 5, 6)))
