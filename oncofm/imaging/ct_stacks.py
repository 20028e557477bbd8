"""From the frames of a CT series to stacks that can be sampled: what belongs together.

Frames of one orientation, size, spacing and frame of reference form a group. Where two frames
of a group lie in one place, equal pixels mean a copy (one is dropped), different pixels mean
two scans (told apart by their acquisition) or a contradiction (rejected).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from oncofm.errors import DuplicatePositionError
from oncofm.imaging.ct_frames import CTFrame
from oncofm.imaging.geometry import Geometry

SAME_POSITION_MM = 0.01
"""Slices closer than this along the normal lie in one place."""
_SAME_COSINE = 1e-3
"""Direction cosines that differ by less name one orientation."""
_SAME_SPACING_MM = 1e-4

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Stack:
    """Frames in the order of their positions, no two in one place.

    Attributes
    ----------
    frames : tuple of CTFrame
        Sorted along the normal.
    n_dropped : int
        Copies that were left away.
    """

    frames: tuple[CTFrame, ...]
    n_dropped: int = 0

    def geometry(self) -> Geometry:
        """Where the voxels lie (PS3.3 C.7.6.2.1.1)."""
        first = self.frames[0]
        between_rows_mm, between_columns_mm = first.pixel_spacing_mm
        assert first.instance.columns is not None
        assert first.instance.rows is not None
        return Geometry(
            column_step_mm=np.array(first.orientation[:3]) * between_columns_mm,
            row_step_mm=np.array(first.orientation[3:]) * between_rows_mm,
            origins_mm=np.array([frame.position_mm for frame in self.frames]),
            n_columns=first.instance.columns,
            n_rows=first.instance.rows,
        )


Pixels = Callable[[CTFrame], np.ndarray | None]
"""Gives the Hounsfield units of a frame, or None if it cannot be decoded."""


def group_by_plane(frames: Sequence[CTFrame]) -> list[list[CTFrame]]:
    """Put frames together that could lie in one stack, in the order of their first frame.

    Parameters
    ----------
    frames : sequence of CTFrame
        Frames of one series.
    """
    groups: dict[tuple[object, ...], list[CTFrame]] = {}
    known: dict[tuple[object, ...], tuple[object, ...]] = {}
    for frame in frames:
        exact = (
            frame.instance.rows,
            frame.instance.columns,
            frame.instance.frame_of_reference_uid,
            frame.orientation,
            frame.pixel_spacing_mm,
        )
        if exact not in known:
            known[exact] = next((key for key in groups if _is_same_plane(key, exact)), exact)
        groups.setdefault(known[exact], []).append(frame)
    return list(groups.values())


def _is_same_plane(a: tuple, b: tuple) -> bool:
    return (
        a[:3] == b[:3]
        and np.allclose(a[3], b[3], rtol=0, atol=_SAME_COSINE)
        and np.allclose(a[4], b[4], rtol=0, atol=_SAME_SPACING_MM)
    )


def separate(frames: Sequence[CTFrame], pixels: Pixels) -> list[Stack]:
    """Make stacks of frames of one plane.

    Parameters
    ----------
    frames : sequence of CTFrame
        From `group_by_plane`.
    pixels : callable
        Asked only for frames that lie in one place, until two of them contradict each other.

    Returns
    -------
    list of Stack
        One, or one per acquisition where only that keeps frames apart.

    Raises
    ------
    DuplicatePositionError
        If frames in one place differ and nothing in their headers says why.
    """
    places = _places(frames)
    try:
        kept = tuple(place[0] if len(place) == 1 else _one_of(place, pixels) for place in places)
    except DuplicatePositionError as contradiction:
        for which in range(len(frames[0].acquisition)):
            parts = _group(frames, lambda frame, which=which: frame.acquisition[which])
            if len(parts) > 1:
                try:
                    return [stack for part in parts for stack in separate(part, pixels)]
                except DuplicatePositionError:
                    continue
        raise contradiction
    return [Stack(kept, len(frames) - len(kept))]


def _one_of(place: Sequence[CTFrame], pixels: Pixels) -> CTFrame:
    """Choose among copies: the first that can be decoded."""
    kept, kept_hu = place[0], None
    for frame in place:
        hu = pixels(frame)
        if kept_hu is None and hu is not None:
            kept, kept_hu = frame, hu
        elif hu is not None and not np.array_equal(hu, kept_hu):  # type: ignore[arg-type]
            raise DuplicatePositionError(
                f"Series {kept.instance.series_uid} has two different images at one position "
                f"({kept.name} and {frame.name}); remove the one that does not belong to it."
            )
    return kept


def _places(frames: Sequence[CTFrame]) -> list[list[CTFrame]]:
    """Frames by where they lie along the normal, sorted; those in one place together."""
    orientation = frames[0].orientation
    normal = np.cross(orientation[:3], orientation[3:])
    along_mm = np.array([frame.position_mm for frame in frames]) @ normal
    places: list[list[CTFrame]] = []
    place_mm = -np.inf
    for which in np.argsort(along_mm, kind="stable"):
        if along_mm[which] - place_mm < SAME_POSITION_MM:
            places[-1].append(frames[which])
        else:
            place_mm = along_mm[which]
            places.append([frames[which]])
    return places


def _group(frames: Sequence[CTFrame], key: Callable[[CTFrame], _Key]) -> list[list[CTFrame]]:
    groups: dict[_Key, list[CTFrame]] = {}
    for frame in frames:
        groups.setdefault(key(frame), []).append(frame)
    return list(groups.values())
