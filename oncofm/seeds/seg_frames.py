"""Where the frames of a DICOM segmentation lie (PS3.3 A.51, C.7.6.16).

A segmentation has a grid of its own: frames in any order, empty ones left out, in any
orientation, not necessarily that of the CT it was drawn on.
"""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from oncofm.errors import SegmentationInvalidError
from oncofm.seeds.measure import MaskGrid

_PIXEL_MEASURES = Tag("PixelMeasuresSequence")
_PLANE_ORIENTATION = Tag("PlaneOrientationSequence")
_PLANE_POSITION = Tag("PlanePositionSequence")
_SEGMENT_IDENTIFICATION = Tag("SegmentIdentificationSequence")
_SPACING = Tag("PixelSpacing")
_ORIENTATION = Tag("ImageOrientationPatient")
_POSITION = Tag("ImagePositionPatient")
_SEGMENT_NUMBER = Tag("ReferencedSegmentNumber")

_SAME_PLACE_MM = 0.01
"""Planes closer than this are one plane; no scanner's are."""
_DIRECTION_TOLERANCE = 1e-3
"""How far direction cosines may be from unit length and right angles, and from each other."""
_WHOLE_STEP_TOLERANCE = 0.05
_WHOLE_STEP_DRIFT = 0.01
"""How far a gap may be from a whole number of spacings, in spacings and per spacing."""
_WIDEST_STEP = 2.5
"""In an uneven stack, planes more than this many median gaps apart are no neighbours."""


@dataclass(frozen=True, eq=False)
class SegFrames:
    """What the functional groups say, frame by frame.

    Attributes
    ----------
    grid : MaskGrid
        The planes, sorted along their normal; it covers those that have a frame.
    plane : numpy.ndarray
        Shape (n_frames,) int64: plane of the grid of each frame.
    segment : tuple of int or None
        Segment of each frame; None where a frame shows all segments (LABELMAP).
    """

    grid: MaskGrid
    plane: np.ndarray
    segment: tuple[int, ...] | None


def read_frames(dataset: Dataset, name: str) -> SegFrames:
    """Read the functional groups of all frames.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        The segmentation.
    name : str
        For messages.

    Returns
    -------
    SegFrames
        Where each frame lies and what it shows.

    Raises
    ------
    SegmentationInvalidError
        If the frames are not one stack of parallel planes with one frame per plane and segment.
    Exception
        Whatever pydicom raises on absent or garbled attributes.
    """
    groups = _FunctionalGroups(dataset)
    if groups.n_frames != int(dataset.NumberOfFrames) or groups.n_frames == 0:
        raise SegmentationInvalidError(
            f"{name} describes {groups.n_frames} frames but claims to have "
            f"{dataset.NumberOfFrames}; export it again."
        )
    column_step_mm, row_step_mm = _steps(groups, name)
    normal = np.cross(column_step_mm, row_step_mm)
    normal /= np.linalg.norm(normal)
    positions_mm = groups.numbers(_PLANE_POSITION, _POSITION, 3)
    plane, origins_mm = _planes(positions_mm, normal, name)
    measures = groups.items(_PIXEL_MEASURES)[0]
    if len(origins_mm) == 1:
        thickness_mm, layers = _single_plane(measures)
    else:
        thickness_mm, layers = _stack(np.diff(origins_mm @ normal), measures)
    grid = MaskGrid(column_step_mm, row_step_mm, origins_mm, thickness_mm, layers)
    if dataset.get("SegmentationType") == "LABELMAP":
        segment = None
        shown = plane[:, None]
    else:
        numbers = groups.numbers(_SEGMENT_IDENTIFICATION, _SEGMENT_NUMBER, 1)
        segment = tuple(numbers[:, 0].astype(int).tolist())
        shown = np.stack([plane, segment], axis=1)
    if len(np.unique(shown, axis=0)) < groups.n_frames:
        raise SegmentationInvalidError(
            f"{name} has two frames of one segment at one position; export it again."
        )
    return SegFrames(grid, plane, segment)


def frame_source_uids(dataset: Dataset, frame: int) -> set[str]:
    """SOP Instance UIDs of the images that a frame was derived from."""
    groups = dataset.PerFrameFunctionalGroupsSequence[frame]
    return {
        str(image.ReferencedSOPInstanceUID)
        for derivation in groups.get("DerivationImageSequence", [])
        for image in derivation.get("SourceImageSequence", [])
    }


class _FunctionalGroups:
    """Items of functional groups, wherever they stand: shared by all frames, or per frame."""

    def __init__(self, dataset: Dataset) -> None:
        shared = dataset.get("SharedFunctionalGroupsSequence", [])
        self._shared = shared[0] if len(shared) else Dataset()
        self._per_frame = dataset.PerFrameFunctionalGroupsSequence
        self.n_frames = len(self._per_frame)

    def items(self, macro: BaseTag) -> list[Dataset]:
        """One item per frame, or a single one for all frames.

        Looked up by tag, because there may be thousands and a keyword costs as much as a value.
        """
        if macro in self._shared:
            return [self._shared[macro].value[0]]
        return [frame[macro].value[0] for frame in self._per_frame]

    def numbers(self, macro: BaseTag, tag: BaseTag, length: int) -> np.ndarray:
        """Numbers of one attribute, float64, shape (n_frames, length)."""
        values = [item[tag].value for item in self.items(macro)]
        numbers = np.array(values, dtype=np.float64).reshape(len(values), length)
        if not np.isfinite(numbers).all():
            raise ValueError(f"{tag} is not finite in every frame")
        return np.broadcast_to(numbers, (self.n_frames, length))

    def same_numbers(self, macro: BaseTag, tag: BaseTag, length: int) -> np.ndarray | None:
        """Get the numbers that all frames agree on, None if they do not; shape (length,)."""
        numbers = self.numbers(macro, tag, length)
        agree = np.abs(numbers - numbers[0]).max() <= _DIRECTION_TOLERANCE
        return numbers[0] if agree else None


def _steps(groups: _FunctionalGroups, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the steps along a row and along a column."""
    cosines = groups.same_numbers(_PLANE_ORIENTATION, _ORIENTATION, 6)
    spacing_mm = groups.same_numbers(_PIXEL_MEASURES, _SPACING, 2)
    if cosines is None or spacing_mm is None:
        raise SegmentationInvalidError(
            f"{name} has frames of several orientations or pixel spacings; export one "
            "segmentation for each."
        )
    products = cosines.reshape(2, 3) @ cosines.reshape(2, 3).T
    if np.abs(products - np.eye(2)).max() > _DIRECTION_TOLERANCE or spacing_mm.min() <= 0:
        raise SegmentationInvalidError(
            f"{name} has impossible direction cosines or pixel spacings; export it again."
        )
    between_rows_mm, between_columns_mm = spacing_mm
    return cosines[:3] * between_columns_mm, cosines[3:] * between_rows_mm


def _planes(
    positions_mm: np.ndarray, normal: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sort frames into planes: plane of each frame, origin of each plane."""
    depths_mm = positions_mm @ normal
    order = np.argsort(depths_mm, kind="stable")
    new_plane = np.diff(depths_mm[order], prepend=-np.inf) > _SAME_PLACE_MM
    plane = np.empty(len(order), np.int64)
    plane[order] = np.cumsum(new_plane) - 1
    origins_mm = positions_mm[order][new_plane]
    if np.abs(positions_mm - origins_mm[plane]).max() > _SAME_PLACE_MM:
        raise SegmentationInvalidError(
            f"{name} is tiled, with frames side by side in one plane; export it with one frame "
            "per plane."
        )
    return plane, origins_mm


def _single_plane(measures: Dataset) -> tuple[np.ndarray, np.ndarray]:
    thickness_mm = float(measures.get("SpacingBetweenSlices") or measures.SliceThickness)
    if not thickness_mm > 0:
        raise ValueError("the only plane has no thickness")
    return np.array([thickness_mm]), np.zeros(1, np.int64)


def _stack(gaps_mm: np.ndarray, measures: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Work out thickness and layer of each plane.

    Where every gap is a whole number of spacings, the stack is even, and the wider gaps are
    frames that were left out as empty. Else the stack is uneven: a plane reaches half way to
    its neighbours.
    """
    declared_mm = float(measures.get("SpacingBetweenSlices") or 0)
    for spacing_mm in (declared_mm, float(gaps_mm.min())):
        steps = np.rint(gaps_mm / spacing_mm) if spacing_mm > 0 else np.zeros(1)
        tolerance = np.maximum(_WHOLE_STEP_TOLERANCE, _WHOLE_STEP_DRIFT * steps)
        if steps.min() >= 1 and np.all(np.abs(gaps_mm / spacing_mm - steps) <= tolerance):
            single_mm = gaps_mm[steps == 1]
            thickness_mm = single_mm.mean() if len(single_mm) else spacing_mm
            return np.full(len(gaps_mm) + 1, thickness_mm), _layers(np.minimum(steps, 2))
    wide = gaps_mm > _WIDEST_STEP * np.median(gaps_mm)
    reach_mm = np.where(wide, np.median(gaps_mm), gaps_mm) / 2
    thickness_mm = np.append(reach_mm, reach_mm[-1]) + np.insert(reach_mm, 0, reach_mm[0])
    return thickness_mm, _layers(np.where(wide, 2, 1))


def _layers(steps: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
