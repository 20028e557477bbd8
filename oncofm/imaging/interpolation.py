"""Linear interpolation between the voxels of a box."""

import numpy as np


def trilinear(box: np.ndarray, index: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
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
