"""Seeds from DICOM structured reports: the Measurement Groups of PS3.16 TID 1500 and its kin."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExtensibleSRStorage,
)

from oncofm.errors import Rejected, ReportInvalidError, SegmentEmptyError, SeriesAbsentError
from oncofm.imaging.sources import Source
from oncofm.notices import Notice
from oncofm.seeds.annotation import AnnotationSeeds, SeedGroup
from oncofm.seeds.dicom_seg import FRACTION_THRESHOLD, read_seg
from oncofm.seeds.measure import PATCH_EDGE_MM, Per
from oncofm.seeds.references import Reference
from oncofm.seeds.seed import RejectedSeed, Seed, SeedSource
from oncofm.seeds.sr_content import (
    MeasurementGroup,
    find_groups,
    read_evidence,
    read_group,
    read_names,
)
from oncofm.seeds.sr_coordinates import ImagePlane, find_planes, in_patient, one_frame_of_reference
from oncofm.seeds.sr_regions import Graphic, Place, find_place

REPORT_STORAGE = (
    EnhancedSRStorage,
    ComprehensiveSRStorage,
    Comprehensive3DSRStorage,
    ExtensibleSRStorage,
)
"""SOP classes whose content may be a measurement report."""

Lesions = tuple[Seed | RejectedSeed, ...]


def read_sr(
    source: Source,
    *,
    segmentations: Mapping[str, Source],
    images: Mapping[str, ImagePlane],
    per: Per = "segment",
    threshold: float = FRACTION_THRESHOLD,
    min_volume_mm3: float = 0.0,
) -> AnnotationSeeds:
    """Read the lesions of a structured report.

    Every Measurement Group that names a place is a lesion: a segment of a SEG, else coordinates
    in the patient (SCOORD3D), else coordinates in images (SCOORD). Groups of plain measurements
    are passed over.

    Parameters
    ----------
    source : Source
        The file.
    segmentations : mapping of str to Source
        The SEG objects of the input by SOP Instance UID; each is read at most once.
    images : mapping of str to ImagePlane
        The images of the input by SOP Instance UID, with ``#<frame>`` behind it for a frame of
        a multi-frame image.
    per : {"segment", "component"}
        One seed per referenced segment, or per component of it; coordinates are one seed.
    threshold : float
        As for `oncofm.seeds.dicom_seg.read_seg`.
    min_volume_mm3 : float
        Smaller lesions count as empty, where the volume is known.

    Returns
    -------
    AnnotationSeeds
        Seeds in LPS mm, called ``group-<n>`` by the number of the Measurement Group in the
        document, in one `SeedGroup` for each set of images. A group whose place cannot be used
        is a `RejectedSeed`. Notices are those of the SEG, and ``lesion_exceeds_patch``.

    Raises
    ------
    ReportInvalidError
        If the report as a whole cannot be read, or none of its groups names a place.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    with _readable(source.name), source.open() as file:
        dataset = _read_whole(file)
        name = f"SR {dataset.get('SOPInstanceUID', source.name)}"
    with _readable(name):
        if dataset.get("SOPClassUID") not in REPORT_STORAGE:
            raise ReportInvalidError(f"{name} is no measurement report by its SOP Class UID.")
        if not dataset.get("ContentSequence"):
            raise ReportInvalidError(f"{name} has no content; export the report again.")
        items, evidence = find_groups(dataset), read_evidence(dataset)
        study_uid = str(dataset.get("StudyInstanceUID", ""))
        object_source = SeedSource(
            kind="sr",
            sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
            series_uid=str(dataset.get("SeriesInstanceUID", "")),
        )

    @cache
    def read_segments(uid: str) -> AnnotationSeeds | Rejected:
        if uid not in segmentations:
            return SeriesAbsentError(
                f"{name} refers to segmentation {uid}, which is not in the input; add that SEG."
            )
        try:
            return read_seg(
                segmentations[uid], per=per, threshold=threshold, min_volume_mm3=min_volume_mm3
            )
        except Rejected as error:
            return error

    report = _Report(dataset, name, object_source, evidence, read_segments, images, min_volume_mm3)
    found = [
        lesion
        for number, item in enumerate(items, start=1)
        if (lesion := _read_lesion(item, f"group-{number}", report)) is not None
    ]
    if not found:
        raise ReportInvalidError(
            f"{name} names no place of a lesion in its {len(items)} measurement groups; export it "
            "with segments or coordinates."
        )
    return AnnotationSeeds(
        sop_instance_uid=object_source.sop_instance_uid,
        series_uid=object_source.series_uid,
        study_uid=study_uid,
        groups=_by_reference(found),
    )


@dataclass(frozen=True)
class _Report:
    """What the groups of a report share.

    `source` names the report alone; `evidence` is the series of each image by SOP Instance UID;
    `read_segments` gives a SEG by its UID, or why there is none.
    """

    dataset: Dataset
    name: str
    source: SeedSource
    evidence: Mapping[str, str]
    read_segments: Callable[[str], AnnotationSeeds | Rejected]
    images: Mapping[str, ImagePlane]
    min_volume_mm3: float


def _by_reference(found: Sequence[tuple[Reference, Lesions]]) -> tuple[SeedGroup, ...]:
    groups: dict[Reference, Lesions] = {}
    for reference, seeds in found:
        groups[reference] = groups.get(reference, ()) + seeds
    return tuple(SeedGroup(reference, seeds) for reference, seeds in groups.items())


def _read_lesion(
    item: Dataset, lesion_id: str, report: _Report
) -> tuple[Reference, Lesions] | None:
    """Resolve a Measurement Group; None if it names no place."""
    source, reference = report.source, _listed_images(report)
    name = f"{lesion_id} of {report.name}"
    try:
        with _readable(name):
            group = read_group(item, report.dataset)
            if not (group.segments or group.in_space or group.in_images or group.in_objects):
                return None
            reference = _named_images(group, report)
            names = read_names(item)
            source = replace(
                source,
                segment_label=names.tracking_id,
                segment_description=names.finding,
                tracking_id=names.tracking_id,
                tracking_uid=names.tracking_uid,
            )
            if group.segments:
                return _from_segment(group, lesion_id, source, reference, report)
            if group.in_space or group.in_images:
                return _from_coordinates(group, lesion_id, source, reference, report)
            raise ReportInvalidError(
                f"{name} has its region in object {group.in_objects[0]}; export the report with "
                "segments or coordinates, or that object alone."
            )
    except Rejected as error:
        return reference, (RejectedSeed(lesion_id, source, error),)


def _listed_images(report: _Report) -> Reference:
    """All images that the report is based on."""
    return Reference(
        name=report.name,
        series_uids=frozenset(report.evidence.values()),
        sop_instance_uids=frozenset(report.evidence),
    )


def _named_images(group: MeasurementGroup, report: _Report) -> Reference:
    """Take the images that a group names itself; without any, those of the report."""
    uids = group.source_image_uids - {segment.sop_instance_uid for segment in group.segments}
    series_uids = group.source_series_uids or {
        report.evidence[uid] for uid in uids if uid in report.evidence
    }
    if not (uids or series_uids):
        return _listed_images(report)
    return Reference(
        name=report.name, series_uids=frozenset(series_uids), sop_instance_uids=frozenset(uids)
    )


# --- a segment of a SEG --------------------------------------------------------------------


def _from_segment(
    group: MeasurementGroup,
    lesion_id: str,
    source: SeedSource,
    reference: Reference,
    report: _Report,
) -> tuple[Reference, Lesions]:
    name = f"{lesion_id} of {report.name}"
    segment, *others = group.segments
    if others:
        raise ReportInvalidError(
            f"{name} refers to {len(group.segments)} segments at once; export the report with one "
            "of them in each group."
        )
    segmentation = report.read_segments(segment.sop_instance_uid)
    if isinstance(segmentation, Rejected):
        return reference, (RejectedSeed(lesion_id, source, segmentation),)
    reference = _completed(group, reference, segmentation.groups[0].reference)
    by_number: dict[int | None, list[Seed | RejectedSeed]] = {}
    for seed in segmentation.seeds:
        by_number.setdefault(seed.source.segment_number, []).append(seed)
    # An SR may leave out the number where there is no choice.
    numbers = segment.segments or tuple(by_number)
    if len(numbers) == 1 and numbers[0] in by_number:
        seeds = by_number[numbers[0]]
        return reference, tuple(_taken_over(seed, lesion_id, source) for seed in seeds)
    asked = f"segment {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} segments at once"
    error = ReportInvalidError(
        f"{name} refers to {asked} of SEG {segment.sop_instance_uid}, which has "
        f"{len(by_number)} segments; export the report with one of them in each group."
    )
    return reference, (RejectedSeed(lesion_id, source, error),)


def _completed(group: MeasurementGroup, reference: Reference, seg: Reference) -> Reference:
    """Add what the SEG knows: its images, unless the group names others, and its frame."""
    named = group.source_image_uids or group.source_series_uids
    series_uids = reference.series_uids if named else seg.series_uids
    images = reference if group.source_image_uids else seg
    return Reference(
        name=reference.name,
        frame_of_reference_uid=seg.frame_of_reference_uid,
        series_uids=series_uids or seg.series_uids,
        sop_instance_uids=images.sop_instance_uids,
        drawn_on_uids=images.drawn_on_uids,
    )


def _taken_over(
    seed: Seed | RejectedSeed, lesion_id: str, source: SeedSource
) -> Seed | RejectedSeed:
    """Give a seed of a SEG the names of the report."""
    segment = seed.source
    if segment.component is not None:
        lesion_id = f"{lesion_id}-component-{segment.component}"
    source = replace(
        source,
        segment_number=segment.segment_number,
        segment_label=segment.segment_label,
        algorithm_type=segment.algorithm_type,
        component=segment.component,
    )
    return replace(seed, lesion_id=lesion_id, source=source)


# --- coordinates ---------------------------------------------------------------------------


def _from_coordinates(
    group: MeasurementGroup,
    lesion_id: str,
    source: SeedSource,
    reference: Reference,
    report: _Report,
) -> tuple[Reference, Lesions]:
    name = f"{lesion_id} of {report.name}"
    if group.in_space:
        frame_uid = one_frame_of_reference(
            (item.frame_of_reference_uid for item in group.in_space), name
        )
        reference = replace(reference, frame_of_reference_uid=frame_uid)
        graphics = [Graphic(item.graphic_type, item.values) for item in group.in_space]
    else:
        planes = find_planes(group.in_images, report.images, name)
        frame_uid = one_frame_of_reference((plane.frame_of_reference_uid for plane in planes), name)
        reference = Reference(
            name=report.name,
            frame_of_reference_uid=frame_uid,
            series_uids=frozenset(plane.series_uid for plane in planes),
            sop_instance_uids=frozenset(
                image.sop_instance_uid for item in group.in_images for image in item.images
            ),
        )
        graphics = [
            in_patient(item, plane) for item, plane in zip(group.in_images, planes, strict=True)
        ]
    try:
        place = find_place(graphics, name)
        return reference, (_seed(place, lesion_id, source, report),)
    except Rejected as error:
        return reference, (RejectedSeed(lesion_id, source, error),)


def _seed(place: Place, lesion_id: str, source: SeedSource, report: _Report) -> Seed:
    volume_mm3 = place.volume_mm3
    if volume_mm3 is not None and round(volume_mm3, 6) < report.min_volume_mm3:
        raise SegmentEmptyError(
            f"{lesion_id} of {report.name} encloses {volume_mm3:.1f} mm3, less than the minimum of "
            f"{report.min_volume_mm3:g} mm3; lower the minimum to keep it."
        )
    notices: tuple[Notice, ...] = ()
    if place.extent_mm is not None and max(place.extent_mm) > PATCH_EDGE_MM:
        size = " x ".join(f"{edge:.0f}" for edge in place.extent_mm)
        message = f"{lesion_id} measures {size} mm; the patch shows {PATCH_EDGE_MM:g} mm of it."
        notices = (Notice("lesion_exceeds_patch", message),)
    return Seed(lesion_id, place.position_mm, source, place.extent_mm, volume_mm3, notices)


class _CountingReader(io.BytesIO):
    """Bytes that count how often more was asked for than was left."""

    n_short_reads = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            self.n_short_reads += 1
        return data


def _read_whole(file: BinaryIO) -> Dataset:
    """Read a file, and insist that it is all there.

    pydicom takes the end of the file for the end of whatever is open then, and lesions that
    should follow would be gone without a word. Only the top level may run into it, once.
    """
    reader = _CountingReader(file.read())
    dataset = pydicom.dcmread(reader)
    if reader.n_short_reads > 1:
        raise EOFError("the file ends inside an element")
    return dataset


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn whatever a garbled object makes pydicom raise into one sentence without its values."""
    try:
        yield
    except (Rejected, MemoryError):
        raise
    except Exception as error:
        raise ReportInvalidError(
            f"{name} is truncated or damaged and cannot be read ({type(error).__name__}); "
            "export it again."
        ) from error
