"""Where voxels lie in the patient: index (column i, row j, slice k) <-> LPS millimetres."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_REGULAR_TOLERANCE_MM = 1e-6
"""How far an origin may lie from the even stack: rounding, and nothing more."""


WIDEST_STEP = 2.5
"""A step of more medians than this is a hole that must not be interpolated over."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A stack of parallel slices, each with its own origin.

    A regular volume is the special case of evenly spaced, aligned origins. Gantry tilt shows as
    origins that shift inside the plane, missing slices as uneven steps; both are sampled where
    the slices truly are.

    Attributes
    ----------
    column_step_mm, row_step_mm : numpy.ndarray
        Shape (3,) float64: the way from one voxel to the next along a row (index i grows), and
        along a column (index j grows).
    origins_mm : numpy.ndarray
        Shape (n_slices, 3) float64: LPS position of voxel (0, 0, k), sorted along the normal.
    n_columns, n_rows : int
        In-plane size.
    """

    column_step_mm: np.ndarray
    row_step_mm: np.ndarray
    origins_mm: np.ndarray
    n_columns: int
    n_rows: int

    @classmethod
    def from_affine(cls, affine: np.ndarray, shape: Sequence[int]) -> "Geometry":
        """Lay out an even stack.

        Parameters
        ----------
        affine : numpy.ndarray
            Shape (4, 4): index (i, j, k) -> LPS mm. Sheared and left-handed ones are fine.
        shape : sequence of int
            Columns, rows, slices.
        """
        affine = np.asarray(affine, dtype=np.float64)
        n_columns, n_rows, n_slices = (int(size) for size in shape)
        geometry = cls(
            column_step_mm=affine[:3, 0].copy(),
            row_step_mm=affine[:3, 1].copy(),
            origins_mm=affine[:3, 3] + np.arange(n_slices)[:, None] * affine[:3, 2],
            n_columns=n_columns,
            n_rows=n_rows,
        )
        # Worked out from the origins again, the step would be off by a rounding error, and a
        # seed in the middle of two voxels might fall to the other side.
        geometry.__dict__["affine"] = affine.copy()
        return geometry

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size in index order: columns, rows, slices."""
        return self.n_columns, self.n_rows, len(self.origins_mm)

    @cached_property
    def normal(self) -> np.ndarray:
        """Unit vector across the slices, towards growing k; shape (3,)."""
        normal = np.cross(self.column_step_mm, self.row_step_mm)
        normal /= np.linalg.norm(normal)
        backwards = (self.origins_mm[-1] - self.origins_mm[0]) @ normal < 0
        return -normal if backwards else normal

    @cached_property
    def positions_mm(self) -> np.ndarray:
        """Where each slice lies along `normal`: shape (n_slices,), increasing."""
        return self.origins_mm @ self.normal

    @cached_property
    def affine(self) -> np.ndarray:
        """Index -> LPS mm of the even stack from the first slice to the last; shape (4, 4).

        Exact for a regular volume, sheared ones included. A single slice counts as 1 mm thick.
        """
        affine = np.eye(4)
        affine[:3, 0] = self.column_step_mm
        affine[:3, 1] = self.row_step_mm
        affine[:3, 2] = self._mean_step_mm
        affine[:3, 3] = self.origins_mm[0]
        return affine

    @cached_property
    def is_regular(self) -> bool:
        """Whether `affine` tells where every voxel lies."""
        even = self.origins_mm[0] + np.arange(len(self.origins_mm))[:, None] * self._mean_step_mm
        return bool(np.abs(self.origins_mm - even).max() < _REGULAR_TOLERANCE_MM)

    @property
    def _mean_step_mm(self) -> np.ndarray:
        if len(self.origins_mm) == 1:
            return self.normal
        return (self.origins_mm[-1] - self.origins_mm[0]) / (len(self.origins_mm) - 1)

    @property
    def corners_mm(self) -> np.ndarray:
        """LPS mm of the centres of the eight corner voxels; shape (8, 3)."""
        ends = [(0, size - 1) for size in self.shape]
        return self.to_lps(np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(8, 3))

    def to_index(self, points_mm: np.ndarray) -> np.ndarray:
        """Find points in the volume.

        k is linear between the two slices that a point truly lies between; beyond the ends the
        last step goes on. i and j count from the origin at that k, so a sheared or shifted
        stack is exact.

        Parameters
        ----------
        points_mm : numpy.ndarray
            LPS millimetres, shape (n, 3).

        Returns
        -------
        numpy.ndarray
            Continuous index (i, j, k), float64, shape (n, 3); voxel centres are whole numbers.
        """
        x_mm, y_mm, z_mm = np.asarray(points_mm, dtype=np.float64).T
        return np.stack(self.to_index_axes(x_mm, y_mm, z_mm), axis=1)

    def to_index_axes(
        self, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find points whose coordinates come axis by axis; see `to_index`.

        Parameters
        ----------
        x_mm, y_mm, z_mm : numpy.ndarray
            LPS millimetres, of shapes that broadcast together: a grid of points needs one value
            per plane, not one per point.

        Returns
        -------
        tuple of numpy.ndarray
            i, j, k, float64, of shapes that broadcast together; an axis that an index does not
            depend on is left at length 1 where the input allows it.
        """
        to_i, to_j = self._in_plane_inverse
        positions_mm, origins_i, origins_j = self._stack
        along_mm = _dot(self.normal, x_mm, y_mm, z_mm)
        below = np.searchsorted(positions_mm, along_mm, side="right") - 1
        below = below.clip(0, len(positions_mm) - 2)
        steps_mm, steps_i, steps_j = np.diff(self._stack)
        fraction = (along_mm - positions_mm[below]) / steps_mm[below]
        i = _dot(to_i, x_mm, y_mm, z_mm) - (origins_i[below] + fraction * steps_i[below])
        j = _dot(to_j, x_mm, y_mm, z_mm) - (origins_j[below] + fraction * steps_j[below])
        return i, j, below + fraction

    def holds(self, position_mm: Sequence[float] | np.ndarray) -> bool:
        """Whether a point (LPS mm) lies within the outer edges of the voxels.

        As in ITK, the first edge of each axis counts as inside, the last one does not.
        """
        index = self.to_index(np.array([position_mm]))[0]
        return bool((index >= -0.5).all() and (index < np.array(self.shape) - 0.5).all())

    def holes(self) -> list[tuple[int, float]]:
        """Find the places where slices are missing.

        Returns
        -------
        list of (int, float)
            Slice before the hole, and the step across it in mm: more than `WIDEST_STEP` medians.
        """
        steps_mm = np.diff(self.positions_mm)
        widest_mm = WIDEST_STEP * np.median(steps_mm) if len(steps_mm) else np.inf
        return [(int(k), float(steps_mm[k])) for k in np.flatnonzero(steps_mm > widest_mm)]

    def to_lps(self, index: np.ndarray) -> np.ndarray:
        """Place continuous indices in the patient; the inverse of `to_index`.

        Parameters
        ----------
        index : numpy.ndarray
            Continuous (i, j, k), shape (n, 3).

        Returns
        -------
        numpy.ndarray
            LPS millimetres, float64, shape (n, 3).
        """
        index = np.asarray(index, dtype=np.float64)
        origins_mm = self._at_least_two_origins_mm
        below = np.floor(index[:, 2]).astype(np.intp).clip(0, len(origins_mm) - 2)
        fraction = index[:, 2] - below
        return (
            origins_mm[below]
            + fraction[:, None] * np.diff(origins_mm, axis=0)[below]
            + index[:, :1] * self.column_step_mm
            + index[:, 1:2] * self.row_step_mm
        )

    @cached_property
    def _at_least_two_origins_mm(self) -> np.ndarray:
        """The origins, with one behind a single slice so that there always is a step."""
        if len(self.origins_mm) > 1:
            return self.origins_mm
        return np.vstack([self.origins_mm, self.origins_mm + self._mean_step_mm])

    @cached_property
    def _stack(self) -> np.ndarray:
        """Of each origin: position along the normal, and its offset as (i, j); shape (3, n)."""
        return np.vstack([self.normal, self._in_plane_inverse]) @ self._at_least_two_origins_mm.T

    @cached_property
    def _in_plane_inverse(self) -> np.ndarray:
        """In-plane offset in mm -> (i, j), by least squares; shape (2, 3)."""
        return np.linalg.pinv(np.stack([self.column_step_mm, self.row_step_mm], axis=1))


def _dot(vector: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Scalar product that leaves out axes of weight 0, so that they do not widen the result."""
    terms = [weight * values for weight, values in zip(vector, (x, y, z), strict=True) if weight]
    return np.asarray(sum(terms))
