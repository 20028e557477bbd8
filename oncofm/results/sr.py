"""Results of a CT series as a DICOM structured report (Comprehensive 3D SR, PS3.16 TID 1500)."""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian

from oncofm.errors import MissingGeometryError
from oncofm.results.files import atomic_path
from oncofm.results.sr_codes import (
    CT_PROCEDURE,
    PRIVATE_SCHEME,
    RESEARCH_ONLY,
    derived_uid,
    is_uid,
    one_line,
    printable,
)
from oncofm.results.sr_groups import Style, collect_numbers, make_groups
from oncofm.results.sr_header import (
    evidence,
    instance_uids,
    patient_and_study,
    study_datetime,
    uid_text,
)
from oncofm.results.sr_numbers import Column, add_numbers, keep_encoded
from oncofm.results.sr_series import (
    NAME_BYTES,
    POINTS,
    SEGMENTS,
    EarlierReport,
    ReportSeries,
    find_predecessor,
)
from oncofm.results.sr_values import ReportedLesion, ReportProvenance

_SERIES: dict[Style, ReportSeries] = {"segment": SEGMENTS, "point": POINTS}
_REVISED_AFTER = datetime.timedelta(seconds=1)


def write_sr(
    path: Path,
    ct_images: Sequence[Dataset],
    lesions: Sequence[ReportedLesion],
    provenance: ReportProvenance,
    *,
    style: Style,
    earlier: Sequence[EarlierReport] = (),
) -> str:
    """Write the report of one CT series, with one Measurement Group for each lesion.

    Same arguments, same bytes and UIDs. The Series Instance UID follows from source study, series,
    model and configuration; the SOP Instance UID from all that the report says, so that a report
    that is sent twice is one instance, and another result is another instance.

    Content Date and Time are those of the study. A revision is one second later than what it
    revises: a clock would make another instance of the same result.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    ct_images : sequence of pydicom.dataset.Dataset
        Headers of the source series, all of it, in any order.
    lesions : sequence of ReportedLesion
        In the order of the report. Some viewers match groups with segments by their order, and
        know one SEG in each report.
    provenance : ReportProvenance
        What made the results.
    style : {"segment", "point"}
        Volumetric groups (TID 1411) that refer to segments, or planar ones (TID 1410) with the
        seed as a point in the Frame of Reference of the series.
    earlier : sequence of EarlierReport
        Reports that exist. The newest of this series and model is named as the predecessor, be it
        of this style or of the other; if it says the same, it is written once more.

    Returns
    -------
    str
        SOP Instance UID.

    Raises
    ------
    UnreadableFileError
        If an image or SEG has no valid UIDs.
    MissingGeometryError
        If the series has no valid Frame of Reference UID, which points need.
    OutputNotWritableError
        If the file cannot be written.
    ValueError
        If there is no image or no lesion, the images are of several series, two lesions share
        their id, or one has no segment for groups of segments.
    """
    series = _SERIES[style]
    previous = find_predecessor(
        earlier, series, source_series_uid=source_uid(ct_images), model=provenance.model
    )
    report = make_report(
        ct_images, lesions, provenance, style=style, series=series, previous=previous
    )
    return save_report(path, report, ExplicitVRLittleEndian)


def of_style(earlier: Sequence[EarlierReport], style: Style) -> list[EarlierReport]:
    """Find the reports of one style."""
    return [report for report in earlier if report.series == _SERIES[style]]


def make_report(
    ct_images: Sequence[Dataset],
    lesions: Sequence[ReportedLesion],
    provenance: ReportProvenance,
    *,
    style: Style,
    series: ReportSeries,
    number: int = 1,
    more: Mapping[Column, float] | None = None,
    previous: EarlierReport | None = None,
) -> hd.sr.Comprehensive3DSR:
    """Make what `write_sr` writes.

    Parameters
    ----------
    ct_images, lesions, provenance, style
        As for `write_sr`.
    series : ReportSeries
        What the report is one of.
    number : int
        Instance Number.
    more : mapping of Column to float or None
        Numbers to add to each group; the UIDs know them by the digest of the lesion's features.
    previous : EarlierReport or None
        The report that this one revises, unless it says the same.

    Returns
    -------
    highdicom.sr.Comprehensive3DSR
        The document.
    """
    ct_images = sorted(ct_images, key=lambda image: uid_text(image, "SOPInstanceUID"))
    images = _source_images(ct_images)
    _check_lesions(lesions)
    series_uid = str(images[0].SeriesInstanceUID)
    frame_uid = _frame_of_reference(ct_images[0], series_uid) if style == "point" else ""
    # A copy of the series in another study is reported there, under UIDs of its own.
    source = (str(images[0].StudyInstanceUID), series_uid)
    made_from = (*source, dataclasses.asdict(provenance), style, series.number)

    def instance_uid(predecessors: Sequence[Dataset], written_at: datetime.datetime) -> str:
        return derived_uid(
            "instance",
            *made_from,
            [image.SOPInstanceUID for image in images],
            [dataclasses.asdict(lesion) for lesion in lesions],
            [item.SOPInstanceUID for item in predecessors],
            written_at.isoformat(),
        )

    predecessors, written_at = [], study_datetime(ct_images[0])
    if previous is not None:
        uid = instance_uid(previous.predecessors, previous.written_at)
        if uid == previous.instance.SOPInstanceUID:
            predecessors, written_at = list(previous.predecessors), previous.written_at
        else:
            predecessors = [previous.instance]
            written_at = max(written_at, previous.written_at + _REVISED_AFTER)
    groups = make_groups(
        lesions, provenance, style=style, series_uid=series_uid, frame_of_reference_uid=frame_uid
    )
    dataset = _document(
        _content(groups, provenance),
        evidence=[*images, *_segmentations(lesions, images[0].StudyInstanceUID)],
        series_instance_uid=derived_uid("series", *made_from),
        series_number=series.number,
        series_description=series.description,
        sop_instance_uid=instance_uid(predecessors, written_at),
        instance_number=number,
        manufacturer=one_line(provenance.software, NAME_BYTES),
        manufacturer_model_name=one_line(provenance.model, NAME_BYTES),
        software_versions=one_line(provenance.version, NAME_BYTES),
        is_complete=True,
        previous_versions=predecessors or None,
        specific_character_set="ISO_IR 192",
    )
    for group, numbers in zip(
        dataset.ContentSequence[-1].ContentSequence, collect_numbers(lesions), strict=True
    ):
        add_numbers(group, {**numbers, **(more or {})})
    keep_encoded(dataset)
    for element in patient_and_study(ct_images[0]):
        dataset.add(element)
    dataset.CodingSchemeIdentificationSequence = [_private_scheme()]
    dataset.ContributingEquipmentSequence = [_equipment(provenance, written_at)]
    _set_time(dataset, written_at)
    return dataset


def save_report(path: Path, report: Dataset, transfer_syntax: UID) -> str:
    """Write a report to a file, atomically, and return its SOP Instance UID."""
    report.file_meta.TransferSyntaxUID = transfer_syntax
    with atomic_path(path) as temporary:
        pydicom.dcmwrite(
            temporary, report, implicit_vr=False, little_endian=True, enforce_file_format=True
        )
    return report.SOPInstanceUID


def source_uid(ct_images: Sequence[Dataset]) -> str:
    """Series Instance UID of the source series; empty if there is none."""
    return uid_text(ct_images[0], "SeriesInstanceUID") if ct_images else ""


def _source_images(ct_images: Sequence[Dataset]) -> list[Dataset]:
    """UIDs of the source images, with the attributes that highdicom insists on left empty.

    highdicom warns about unusual names, and names do not belong into logs: the report gets
    patient and study when highdicom is done.
    """
    if not ct_images:
        raise ValueError("a report needs the images that it is about")
    name = f"An image of series {source_uid(ct_images) or '(no UID)'}"
    images = [instance_uids(image, name) for image in ct_images]
    if len({image.SeriesInstanceUID for image in images}) > 1:
        raise ValueError("a report is about the images of one series")
    first = images[0]
    first.PatientName = first.PatientID = first.PatientBirthDate = first.PatientSex = ""
    first.AccessionNumber = first.StudyID = first.ReferringPhysicianName = ""
    first.StudyDate = first.StudyTime = ""
    return images


def _check_lesions(lesions: Sequence[ReportedLesion]) -> None:
    if not lesions:
        raise ValueError("a report needs a lesion")
    if len({lesion.lesion_id for lesion in lesions}) < len(lesions):
        raise ValueError("the lesions of a report need ids of their own")


def _frame_of_reference(image: Dataset, series_uid: str) -> str:
    uid = uid_text(image, "FrameOfReferenceUID")
    if not is_uid(uid):
        raise MissingGeometryError(
            f"Series {series_uid} has no valid Frame of Reference UID, so that its report cannot "
            "hold points; report segments instead, or export the series again."
        )
    return uid


def _segmentations(lesions: Iterable[ReportedLesion], study_uid: str) -> list[Dataset]:
    segments = {
        lesion.segment.sop_instance_uid: lesion.segment
        for lesion in lesions
        if lesion.segment is not None
    }
    return [
        evidence(
            f"SEG {segment.sop_instance_uid}",
            StudyInstanceUID=segment.study_uid or study_uid,
            SeriesInstanceUID=segment.series_uid,
            SOPClassUID=segment.sop_class_uid,
            SOPInstanceUID=segment.sop_instance_uid,
        )
        for segment in segments.values()
    ]


def _content(groups: Sequence, provenance: ReportProvenance) -> Dataset:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=_device_uid(provenance),
        name=printable(provenance.software),
        manufacturer_name=printable(provenance.software),
        model_name=printable(provenance.model),
    )
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=CT_PROCEDURE,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return report[0]


def _document(content: Dataset, **header: Any) -> hd.sr.Comprehensive3DSR:
    """Make a document around its tree, without what takes highdicom longer than all the rest.

    It copies the tree, and searches it several times. So it gets the tree without the groups,
    and they are put back into their container.
    """
    container = content.ContentSequence[-1]
    groups = container.pop("ContentSequence")
    document = hd.sr.Comprehensive3DSR(content=content, **header)
    container.add(groups)
    return document


def _device_uid(provenance: ReportProvenance) -> str:
    return derived_uid(
        "device",
        provenance.software,
        provenance.version,
        provenance.model,
        provenance.weights_sha256,
    )


def _private_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "Names of biomarkers, classes and notices of oncofm"
    item.CodingSchemeResponsibleOrganization = "oncofm"
    return item


def _equipment(
    provenance: ReportProvenance, written_at: datetime.datetime
) -> hd.ContributingEquipment:
    return hd.ContributingEquipment(
        manufacturer=one_line(provenance.software, NAME_BYTES),
        manufacturer_model_name=one_line(provenance.model, NAME_BYTES),
        software_versions=one_line(provenance.version, NAME_BYTES),
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        contribution_description=RESEARCH_ONLY.meaning,
        contribution_datetime=written_at,
    )


def _set_time(dataset: Dataset, written_at: datetime.datetime) -> None:
    """Replace the clock readings that highdicom put in, or leave them out."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        dataset.pop(keyword, None)
    dataset.ContentDate, dataset.ContentTime = f"{written_at:%Y%m%d}", f"{written_at:%H%M%S}"
