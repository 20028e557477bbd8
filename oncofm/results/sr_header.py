"""What a report takes from the source series: patient, study, evidence and the date."""

import copy
import datetime
import io

import pydicom
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM, validate_value

from oncofm.errors import UnreadableFileError
from oncofm.results.sr_codes import is_uid

PATIENT_AND_STUDY = (
    # Patient (PS3.3 C.7.1.1)
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "OtherPatientIDsSequence",
    "PatientSpeciesDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    # Clinical Trial Subject and Study (C.7.1.3, C.7.2.3)
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    # General Study (C.7.2.1)
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    # Patient Study (C.7.2.2)
    "PatientAge",
    "PatientSize",
    "PatientWeight",
)
"""Attributes that all objects of a study share."""

_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
_TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime")
_NO_DATE = datetime.datetime(1900, 1, 1)
"""For a source without any date, where the attribute must have a value."""

_STRICT = ("AS", "DA", "DS", "TM")
"""VRs whose values are parsed by whoever reads them."""

_INSTANCE_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")


def patient_and_study(image: Dataset) -> list[DataElement]:
    """Copy the attributes of patient and study that can be read and written again."""
    copies = (_copied(image, keyword) for keyword in PATIENT_AND_STUDY)
    return [element for element in copies if element is not None]


def study_datetime(image: Dataset) -> datetime.datetime:
    """Date and time of the study, else of the series; 1900-01-01 if the source has neither.

    To the second, as reports have it.
    """
    for date_keyword, time_keyword in zip(_DATES, _TIMES, strict=True):
        try:
            date = DA(_text(image, date_keyword))
        except (ValueError, TypeError):
            continue
        if date is None:
            continue
        try:
            time = TM(_text(image, time_keyword)) or datetime.time()
        except (ValueError, TypeError):
            time = datetime.time()
        day = datetime.date(date.year, date.month, date.day)
        return datetime.datetime.combine(day, datetime.time(time.hour, time.minute, time.second))
    return _NO_DATE


def instance_uids(dataset: Dataset, name: str) -> Dataset:
    """Copy the UIDs by which an object is listed as evidence.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        Header of any object.
    name : str
        How a message calls it.

    Returns
    -------
    pydicom.dataset.Dataset
        Study, series and instance UID, and SOP class.

    Raises
    ------
    UnreadableFileError
        If one of them is missing or invalid.
    """
    return evidence(name, **{keyword: _text(dataset, keyword) for keyword in _INSTANCE_UIDS})


def evidence(name: str, **uids: str) -> Dataset:
    """Build a dataset of UIDs by keyword, as `instance_uids` does."""
    dataset = Dataset()
    for keyword, uid in uids.items():
        setattr(dataset, keyword, checked_uid(uid, keyword, name))
    return dataset


def checked_uid(uid: str, keyword: str, name: str) -> str:
    """Return a UID, or raise `UnreadableFileError` if it is none."""
    if not is_uid(uid):
        raise UnreadableFileError(
            f"{name} has no valid {keyword}, so that a report cannot refer to it; export it again."
        )
    return uid


def uid_text(dataset: Dataset, keyword: str) -> str:
    """Read a UID; empty where it is missing or cannot be read."""
    return _text(dataset, keyword)


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "")
    except Exception:  # garbled bytes make pydicom raise anything
        return ""


def _copied(image: Dataset, keyword: str) -> DataElement | None:
    try:
        if keyword not in image:
            return None
        element = copy.deepcopy(image[keyword])
        for item in element.value if element.VR == "SQ" else ():
            item.decode()
            item.pop("SpecificCharacterSet", None)
        _check(element, keyword)
    except Exception:  # garbled bytes make pydicom raise anything
        return None
    return element


def _check(element: DataElement, keyword: str) -> None:
    """Raise if readers would stumble over an element; overlong text is not worth losing it."""
    if dictionary_VR(keyword) != element.VR:
        raise ValueError("another VR than the dictionary's")
    if element.VR in _STRICT and element.value not in (None, ""):
        validate_value(element.VR, str(element.value), RAISE)
    alone = Dataset()
    alone.SpecificCharacterSet = "ISO_IR 192"
    alone.add(element)
    pydicom.dcmwrite(io.BytesIO(), alone, implicit_vr=False, little_endian=True)
