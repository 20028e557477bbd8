"""The content tree of a structured report, as far as it says where lesions are (PS3.3 C.17.3)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset

_MEASUREMENT_GROUP = "125007"
_TRACKING_IDENTIFIER = "112039"
_TRACKING_UNIQUE_IDENTIFIER = "112040"
_FINDING = "121071"
_REFERENCED_SEGMENT = "121191"
_REFERENCED_SEGMENTATION_FRAME = "121214"
_SOURCE_SERIES_FOR_SEGMENTATION = "121232"
_REGION_IN_SPACE = "130488"

_NO_IMAGES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{branch}." for branch in ("9", "11", "66", "88", "104", "481")
)
"""SOP classes of evidence that lesions are not drawn on: waveforms, presentation states,
segmentations and registrations, reports, documents, radiotherapy."""


@dataclass(frozen=True)
class ImageItem:
    """An IMAGE content item (PS3.3 C.18.4).

    Attributes
    ----------
    sop_instance_uid : str
        Referenced SOP Instance UID (0008,1155).
    frames : tuple of int
        Referenced Frame Number (0008,1160), empty for a single-frame image.
    segments : tuple of int
        Referenced Segment Number (0062,000B), empty where none is named.
    """

    sop_instance_uid: str
    frames: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A SCOORD or SCOORD3D content item (PS3.3 C.18.6 and C.18.9).

    Attributes
    ----------
    graphic_type : str
        Graphic Type (0070,0023).
    values : numpy.ndarray
        Graphic Data (0070,0022), float64: shape (n, 2), column and row with the outer corner of
        the first pixel at 0, or for SCOORD3D shape (n, 3), LPS mm.
    frame_of_reference_uid : str
        Referenced Frame of Reference UID (3006,0024) of a SCOORD3D.
    images : tuple of ImageItem
        The images that a SCOORD is selected from, each once.
    """

    graphic_type: str
    values: np.ndarray
    frame_of_reference_uid: str
    images: tuple[ImageItem, ...]


@dataclass(frozen=True)
class MeasurementGroup:
    """What a Measurement Group (PS3.16 TID 1410, 1411, 1501) says about one lesion.

    Attributes
    ----------
    segments : tuple of ImageItem
        Referenced Segment and Referenced Segmentation Frame, each segment once.
    in_space, in_images : tuple of Coordinates
        SCOORD3D and SCOORD.
    in_objects : tuple of str
        SOP Instance UIDs of other objects that hold the region: RTSTRUCT, surfaces.
    source_image_uids, source_series_uids : frozenset of str
        Images that the group names, whatever for, and its Source Series for Segmentation.
    """

    segments: tuple[ImageItem, ...]
    in_space: tuple[Coordinates, ...]
    in_images: tuple[Coordinates, ...]
    in_objects: tuple[str, ...]
    source_image_uids: frozenset[str]
    source_series_uids: frozenset[str]


@dataclass(frozen=True)
class GroupNames:
    """How a Measurement Group calls its lesion; empty where it does not.

    Attributes
    ----------
    tracking_id, tracking_uid : str
        Tracking Identifier and Tracking Unique Identifier (PS3.16 TID 4108).
    finding : str
        Code Meaning of the Finding.
    """

    tracking_id: str
    tracking_uid: str
    finding: str


def find_groups(report: Dataset) -> list[Dataset]:
    """Measurement Groups anywhere in the tree, in the order of the document."""
    return [item for item in _descendants(report, enter=lambda item: True) if _is_group(item)]


def read_names(group: Dataset) -> GroupNames:
    """Read what a Measurement Group calls its lesion."""
    values = {_TRACKING_IDENTIFIER: "", _TRACKING_UNIQUE_IDENTIFIER: "", _FINDING: ""}
    for item in group.get("ContentSequence") or ():
        code = _concept(item)
        if code == _TRACKING_IDENTIFIER:
            values[code] = str(item.get("TextValue") or "")
        elif code == _TRACKING_UNIQUE_IDENTIFIER:
            values[code] = str(item.get("UID") or "")
        elif code == _FINDING:
            for concept in item.get("ConceptCodeSequence") or ():
                values[code] = str(concept.get("CodeMeaning") or "")
    return GroupNames(*values.values())


def read_group(group: Dataset, report: Dataset) -> MeasurementGroup:
    """Collect the places and sources that a Measurement Group names.

    Parameters
    ----------
    group : pydicom.dataset.Dataset
        One of `find_groups`.
    report : pydicom.dataset.Dataset
        The whole report: items may point at others in it.

    Returns
    -------
    MeasurementGroup
        Coordinates of the group itself; where it has none, those that its measurements were
        inferred from. Groups inside the group are not looked at.

    Raises
    ------
    Exception
        Of any kind if the items are damaged.
    """
    items = _descendants(group, enter=lambda item: not _is_group(item))
    own = [_resolve(item, report) for item in items]
    direct = [item for item in _children(group, report) if _is_coordinates(item)]
    coordinates = direct or [item for item in own if _is_coordinates(item)]
    segments, source_image_uids = [], []
    for item in own:
        if item.get("ValueType") == "IMAGE":
            image = _image(item)
            if _concept(item) in (_REFERENCED_SEGMENT, _REFERENCED_SEGMENTATION_FRAME):
                segments.append(replace(image, frames=()))
            else:
                source_image_uids.append(image.sop_instance_uid)
    return MeasurementGroup(
        segments=tuple(dict.fromkeys(segments)),
        in_space=tuple(
            _coordinates(item, report, 3)
            for item in coordinates
            if item.get("ValueType") == "SCOORD3D"
        ),
        in_images=tuple(
            _coordinates(item, report, 2)
            for item in coordinates
            if item.get("ValueType") == "SCOORD"
        ),
        in_objects=tuple(
            str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            for item in own
            if _concept(item) == _REGION_IN_SPACE and item.get("ValueType") == "COMPOSITE"
        ),
        source_image_uids=frozenset(source_image_uids),
        source_series_uids=frozenset(
            str(item.UID) for item in own if _concept(item) == _SOURCE_SERIES_FOR_SEGMENTATION
        ),
    )


def read_evidence(report: Dataset) -> dict[str, str]:
    """Series of every image that the report is based on, by SOP Instance UID.

    Segmentations, other reports and whatever else is no image are left out.
    """
    studies = [
        *(report.get("CurrentRequestedProcedureEvidenceSequence") or ()),
        *(report.get("PertinentOtherEvidenceSequence") or ()),
    ]
    return {
        str(instance.ReferencedSOPInstanceUID): str(series.SeriesInstanceUID)
        for study in studies
        for series in study.get("ReferencedSeriesSequence") or ()
        for instance in series.get("ReferencedSOPSequence") or ()
        if not str(instance.get("ReferencedSOPClassUID")).startswith(_NO_IMAGES)
    }


def _descendants(item: Dataset, enter: Callable[[Dataset], bool]) -> Iterator[Dataset]:
    """Items below an item, in the order of the document; references are not followed."""
    waiting = list(item.get("ContentSequence") or ())[::-1]
    while waiting:
        child = waiting.pop()
        yield child
        if enter(child):
            waiting += list(child.get("ContentSequence") or ())[::-1]


def _children(item: Dataset, report: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or ():
        yield _resolve(child, report)


def _resolve(item: Dataset, report: Dataset) -> Dataset:
    """Follow an item that stands for another one (PS3.3 C.17.3.2.5) to that one, and no further.

    Its Referenced Content Item Identifier (0040,DB73) counts positions from 1 on, root first.
    """
    positions = _integers(item.get("ReferencedContentItemIdentifier"))
    if not positions:
        return item
    target = report
    for position in positions[1:]:
        if position < 1:
            raise ValueError(f"{position} is no position of a content item")
        target = target.ContentSequence[position - 1]
    return target


def _is_group(item: Dataset) -> bool:
    return item.get("ValueType") == "CONTAINER" and _concept(item) == _MEASUREMENT_GROUP


def _is_coordinates(item: Dataset) -> bool:
    return item.get("ValueType") in ("SCOORD", "SCOORD3D")


def _concept(item: Dataset) -> str:
    """Code Value of an item's name if it is from the DICOM terminology (PS3.16 annex D)."""
    for concept in item.get("ConceptNameCodeSequence") or ():
        if concept.get("CodingSchemeDesignator") == "DCM":
            return str(concept.get("CodeValue") or "")
    return ""


def _coordinates(item: Dataset, report: Dataset, n_axes: int) -> Coordinates:
    values = np.atleast_1d(np.asarray(item.GraphicData, dtype=np.float64))
    images = [
        _image(child) for child in _children(item, report) if child.get("ValueType") == "IMAGE"
    ]
    return Coordinates(
        graphic_type=str(item.GraphicType),
        values=values.reshape(-1, n_axes),
        frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID") or ""),
        images=tuple(dict.fromkeys(images)),
    )


def _image(item: Dataset) -> ImageItem:
    (reference,) = item.ReferencedSOPSequence
    return ImageItem(
        sop_instance_uid=str(reference.ReferencedSOPInstanceUID),
        frames=_integers(reference.get("ReferencedFrameNumber")),
        segments=_integers(reference.get("ReferencedSegmentNumber")),
    )


def _integers(value) -> tuple[int, ...]:
    """Values of an element that holds none, one or several whole numbers."""
    if value is None:
        return ()
    return tuple(int(number) for number in np.atleast_1d(value))
