"""What a DICOM RT Structure Set says: its ROIs, their contours, and the images they refer to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from oncofm.errors import Rejected, RTStructInvalidError
from oncofm.seeds.seed import SeedSource

_CONTOUR_DATA = Tag("ContourData")
_CONTOUR_IMAGES = Tag("ContourImageSequence")
_GEOMETRIC_TYPE = Tag("ContourGeometricType")
_NUMBER_OF_POINTS = Tag("NumberOfContourPoints")
_SLAB_THICKNESS = Tag("ContourSlabThickness")

_FARTHEST_MM = 1e5
"""No scanner's coordinates reach 100 m; such a number is damage."""
_THICKEST_SLAB_MM = 15.0
"""Contour Slab Thickness (3006,0044) beyond this is no slice's."""


@dataclass(frozen=True)
class ReferencedFrame:
    """An item of the Referenced Frame of Reference Sequence (3006,0010).

    Attributes
    ----------
    images : dict of str to frozenset of str
        Series Instance UID -> SOP Instance UIDs of its images.
    """

    images: dict[str, frozenset[str]]

    def series_of(self, drawn_on_uids: frozenset[str]) -> frozenset[str]:
        """Series that some of the images belong to."""
        return frozenset(uid for uid, images in self.images.items() if images & drawn_on_uids)


@dataclass(frozen=True, eq=False)
class Contours:
    """The contours of an ROI as read.

    Attributes
    ----------
    points_mm : numpy.ndarray
        Shape (n, 3) float64: the points of one contour behind those of the other.
    lengths : numpy.ndarray
        Shape (n_contours,) int64: how many points each has.
    types : list of str
        Contour Geometric Type of each.
    slab_thickness_mm : float or None
        Median of the thicknesses given.
    """

    points_mm: np.ndarray
    lengths: np.ndarray
    types: list[str]
    slab_thickness_mm: float | None

    @property
    def starts(self) -> np.ndarray:
        """Index of the first point of each contour."""
        return np.cumsum(self.lengths) - self.lengths

    def are(self, *types: str) -> np.ndarray:
        """Which contours are of one of some types; shape (n_contours,) bool."""
        return np.array([kind in types for kind in self.types], bool)


@dataclass(frozen=True, eq=False)
class Roi:
    """One ROI.

    Attributes
    ----------
    lesion_id : str
        ``roi-<ROI Number>``.
    source : SeedSource
        What is said about it.
    frame_of_reference_uid : str
        Of its coordinates, or empty.
    drawn_on_uids : frozenset of str
        Images that its contours were drawn on.
    contours : Contours or Rejected
        An error where they cannot be read.
    """

    lesion_id: str
    source: SeedSource
    frame_of_reference_uid: str
    drawn_on_uids: frozenset[str]
    contours: Contours | Rejected


def read_frames(dataset: Dataset) -> dict[str, ReferencedFrame]:
    """Read the Referenced Frame of Reference Sequence (PS3.3 C.8.8.5).

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        The structure set.

    Returns
    -------
    dict of str to ReferencedFrame
        By Frame of Reference UID.

    Raises
    ------
    Exception
        Whatever pydicom raises on absent or garbled attributes.
    """
    frames: dict[str, ReferencedFrame] = {}
    for frame in _items(dataset, "ReferencedFrameOfReferenceSequence"):
        images: dict[str, frozenset[str]] = {}
        for study in _items(frame, "RTReferencedStudySequence"):
            for series in _items(study, "RTReferencedSeriesSequence"):
                uid = str(series.SeriesInstanceUID)
                images[uid] = images.get(uid, frozenset()) | _image_uids(series)
        uid = str(frame.get("FrameOfReferenceUID") or "")
        known = frames.get(uid, ReferencedFrame({})).images
        for series_uid, uids in known.items():
            images[series_uid] = images.get(series_uid, frozenset()) | uids
        frames[uid] = ReferencedFrame(images)
    return frames


def _image_uids(item: Dataset) -> frozenset[str]:
    """Images in the Contour Image Sequence (3006,0016) of a series or a contour."""
    images = _items(item, "ContourImageSequence")
    uids = (str(image.get("ReferencedSOPInstanceUID") or "") for image in images)
    return frozenset(uid for uid in uids if uid)


def read_rois(dataset: Dataset, name: str, frames: dict[str, ReferencedFrame]) -> list[Roi]:
    """Read the ROIs and their contours (PS3.3 C.8.8.5, C.8.8.6).

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        The structure set.
    name : str
        For messages.
    frames : dict of str to ReferencedFrame
        As `read_frames` gives them; the only one holds for ROIs that name none.

    Returns
    -------
    list of Roi
        In the order of the Structure Set ROI Sequence.

    Raises
    ------
    RTStructInvalidError
        If the ROIs are not numbered so that contours can be told apart.
    Exception
        Whatever pydicom raises on absent or garbled attributes.
    """
    described = {int(item.ROINumber): item for item in _items(dataset, "StructureSetROISequence")}
    if len(described) != len(_items(dataset, "StructureSetROISequence")):
        raise RTStructInvalidError(f"{name} gives one number to two ROIs; export it again.")
    drawn: dict[int, list[Dataset]] = {}
    for item in dataset.ROIContourSequence:
        drawn.setdefault(int(item.ReferencedROINumber), []).extend(_items(item, "ContourSequence"))
    undescribed = drawn.keys() - described.keys()
    if undescribed or not described:
        numbers = ", ".join(map(str, sorted(undescribed))) or "any"
        raise RTStructInvalidError(f"{name} does not describe its ROI {numbers}; export it again.")
    only_frame = next(iter(frames)) if len(frames) == 1 else ""
    only_frame = only_frame or str(dataset.get("FrameOfReferenceUID") or "")
    seen: dict[bytes, frozenset[str]] = {}
    return [
        _roi(dataset, name, item, drawn.get(number, []), only_frame, seen)
        for number, item in described.items()
    ]


def _roi(
    dataset: Dataset,
    name: str,
    item: Dataset,
    drawn: list[Dataset],
    only_frame: str,
    seen: dict[bytes, frozenset[str]],
) -> Roi:
    number = int(item.ROINumber)
    lesion_id = f"roi-{number}"
    contours: Contours | Rejected
    drawn_on_uids: frozenset[str] = frozenset()
    try:
        with readable(f"{lesion_id} of {name}"):
            drawn_on_uids = _drawn_on(drawn, seen)
            contours = _contours(drawn, f"{lesion_id} of {name}")
    except Rejected as error:
        contours = error
    return Roi(
        lesion_id=lesion_id,
        source=_seed_source(dataset, number, item),
        frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID") or only_frame),
        drawn_on_uids=drawn_on_uids,
        contours=contours,
    )


def _seed_source(dataset: Dataset, number: int, item: Dataset) -> SeedSource:
    return SeedSource(
        kind="rtstruct",
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        segment_number=number,
        segment_label=str(item.get("ROIName") or ""),
        segment_description=str(item.get("ROIDescription") or ""),
        algorithm_type=str(item.get("ROIGenerationAlgorithm") or ""),
        tracking_id=str(item.get("TrackingID") or ""),
        tracking_uid=str(item.get("TrackingUID") or ""),
    )


def _drawn_on(drawn: list[Dataset], seen: dict[bytes, frozenset[str]]) -> frozenset[str]:
    """Images that contours were drawn on.

    Thousands of contours lie on a few hundred slices, so what a sequence of bytes says is kept
    in `seen`.
    """
    uids: set[str] = set()
    for contour in drawn:
        element = contour.get_item(_CONTOUR_IMAGES)
        key = getattr(element, "value", None)
        if not isinstance(key, bytes):
            uids |= _image_uids(contour)
            continue
        if key not in seen:
            seen[key] = _image_uids(contour)
        uids |= seen[key]
    return frozenset(uids)


def _contours(drawn: list[Dataset], name: str) -> Contours:
    numbers = [_coordinates(contour, name) for contour in drawn]
    points_mm = np.concatenate([np.empty(0), *numbers]).reshape(-1, 3)
    if not np.all(np.abs(points_mm) <= _FARTHEST_MM):
        raise RTStructInvalidError(
            f"{name} has coordinates that are no positions in millimetres; export it again."
        )
    given = [text for contour in drawn if (text := _text(contour, _SLAB_THICKNESS))]
    thicknesses_mm = [value for value in map(float, given) if 0 < value <= _THICKEST_SLAB_MM]
    return Contours(
        points_mm=points_mm,
        lengths=np.array([len(some) // 3 for some in numbers], np.int64),
        types=[_text(contour, _GEOMETRIC_TYPE).decode("ascii", "replace") for contour in drawn],
        slab_thickness_mm=float(np.median(thicknesses_mm)) if thicknesses_mm else None,
    )


def _coordinates(contour: Dataset, name: str) -> np.ndarray:
    """Contour Data (3006,0050), three numbers for each point; float64."""
    text = _text(contour, _CONTOUR_DATA)
    numbers = np.array(text.split(b"\\") if text else [], dtype=np.float64)
    claimed = _text(contour, _NUMBER_OF_POINTS)
    if len(numbers) % 3 or (claimed and int(claimed) * 3 != len(numbers)):
        points = f" for {int(claimed)} points" if claimed else ""
        raise RTStructInvalidError(
            f"{name} has a contour of {len(numbers)} coordinates{points}; export it again."
        )
    return numbers


def _text(contour: Dataset, tag: BaseTag) -> bytes:
    """Value of an element as it stands in the file, empty if absent.

    Turning the elements of thousands of contours into Python values takes pydicom seconds.
    """
    element = contour.get_item(tag)
    value = None if element is None else element.value
    if value is None:
        return b""
    if not isinstance(value, bytes):
        raise TypeError(f"{tag} is no text")
    return value.strip(b" \0")


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; none if it is absent or empty."""
    value = dataset.get(keyword)
    if value is None:
        return []
    if not isinstance(value, Sequence):
        raise TypeError(f"{keyword} is no sequence")
    return list(value)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn whatever a garbled object makes pydicom raise into one sentence without its values."""
    try:
        yield
    except (Rejected, MemoryError):
        raise
    except Exception as error:
        raise RTStructInvalidError(
            f"{name} is truncated or damaged and cannot be read ({type(error).__name__}); "
            "export it again."
        ) from error


def check_complete(dataset: Dataset, name: str) -> None:
    """Refuse a file that ends inside an element; pydicom would take what there is."""
    for element in dataset.values():
        length = getattr(element, "length", 0xFFFFFFFF)  # only raw elements have one
        value = element.value
        if length != 0xFFFFFFFF and isinstance(value, bytes) and len(value) < length:
            raise RTStructInvalidError(f"{name} is truncated; export it again.")
