import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from oncofm.imaging.geometry import Geometry

finite = st.floats(-2000, 2000)
spacing = st.floats(0.2, 10)
angles = st.tuples(*[st.floats(-180, 180)] * 3)


def affine_of(angles_deg, spacing_mm, origin_mm, handedness=1, shear=0.0) -> np.ndarray:
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    affine[:3, :3] = rotation * spacing_mm
    affine[:3, 2] = handedness * affine[:3, 2] + shear * affine[:3, 1]
    affine[:3, 3] = origin_mm
    return affine


affines = st.builds(
    affine_of,
    angles,
    st.tuples(spacing, spacing, spacing),
    st.tuples(finite, finite, finite),
    st.sampled_from([1, -1]),
    st.floats(-0.5, 0.5),
)


@given(affines, st.integers(0, 2**32 - 1))
def test_regular_stack_is_its_affine(affine, seed):
    geometry = Geometry.from_affine(affine, (40, 30, 20))
    index = np.random.default_rng(seed).uniform(-10, 50, (20, 3))
    points_mm = index @ affine[:3, :3].T + affine[:3, 3]
    assert geometry.shape == (40, 30, 20)
    assert geometry.is_regular
    np.testing.assert_allclose(geometry.affine, affine)
    np.testing.assert_allclose(geometry.to_lps(index), points_mm, atol=1e-9)
    np.testing.assert_allclose(geometry.to_index(points_mm), index, atol=1e-9)


@given(affines, st.integers(0, 2**32 - 1))
def test_round_trip_through_an_irregular_stack(affine, seed):
    random = np.random.default_rng(seed)
    regular = Geometry.from_affine(affine, (40, 30, 20))
    along = np.cumsum(random.uniform(0.2, 4, 20))[:, None] * regular.normal
    sideways = random.normal(size=(20, 2)) @ affine[:3, :2].T
    geometry = Geometry(
        regular.column_step_mm, regular.row_step_mm, affine[:3, 3] + along + sideways, 40, 30
    )
    index = random.uniform(-10, 50, (20, 3))
    assert not geometry.is_regular
    np.testing.assert_allclose(geometry.to_index(geometry.to_lps(index)), index, atol=1e-8)


def test_uneven_steps_and_shifts_are_linear_between_the_true_neighbours():
    origins_mm = np.array([[0, 0, 0], [0, 0, 1], [2, 0, 4], [2, 4, 5.0]])
    geometry = Geometry(np.array([2.0, 0, 0]), np.array([0, 3.0, 0]), origins_mm, 10, 10)
    # Half way between slices 1 and 2 the origin is (1, 0, 2.5).
    points_mm = np.array([[1, 0, 2.5], [3, 3, 2.5], [2, 0, 4], [2, 8, 6], [0, 0, -2]])
    expected = [[0, 0, 1.5], [1, 1, 1.5], [0, 0, 2], [0, 0, 4], [0, 0, -2]]
    np.testing.assert_allclose(geometry.to_index(points_mm), expected, atol=1e-12)
    np.testing.assert_allclose(geometry.to_lps(np.array(expected)), points_mm, atol=1e-12)


def test_a_grid_of_points_needs_a_value_per_plane_only():
    geometry = Geometry.from_affine(np.diag([0.7, -0.8, 2.5, 1]), (40, 30, 20))
    x = np.linspace(0, 20, 5)[None, None, :]
    y = np.linspace(-20, 0, 4)[None, :, None]
    z = np.linspace(0, 40, 3)[:, None, None]
    i, j, k = geometry.to_index_axes(x, y, z)
    assert k.shape == (3, 1, 1)
    points_mm = np.stack(np.broadcast_arrays(x, y, z), axis=-1).reshape(-1, 3)
    index = np.stack(np.broadcast_arrays(i, j, k), axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(index, geometry.to_index(points_mm), atol=1e-12)


def test_normal_points_to_growing_k_whatever_the_handedness():
    for sign in (1, -1):
        geometry = Geometry.from_affine(np.diag([1, 1, sign * 2.0, 1]), (4, 4, 4))
        np.testing.assert_allclose(geometry.normal, [0, 0, sign])
        np.testing.assert_allclose(np.diff(geometry.positions_mm), 2)


def test_corners_are_the_centres_of_the_corner_voxels():
    affine = affine_of((10, 20, 30), (0.7, 0.8, 3), (5, 6, 7))
    geometry = Geometry.from_affine(affine, (4, 5, 6))
    ends = np.array([[i, j, k, 1] for i in (0, 3) for j in (0, 4) for k in (0, 5)])
    np.testing.assert_allclose(geometry.corners_mm, (ends @ affine.T)[:, :3])


def test_a_single_slice_counts_as_one_millimetre_thick():
    geometry = Geometry(np.array([2.0, 0, 0]), np.array([0, 2.0, 0]), np.zeros((1, 3)), 4, 4)
    np.testing.assert_allclose(geometry.to_index(np.array([[2, 4, 0.25]])), [[1, 2, 0.25]])
    np.testing.assert_allclose(geometry.affine, np.diag([2, 2, 1, 1]))


@pytest.mark.parametrize("tilt_deg", [5, -25])
def test_gantry_tilt_is_the_sheared_affine(tilt_deg):
    tilt = np.radians(tilt_deg)
    row_step_mm = 0.8 * np.array([0, np.cos(tilt), np.sin(tilt)])
    origins_mm = np.array([-100, -90, 30]) + np.arange(12)[:, None] * [0, 0, 4.0]
    geometry = Geometry(np.array([0.8, 0, 0]), row_step_mm, origins_mm, 64, 64)
    assert geometry.is_regular
    index = np.random.default_rng(0).uniform(0, 11, (50, 3))
    points_mm = index @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    np.testing.assert_allclose(geometry.to_index(points_mm), index, atol=1e-10)
