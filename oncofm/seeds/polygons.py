"""What closed polygons enclose, exactly: no raster, any shape, holes and crossings included.

Each sheet of polygons is cut into horizontal bands at every corner and every crossing. Inside a
band edges neither begin, end nor cross, so sorted from left to right they bound trapezoids, and
area, centroid, box and the question whether a point is inside follow from those in closed form.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

_CROSSING_TOLERANCE_MM = 1e-6
"""Edges that overrun each other by less than this touch, they do not cross."""
_MOST_ROUNDS = 24
"""How often bands are cut again where edges cross; one or two rounds are usual."""
_NESTED_SHARE = 0.999
"""A polygon with this share of its area in a larger one lies within it; two that share this much
are the same one drawn twice."""
_MOST_PIECES = 2_000_000
"""Pieces of edges in one sheet: far beyond any drawing, and still below a gigabyte."""
_MOST_CELLS = 40_000_000
"""Pieces times polygons where polygons of one sheet overlap."""
_EDGES_AT_ONCE = 250_000
_GAPS_AT_ONCE = 20_000
_DECIMALS = 6
"""Corners are rounded to a nanometre, so that slopes stay finite and joints meet."""
_NO_AREA_MM2 = 1e-9
"""A trapezoid smaller than this is the two sides of a bridge or spike."""


class TooIntricateError(ValueError):
    """Polygons with so many corners and crossings that measuring them would exhaust memory."""


@dataclass(frozen=True, eq=False)
class _Columns:
    """Arrays of one length."""

    def where(self, chosen: np.ndarray | slice) -> Self:
        """Keep some rows; `chosen` is a mask, an index array or a slice."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Put several together, one behind the other."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )


@dataclass(frozen=True, eq=False)
class Trapezoids(_Columns):
    """Pieces of area; no two overlap, and together they are the region.

    Attributes
    ----------
    sheet : numpy.ndarray
        Shape (n,) int64: the sheet that the trapezoid lies in.
    low, high : numpy.ndarray
        Shape (n,) float64: y of the two parallel sides, in mm.
    left_low, left_high, right_low, right_high : numpy.ndarray
        Shape (n,) float64: x of the corners, in mm.
    """

    sheet: np.ndarray
    low: np.ndarray
    high: np.ndarray
    left_low: np.ndarray
    left_high: np.ndarray
    right_low: np.ndarray
    right_high: np.ndarray

    def __len__(self) -> int:
        return len(self.sheet)

    def moments(self) -> np.ndarray:
        """Integrals of 1, x and y over each trapezoid; shape (3, n), in mm2 and mm3."""
        height = self.high - self.low
        width_low, width_high = self.right_low - self.left_low, self.right_high - self.left_high
        area = height * (width_low + width_high) / 2
        squares_right = self.right_low**2 + self.right_low * self.right_high + self.right_high**2
        squares_left = self.left_low**2 + self.left_low * self.left_high + self.left_high**2
        return np.stack(
            [
                area,
                height * (squares_right - squares_left) / 6,
                self.low * area + height**2 * (width_low / 6 + width_high / 3),
            ]
        )

    def boxes(self) -> np.ndarray:
        """Least x and y, greatest x and y; shape (n, 4)."""
        return np.stack(
            [
                np.minimum(self.left_low, self.left_high),
                self.low,
                np.maximum(self.right_low, self.right_high),
                self.high,
            ],
            axis=1,
        )

    def contain(self, x_mm: float, y_mm: float, tolerance_mm: float) -> np.ndarray:
        """Whether each trapezoid holds a point, sides included; shape (n,) bool."""
        share = np.clip((y_mm - self.low) / (self.high - self.low), 0, 1)
        left = self.left_low + share * (self.left_high - self.left_low)
        right = self.right_low + share * (self.right_high - self.right_low)
        return (
            (y_mm >= self.low - tolerance_mm)
            & (y_mm <= self.high + tolerance_mm)
            & (x_mm >= left - tolerance_mm)
            & (x_mm <= right + tolerance_mm)
        )


def enclosed(
    corners_mm: np.ndarray, lengths: np.ndarray, sheets: np.ndarray, even_odd_sheets: np.ndarray
) -> Trapezoids:
    """Find the area that polygons enclose, sheet by sheet.

    A polygon by itself encloses what lies inside it by the even-odd rule: a keyhole polygon, which
    reaches its inner outline over a bridge, has a hole. Of several polygons in a sheet, one
    within another is a hole in it, one within a hole is an island again, and polygons that
    overlap in part, or are drawn twice, add up.

    Parameters
    ----------
    corners_mm : numpy.ndarray
        Shape (n, 2) float64: x and y of the corners, one polygon behind the other. The last
        corner of a polygon joins its first.
    lengths : numpy.ndarray
        Shape (n_polygons,) int64: how many corners each has, at least one.
    sheets : numpy.ndarray
        Shape (n_polygons,) int64: the sheet that each polygon lies in.
    even_odd_sheets : numpy.ndarray
        Sheets whose polygons are combined by exclusive or instead.

    Returns
    -------
    Trapezoids
        Sorted by sheet and y, without those of no area.

    Raises
    ------
    TooIntricateError
        If a sheet has too many corners, crossings or overlapping polygons.
    """
    corners_mm = np.round(corners_mm, _DECIMALS)
    overlapping = _sheets_with_overlaps(corners_mm, lengths, sheets)
    overlapping = np.setdiff1d(overlapping, even_odd_sheets)
    edges = _edges(corners_mm, lengths, sheets)
    added_up = np.isin(edges.sheet, overlapping)
    parts = [
        _between(pieces, slice(0, None, 2), slice(1, None, 2))
        for group in _groups(edges.where(~added_up))
        for pieces in _pieces(group)
    ]
    for sheet in overlapping.tolist():
        parts.append(_add_up(_Pieces.join([*_pieces(edges.where(edges.sheet == sheet))])))
    if not parts:
        return Trapezoids(np.empty(0, np.int64), *np.empty((6, 0)))
    found = Trapezoids.join(parts)
    found = found.where(found.moments()[0] > _NO_AREA_MM2)
    return found.where(np.lexsort((found.low, found.sheet)))


@dataclass(frozen=True, eq=False)
class _Edges(_Columns):
    """Sides of polygons that are not horizontal, lower end first."""

    sheet: np.ndarray
    polygon: np.ndarray
    x_low: np.ndarray
    y_low: np.ndarray
    x_high: np.ndarray
    y_high: np.ndarray


@dataclass(frozen=True, eq=False)
class _Pieces(_Columns):
    """Parts of edges, each from the bottom to the top of a band; sorted by band and x."""

    sheet: np.ndarray
    polygon: np.ndarray
    band: np.ndarray
    low: np.ndarray
    high: np.ndarray
    x_low: np.ndarray
    x_high: np.ndarray


def _edges(corners_mm: np.ndarray, lengths: np.ndarray, sheets: np.ndarray) -> _Edges:
    stops = np.cumsum(lengths)
    following = np.arange(1, len(corners_mm) + 1)
    following[stops - 1] = stops - lengths
    begin, end = corners_mm, corners_mm[following]
    upwards = begin[:, 1] < end[:, 1]
    low, high = np.where(upwards[:, None], [begin, end], [end, begin])
    polygon = np.repeat(np.arange(len(lengths)), lengths)
    edges = _Edges(sheets[polygon], polygon, low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    return edges.where(low[:, 1] < high[:, 1])


def _groups(edges: _Edges) -> Iterator[_Edges]:
    """Deal out whole sheets, so many at once that their pieces are unlikely to fill memory."""
    counts = np.bincount(edges.sheet)
    group = (np.cumsum(counts) // _EDGES_AT_ONCE)[edges.sheet]
    for number in np.unique(group).tolist():
        yield edges.where(group == number)


def _pieces(edges: _Edges) -> Iterator[_Pieces]:
    """Cut edges into pieces that do not cross, in one go for most sheets."""
    more_levels = np.empty((2, 0))
    for rounds_left in reversed(range(_MOST_ROUNDS)):
        try:
            pieces = _cut(edges, more_levels)
        except TooIntricateError:
            sheets = np.unique(edges.sheet)
            if len(sheets) == 1:
                raise
            upper = edges.sheet >= sheets[len(sheets) // 2]
            yield from _pieces(edges.where(~upper))
            yield from _pieces(edges.where(upper))
            return
        crossings = _crossings(pieces)
        crossed = np.unique(crossings[0]).astype(np.int64)
        if len(crossed) == 0 or rounds_left == 0:
            yield pieces
            return
        yield pieces.where(~np.isin(pieces.sheet, crossed))
        edges = edges.where(np.isin(edges.sheet, crossed))
        more_levels = np.concatenate([more_levels, crossings], axis=1)
        more_levels = more_levels[:, np.isin(more_levels[0], crossed)]


def _cut(edges: _Edges, more_levels: np.ndarray) -> _Pieces:
    """Cut edges at every corner of their sheet, and at further levels (sheet, y)."""
    level_sheets = np.concatenate([edges.sheet, edges.sheet, more_levels[0].astype(np.int64)])
    levels = np.concatenate([edges.y_low, edges.y_high, more_levels[1]])
    order = np.lexsort((levels, level_sheets))
    ordered_sheets, ordered = level_sheets[order], levels[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(ordered) > 0) | (np.diff(ordered_sheets) > 0)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(is_new) - 1
    heights = ordered[is_new]

    n_edges = len(edges.sheet)
    first, stop = number[:n_edges], number[n_edges : 2 * n_edges]
    counts = stop - first
    if counts.sum() > _MOST_PIECES:
        raise TooIntricateError(f"{counts.sum()} pieces of edges")
    edge = np.repeat(np.arange(n_edges), counts)
    band = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    low, high = heights[band], heights[band + 1]
    y_low, x_low = edges.y_low[edge], edges.x_low[edge]
    slope = ((edges.x_high - edges.x_low) / (edges.y_high - edges.y_low))[edge]
    x_at_low = x_low + (low - y_low) * slope
    x_at_high = np.where(
        high == edges.y_high[edge], edges.x_high[edge], x_low + (high - y_low) * slope
    )
    pieces = _Pieces(edges.sheet[edge], edges.polygon[edge], band, low, high, x_at_low, x_at_high)
    return pieces.where(np.lexsort((x_at_low + x_at_high, band)))


def _crossings(pieces: _Pieces) -> np.ndarray:
    """Where neighbours change places within a band, as (sheet, y); shape (2, n)."""
    left, right = pieces.where(slice(None, -1)), pieces.where(slice(1, None))
    over_low, over_high = left.x_low - right.x_low, left.x_high - right.x_high
    crossed = (left.band == right.band) & (np.maximum(over_low, over_high) > _CROSSING_TOLERANCE_MM)
    over_low, over_high = over_low[crossed], over_high[crossed]
    low, high = left.low[crossed], left.high[crossed]
    y = low + over_low / (over_low - over_high) * (high - low)
    inside = (y > low) & (y < high)
    return np.stack([left.sheet[crossed][inside], y[inside]])


def _between(pieces: _Pieces, left: slice | np.ndarray, right: slice | np.ndarray) -> Trapezoids:
    """Span trapezoids between pieces of one band.

    A closed polygon crosses each band an even number of times, so even and odd pieces pair up.
    """
    return Trapezoids(
        sheet=pieces.sheet[left],
        low=pieces.low[left],
        high=pieces.high[left],
        left_low=pieces.x_low[left],
        left_high=pieces.x_high[left],
        right_low=pieces.x_low[right],
        right_high=pieces.x_high[right],
    )


def _add_up(pieces: _Pieces) -> Trapezoids:
    """Combine polygons of one sheet, of which some overlap, some may be holes in others."""
    pieces = pieces.where(np.lexsort((pieces.x_low + pieces.x_high, pieces.band)))
    polygons = np.unique(pieces.polygon)
    if len(polygons) * len(pieces.band) > _MOST_CELLS:
        raise TooIntricateError(f"{len(polygons)} overlapping polygons")
    # Whether the gap to the right of a piece is inside a polygon. As each polygon crosses each
    # band an even number of times, the count need not start afresh in every band.
    within = np.stack(
        [np.cumsum(pieces.polygon == polygon, dtype=np.uint8) & 1 for polygon in polygons]
    ).astype(bool)
    gaps = np.arange(len(pieces.band) - 1)
    area = np.zeros(len(pieces.band))
    area[:-1] = _between(pieces, gaps, gaps + 1).moments()[0]
    depth = _depths(_shared_areas(within, area))
    # Solid where the innermost polygons are: outlines have depth 0, holes 1, islands 2 ...
    innermost = np.full(len(area), -1)
    for row, level in zip(within, depth, strict=True):
        np.maximum(innermost, level, out=innermost, where=row)
    solid = np.flatnonzero((innermost >= 0) & (innermost % 2 == 0))
    return _between(pieces, solid, solid + 1)


def _shared_areas(within: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Area that each two polygons have in common; shape (n_polygons, n_polygons)."""
    shared = np.zeros((len(within), len(within)))
    for first in range(0, len(area), _GAPS_AT_ONCE):
        some = slice(first, first + _GAPS_AT_ONCE)
        inside = within[:, some].astype(np.float64)
        shared += (inside * area[some]) @ inside.T
    return shared


def _depths(shared: np.ndarray) -> np.ndarray:
    """How deep each polygon is nested: one deeper than the deepest that it lies in."""
    area = np.diag(shared)
    nested = (shared >= _NESTED_SHARE * area[:, None]) & (
        area[:, None] < _NESTED_SHARE * area[None, :]
    )
    depths = np.zeros(len(area), np.int64)
    for index in np.argsort(-area, kind="stable").tolist():
        depths[index] = (depths[nested[index]] + 1).max(initial=0)
    return depths


def _sheets_with_overlaps(
    corners_mm: np.ndarray, lengths: np.ndarray, sheets: np.ndarray
) -> np.ndarray:
    """Sheets in which the boxes of two polygons overlap."""
    starts = np.cumsum(lengths) - lengths
    order = np.argsort(sheets, kind="stable")
    low = np.minimum.reduceat(corners_mm, starts)[order]
    high = np.maximum.reduceat(corners_mm, starts)[order]
    found = []
    for members in np.split(np.arange(len(order)), np.flatnonzero(np.diff(sheets[order])) + 1):
        if len(members) > 1 and _boxes_overlap(low[members], high[members]):
            found.append(sheets[order[members[0]]])
    return np.array(found, np.int64)


def _boxes_overlap(low: np.ndarray, high: np.ndarray) -> bool:
    for index in range(len(low) - 1):
        later = slice(index + 1, None)
        if ((low[later] < high[index]) & (high[later] > low[index])).all(axis=1).any():
            return True
    return False
