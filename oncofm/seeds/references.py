"""Which CT volume a segmentation belongs to: by UID, never by its place in the folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset

from oncofm.errors import (
    FrameOfReferenceError,
    Rejected,
    SegmentationUnreferencedError,
    SeriesAbsentError,
    SeriesAmbiguousError,
)
from oncofm.imaging.sources import Source
from oncofm.notices import Notice


@dataclass(frozen=True)
class Reference:
    """What a segmentation says about the images it was drawn on.

    Attributes
    ----------
    name : str
        The segmentation, for messages: ``SEG <SOP Instance UID>``.
    frame_of_reference_uid : str
        Frame of Reference UID (0020,0052), or empty.
    series_uids : frozenset of str
        Series Instance UIDs in the Referenced Series Sequence (PS3.3 C.12.2).
    sop_instance_uids : frozenset of str
        Every image that is listed for the segmentation as a whole.
    drawn_on_uids : frozenset of str
        Source images (PS3.3 C.7.6.16.2.6) of the largest frame of each segment: a narrower
        statement than the list of a whole series.
    """

    name: str
    frame_of_reference_uid: str = ""
    series_uids: frozenset[str] = frozenset()
    sop_instance_uids: frozenset[str] = frozenset()
    drawn_on_uids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class VolumeRecord:
    """What there is to know about a CT volume to find its segmentations.

    Attributes
    ----------
    volume_id : str
        As in `oncofm.imaging.volume.Volume`; a series may hold several volumes.
    series_uid, frame_of_reference_uid : str
        Of its images.
    sop_instance_uids : frozenset of str
        Of its images.
    """

    volume_id: str
    series_uid: str
    frame_of_reference_uid: str
    sop_instance_uids: frozenset[str]


@dataclass(frozen=True)
class ChosenVolume:
    """The volume a segmentation belongs to.

    Attributes
    ----------
    volume : VolumeRecord
        The volume.
    notices : tuple of Notice
        ``reference_inferred`` where no UID named the volume, ``frame_of_reference_unchecked``
        where one of the two has no Frame of Reference UID.
    """

    volume: VolumeRecord
    notices: tuple[Notice, ...] = ()


def choose_volume(
    reference: Reference,
    volumes: Sequence[VolumeRecord],
    unusable_series: Mapping[str, Rejected] | None = None,
) -> ChosenVolume:
    """Find the volume that a segmentation was drawn on.

    The referenced series decides; where it was split into several volumes, its source images
    do. A segmentation that names neither belongs to the one volume in its frame of reference.

    Parameters
    ----------
    reference : Reference
        What the segmentation says.
    volumes : sequence of VolumeRecord
        The CT volumes of the input.
    unusable_series : mapping of str to Rejected, optional
        Series UID -> why that series of the input is no CT volume.

    Returns
    -------
    ChosenVolume
        The volume, and what is uncertain about it.

    Raises
    ------
    SeriesAbsentError
        If the referenced series or images are not in the input.
    SeriesAmbiguousError
        If they are spread over several volumes.
    SegmentationUnreferencedError
        If nothing is referenced and not exactly one volume is in the frame of reference.
    FrameOfReferenceError
        If the frame of reference is another one than the volume's.
    Rejected
        Of the class recorded in `unusable_series`, if that series is referenced.
    """
    if reference.series_uids:
        volume = _by_series(reference, volumes, unusable_series or {})
    elif reference.sop_instance_uids | reference.drawn_on_uids:
        volume = _by_images(reference, volumes)
    else:
        volume = _by_frame_of_reference(reference, volumes)
        message = (
            f"{reference.name} names no images; it was assigned to {volume.volume_id}, "
            "the only CT volume in its frame of reference."
        )
        return ChosenVolume(volume, (Notice("reference_inferred", message),))
    if not (reference.frame_of_reference_uid and volume.frame_of_reference_uid):
        message = (
            f"{reference.name} or volume {volume.volume_id} has no frame of reference UID; "
            "that both share coordinates rests on the referenced UIDs alone."
        )
        return ChosenVolume(volume, (Notice("frame_of_reference_unchecked", message),))
    if reference.frame_of_reference_uid != volume.frame_of_reference_uid:
        raise FrameOfReferenceError(
            f"{reference.name} is in frame of reference {reference.frame_of_reference_uid}, its "
            f"volume {volume.volume_id} in {volume.frame_of_reference_uid}; register the "
            "segmentation to the CT and export it again."
        )
    return ChosenVolume(volume)


def _by_series(
    reference: Reference,
    volumes: Sequence[VolumeRecord],
    unusable_series: Mapping[str, Rejected],
) -> VolumeRecord:
    candidates = [volume for volume in volumes if volume.series_uid in reference.series_uids]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        return _by_images(reference, candidates)
    for series_uid in sorted(reference.series_uids & unusable_series.keys()):
        error = unusable_series[series_uid]
        raise type(error)(f"{reference.name} refers to a series that cannot be used: {error}")
    raise SeriesAbsentError(
        f"{reference.name} refers to series {_listed(reference.series_uids)}, which is not in "
        "the input; add that CT series."
    )


def _by_images(reference: Reference, volumes: Sequence[VolumeRecord]) -> VolumeRecord:
    """Decide by the images drawn on, else by all that are listed."""
    hits: list[VolumeRecord] = []
    for uids in (reference.drawn_on_uids, reference.sop_instance_uids):
        hits = [volume for volume in volumes if volume.sop_instance_uids & uids]
        if len(hits) == 1:
            return hits[0]
        if hits:
            break
    if hits or reference.series_uids:
        raise SeriesAmbiguousError(
            f"{reference.name} fits the volumes {_listed(v.volume_id for v in hits or volumes)}; "
            "keep one of them in the input, or export a segmentation for each."
        )
    raise SeriesAbsentError(
        f"None of the images that {reference.name} refers to is in the input; add the CT series "
        "it was drawn on."
    )


def _by_frame_of_reference(reference: Reference, volumes: Sequence[VolumeRecord]) -> VolumeRecord:
    uid = reference.frame_of_reference_uid
    candidates = [volume for volume in volumes if uid and volume.frame_of_reference_uid == uid]
    if len(candidates) != 1:
        raise SegmentationUnreferencedError(
            f"{reference.name} names no source images, and {len(candidates)} CT volumes of the "
            "input are in its frame of reference; export it with references to its series."
        )
    return candidates[0]


def _listed(names) -> str:
    return ", ".join(sorted(names))


def referenced_series(source: Source) -> frozenset[str]:
    """Series that a SEG, RTSTRUCT or SR names, from the start of its header alone.

    For joining files that belong together, not for deciding where a lesion is.

    Parameters
    ----------
    source : Source
        The file.

    Returns
    -------
    frozenset of str
        Series Instance UIDs; none if the object names none or cannot be read.
    """
    try:
        with source.open() as file:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_PATHS])
        return frozenset(uid for path in _PATHS.values() for uid in _series_uids([dataset], path))
    except Exception:  # whoever reads the object itself says what is wrong with it
        return frozenset()


_PATHS = {
    "ReferencedSeriesSequence": ("ReferencedSeriesSequence",),
    "ReferencedFrameOfReferenceSequence": (
        "ReferencedFrameOfReferenceSequence",
        "RTReferencedStudySequence",
        "RTReferencedSeriesSequence",
    ),
    "CurrentRequestedProcedureEvidenceSequence": (
        "CurrentRequestedProcedureEvidenceSequence",
        "ReferencedSeriesSequence",
    ),
}
"""Where SEG, RTSTRUCT and SR name series (PS3.3 C.12.2, C.8.8.5, C.17.2)."""


def _series_uids(items: Sequence[Dataset], path: Sequence[str]) -> list[str]:
    for keyword in path:
        items = [inner for item in items for inner in item.get(keyword) or ()]
    return [str(item.get("SeriesInstanceUID", "")) for item in items]
