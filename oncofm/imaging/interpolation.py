"""Linear interpolation between the voxels of a box."""

import numpy as np

Index = tuple[np.ndarray, np.ndarray, np.ndarray]


def trilinear(box: np.ndarray, index: Index) -> np.ndarray:
    """Interpolate linearly inside a box of voxels: along i, then j, then k.

    Parameters
    ----------
    box : numpy.ndarray
        Shape (k, j, i). Every point has a voxel behind it on each axis.
    index : tuple of numpy.ndarray
        Continuous (i, j, k), broadcasting against each other. Float32 indices are quicker, and
        exact enough to look at.

    Returns
    -------
    numpy.ndarray
        In the shape that the indices broadcast to, of the wider of the two dtypes.
    """
    lines = _lines(index)
    return _at_points(box, index) if lines is None else _on_lines(box, lines)


def _lines(index: Index) -> Index | None:
    """Find the grid lines that points lie on; None if an index varies along another's axis."""
    shape = np.broadcast_shapes(*(values.shape for values in index))
    if not all(values.ndim == len(shape) == 3 for values in index):
        return None
    i, j, k = index
    lines = i[:1, :1, :], j[:1, :, :1], k[:, :1, :1]
    if shape != (lines[2].size, lines[1].size, lines[0].size):
        return None
    for line, values in zip(lines, index, strict=True):
        if not np.array_equal(np.broadcast_to(line, values.shape), values):
            return None
    return lines


def _on_lines(box: np.ndarray, lines: Index) -> np.ndarray:
    """Interpolate axis by axis: each point is the outcome of the same sums as in `_at_points`."""
    for axis, line in zip((2, 1, 0), lines, strict=True):
        base = np.floor(line).astype(np.intp)
        here, behind = (box.take(base.ravel() + step, axis) for step in (0, 1))
        behind -= here
        box = behind * (line - base).astype(line.dtype)
        box += here
    return box


def _at_points(box: np.ndarray, index: Index) -> np.ndarray:
    bases = [np.floor(axis).astype(np.intp) for axis in index]
    di, dj, dk = ((axis - base).astype(axis.dtype) for axis, base in zip(index, bases, strict=True))
    step_k, step_j = box.shape[1] * box.shape[2], box.shape[2]
    corner = bases[2] * step_k + bases[1] * step_j + bases[0]
    flat = box.ravel()

    def along_i(offset: int) -> np.ndarray:
        here = flat[offset:].take(corner)
        return here + (flat[offset + 1 :].take(corner) - here) * di

    def along_j(offset: int) -> np.ndarray:
        here = along_i(offset)
        return here + (along_i(offset + step_j) - here) * dj

    here = along_j(0)
    return here + (along_j(step_k) - here) * dk
