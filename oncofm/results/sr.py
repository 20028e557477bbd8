"""Results of a CT series as a DICOM structured report (Comprehensive 3D SR, PS3.16 TID 1500)."""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

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
from oncofm.results.sr_groups import Style, make_groups
from oncofm.results.sr_header import (
    evidence,
    instance_uids,
    patient_and_study,
    study_datetime,
    uid_text,
)
from oncofm.results.sr_values import ReportedLesion, ReportProvenance

_SERIES_NUMBERS: dict[Style, int] = {"segment": 9001, "point": 9002}
_SERIES_DESCRIPTION = "Imaging biomarkers, research use only"
_LO_BYTES = 64


def write_sr(
    path: Path,
    ct_images: Sequence[Dataset],
    lesions: Sequence[ReportedLesion],
    provenance: ReportProvenance,
    *,
    style: Style,
    predecessor: Dataset | None = None,
    written_at: datetime.datetime | None = None,
) -> str:
    """Write the report of one CT series, with one Measurement Group for each lesion.

    Same arguments, same bytes and UIDs. The Series Instance UID follows from the source series,
    model and configuration; the SOP Instance UID from all that the report says, so that a report
    that is sent twice is one instance, and another result is another instance.

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
    predecessor : pydicom.dataset.Dataset or None
        Header of the report that this one revises.
    written_at : datetime.datetime or None
        Content Date and Time; the time of the study if None.

    Returns
    -------
    str
        SOP Instance UID.

    Raises
    ------
    UnreadableFileError
        If an image, SEG or predecessor has no valid UIDs.
    MissingGeometryError
        If the series has no valid Frame of Reference UID, which points need.
    OutputNotWritableError
        If the file cannot be written.
    ValueError
        If there is no image or no lesion, the images are of several series, two lesions share
        their id, or one has no segment for groups of segments.
    """
    ct_images = sorted(ct_images, key=lambda image: uid_text(image, "SOPInstanceUID"))
    images = _source_images(ct_images)
    _check_lesions(lesions)
    series_uid = str(images[0].SeriesInstanceUID)
    frame_uid = _frame_of_reference(ct_images[0], series_uid) if style == "point" else ""
    predecessors = [] if predecessor is None else [instance_uids(predecessor, "The predecessor")]
    written_at = written_at or study_datetime(ct_images[0])
    made_from = (series_uid, dataclasses.asdict(provenance), style)
    instance_uid = derived_uid(
        "instance",
        *made_from,
        [image.SOPInstanceUID for image in images],
        [dataclasses.asdict(lesion) for lesion in lesions],
        [item.SOPInstanceUID for item in predecessors],
        written_at.isoformat(),
    )
    groups = make_groups(
        lesions, provenance, style=style, series_uid=series_uid, frame_of_reference_uid=frame_uid
    )
    dataset = _document(
        _content(groups, provenance),
        evidence=[*images, *_segmentations(lesions, images[0].StudyInstanceUID)],
        series_instance_uid=derived_uid("series", *made_from),
        series_number=_SERIES_NUMBERS[style],
        series_description=_SERIES_DESCRIPTION,
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=one_line(provenance.software, _LO_BYTES),
        manufacturer_model_name=one_line(provenance.model, _LO_BYTES),
        software_versions=one_line(provenance.version, _LO_BYTES),
        is_complete=True,
        previous_versions=predecessors or None,
        specific_character_set="ISO_IR 192",
    )
    for element in patient_and_study(ct_images[0]):
        dataset.add(element)
    dataset.CodingSchemeIdentificationSequence = [_private_scheme()]
    dataset.ContributingEquipmentSequence = [_equipment(provenance, written_at)]
    _set_time(dataset, written_at)
    with atomic_path(path) as temporary:
        pydicom.dcmwrite(
            temporary, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True
        )
    return instance_uid


def _source_images(ct_images: Sequence[Dataset]) -> list[Dataset]:
    """UIDs of the source images, with the attributes that highdicom insists on left empty.

    highdicom warns about unusual names, and names do not belong into logs: the report gets
    patient and study when highdicom is done.
    """
    if not ct_images:
        raise ValueError("a report needs the images that it is about")
    name = f"An image of series {uid_text(ct_images[0], 'SeriesInstanceUID') or '(no UID)'}"
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
        manufacturer=one_line(provenance.software, _LO_BYTES),
        manufacturer_model_name=one_line(provenance.model, _LO_BYTES),
        software_versions=one_line(provenance.version, _LO_BYTES),
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        contribution_description=RESEARCH_ONLY.meaning,
        contribution_datetime=written_at,
    )


def _set_time(dataset: Dataset, written_at: datetime.datetime) -> None:
    """Replace the clock readings that highdicom put in, or leave them out."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        dataset.pop(keyword, None)
    dataset.ContentDate, dataset.ContentTime = f"{written_at:%Y%m%d}", f"{written_at:%H%M%S}"
