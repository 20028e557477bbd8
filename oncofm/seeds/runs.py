"""Masks as runs: along each row of voxels, where a label starts and where it stops.

A mask of 200 million voxels is a few ten thousand runs, and everything a seed needs (centroid,
extent, volume, connected components) follows from the runs alone. So masks are turned into runs
frame by frame and never stand in memory as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Runs:
    """Stretches of voxels along rows; no voxel is in two of them.

    Attributes
    ----------
    plane, row : numpy.ndarray
        Shape (n,) int64: which plane of the grid, which row in it.
    start, stop : numpy.ndarray
        Shape (n,) int64: half-open range of columns.
    """

    plane: np.ndarray
    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def __len__(self) -> int:
        return len(self.plane)

    def where(self, chosen: np.ndarray) -> "Runs":
        """Keep some runs; `chosen` is a mask or an index array."""
        return Runs(self.plane[chosen], self.row[chosen], self.start[chosen], self.stop[chosen])


def join_runs(parts: Sequence[Runs]) -> Runs:
    """Put the runs of several frames together, sorted by plane, row and start."""
    if not parts:
        return Runs(*np.empty((4, 0), np.int64))
    joined = Runs(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("plane", "row", "start", "stop")
        )
    )
    return joined.where(np.lexsort((joined.start, joined.row, joined.plane)))


def find_runs(frame: np.ndarray, plane: int, background: float = 0) -> dict[int, Runs]:
    """Find the runs of every label in one frame, in a single pass for all labels.

    Parameters
    ----------
    frame : numpy.ndarray
        Shape (rows, columns), any bool, integer or whole-number float type.
    plane : int
        Plane of the grid that the frame lies in.
    background : float
        The value that is no label.

    Returns
    -------
    dict of int to Runs
        By label; labels without a voxel are absent.
    """
    n_rows, n_columns = frame.shape
    # Background between the rows keeps a run from going on in the next row.
    padded = np.full((n_rows, n_columns + 1), background, frame.dtype)
    padded[:, :n_columns] = frame
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges])
    stops = np.concatenate([edges, [flat.size]])
    values = flat[starts]
    inside = values != background
    starts, stops, values = starts[inside], stops[inside], values[inside]
    row = starts // (n_columns + 1)
    offset = row * (n_columns + 1)
    runs = Runs(np.full(len(row), plane, np.int64), row, starts - offset, stops - offset)
    labels = np.unique(values)
    if len(labels) == 1:
        return {int(labels[0]): runs}
    return {int(label): runs.where(values == label) for label in labels}


def connected_components(runs: Runs, layers: np.ndarray) -> np.ndarray:
    """Tell 26-connected components apart.

    Parameters
    ----------
    runs : Runs
        Sorted by plane, row and start, as `join_runs` leaves them.
    layers : numpy.ndarray
        Shape (n_planes,) int64, increasing: planes whose layers differ by one are neighbours.

    Returns
    -------
    numpy.ndarray
        Shape (len(runs),) int64: component of each run, counted from 0 in the order of their
        first runs.
    """
    if len(runs) == 0:
        return np.empty(0, np.int64)
    first, second = _touching(runs, layers)
    roots = np.arange(len(runs))
    while True:
        a, b = roots[first], roots[second]
        if np.array_equal(a, b):
            break
        np.minimum.at(roots, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(roots, shorter := roots[roots]):
            roots = shorter
    return np.unique(roots, return_inverse=True)[1]


def _touching(runs: Runs, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs that share a face, an edge or a corner, as two index arrays.

    Runs of one row never touch each other. Of a neighbouring row, those touch that begin at or
    before this run's stop and stop at or after its start; as runs are sorted, they stand next to
    each other and two binary searches find them.
    """
    rows_apart = int(runs.row.max()) + 2  # a spare row, so that row -1 is no row of the layer below
    columns_apart = int(runs.stop.max()) + 1
    line = layers[runs.plane] * rows_apart + runs.row
    start_keys = line * columns_apart + runs.start
    stop_keys = line * columns_apart + runs.stop
    first, second = [], []
    for lines_on in (1, rows_apart - 1, rows_apart, rows_apart + 1):
        neighbour = (line + lines_on) * columns_apart
        begin = np.searchsorted(stop_keys, neighbour + runs.start, side="left")
        end = np.searchsorted(start_keys, neighbour + runs.stop, side="right")
        count = np.maximum(end - begin, 0)
        first.append(np.repeat(np.arange(len(runs)), count))
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        second.append(np.repeat(begin, count) + within)
    return np.concatenate(first), np.concatenate(second)
