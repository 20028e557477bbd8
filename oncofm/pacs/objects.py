"""What the node must know about an object, read without decoding more of it than that."""

import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from oncofm.pacs.errors import ObjectRefusedError

OWN_MANUFACTURER, OWN_SERIES = "oncofm", range(9001, 9005)
"""What this software writes carries them: reports (9001 to 9003) and key images (9004)."""

_KINDS = {
    "1.2.840.10008.5.1.4.1.1.2": "image",  # CT Image
    "1.2.840.10008.5.1.4.1.1.2.1": "image",  # Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2.2": "image",  # Legacy Converted Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.66.4": "seg",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7": "seg",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.3": "rtstruct",  # RT Structure Set
}
"""What jobs read; besides measurement reports, which other reports share their classes with."""
_MEASUREMENTS = ("126000", "DCM")
"""Title of a measurement report (PS3.16 TID 1500), whose groups jobs read as lesions."""

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_MAX_UID = 64
_LAST_TAG = 0x00200011
_TEXT_BYTES = 64
_CHUNK = 1 << 20
_SEQUENCES = {
    "SEG": ("ReferencedSeriesSequence", "SegmentSequence"),
    "RTSTRUCT": ("ReferencedFrameOfReferenceSequence", "StructureSetROISequence"),
    "SR": ("ConceptNameCodeSequence",),
}


@dataclass(frozen=True)
class ObjectFacts:
    """What rules and completeness go by.

    Attributes
    ----------
    study_uid, series_uid, sop_uid, sop_class : str
        Valid as far as paths and logs are concerned.
    modality, body_part, study_description, series_description : str
        Cut to 64 characters; descriptions are free text and stay out of logs.
    labels : tuple of str
        Of segments and ROIs.
    references : tuple of str
        SOP Instance UIDs of the images that a SEG or RTSTRUCT is about, in this study.
    has_measurements : bool
        Whether it is a measurement report, which may say where lesions are.
    is_own : bool
        Whether this software wrote it.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    modality: str = ""
    body_part: str = ""
    study_description: str = ""
    series_description: str = ""
    labels: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    has_measurements: bool = False
    is_own: bool = False

    @property
    def kind(self) -> str:
        """What it is to a job: ``image``, ``seg``, ``rtstruct``, ``sr``, or nothing."""
        return "sr" if self.has_measurements else _KINDS.get(self.sop_class, "")

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "ObjectFacts":
        """Read what `to_json` wrote."""
        facts = json.loads(text)
        facts |= {name: tuple(facts[name]) for name in ("labels", "references")}
        return ObjectFacts(**facts)


def digest(text: str | bytes | memoryview) -> str:
    """Name something in a path or a log by its hash."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:32]


def loggable(uid: object) -> str:
    """Return a UID as it is, and anything else, which may be a name, as a hash."""
    text = str(uid or "")
    return text if _is_uid(text) else f"invalid-{digest(text)[:12]}"


def check_inflated(data_set: bytes | memoryview, max_bytes: float) -> None:
    """Inflate a deflated data set piece by piece and forget it: a small one may become huge.

    Raises
    ------
    ObjectRefusedError
        If it is larger than that, or not deflated.
    """
    inflater, n_bytes, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, data_set
    while rest and not inflater.eof:
        try:
            n_bytes += len(inflater.decompress(rest, _CHUNK))
        except zlib.error as error:
            raise ObjectRefusedError(
                "A data set is not deflated as it claims; send it as DICOM has it."
            ) from error
        rest = inflater.unconsumed_tail
        if n_bytes > max_bytes:
            raise ObjectRefusedError(
                f"A deflated data set becomes larger than {max_bytes / 1e6:g} MB; send it in parts."
            )


def read_facts(data: bytes) -> ObjectFacts:
    """Read what there is to know about an object.

    Parameters
    ----------
    data : bytes
        A DICOM file; if it is deflated, `check_inflated` came first.

    Raises
    ------
    ObjectRefusedError
        If it is no such file, or has no UIDs that can be used.
    """
    try:
        facts = _facts(read_partial(io.BytesIO(data), stop_when=_is_enough))
        if facts.modality in _SEQUENCES:
            keywords = _SEQUENCES[facts.modality]
            more = pydicom.dcmread(
                io.BytesIO(data), stop_before_pixels=True, specific_tags=list(keywords)
            )
            facts = replace(
                facts,
                labels=_labels(more),
                references=_references(more),
                has_measurements=_has_measurements(more),
            )
    except ObjectRefusedError:
        raise
    except Exception as error:  # garbled bytes make pydicom raise anything
        raise ObjectRefusedError(
            f"A data set cannot be read ({type(error).__name__}); send it as DICOM has it."
        ) from error
    return facts


def _is_enough(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag > _LAST_TAG


def _facts(header: Dataset) -> ObjectFacts:
    uids = {
        "study_uid": str(header.get("StudyInstanceUID", "")),
        "series_uid": str(header.get("SeriesInstanceUID", "")),
        "sop_uid": str(header.get("SOPInstanceUID", "")),
        "sop_class": str(header.get("SOPClassUID", "")),
    }
    for name, uid in uids.items():
        if not _is_uid(uid):
            raise ObjectRefusedError(
                f"A data set has no usable {name.replace('_', ' ')}; send it as DICOM has it."
            )
    return ObjectFacts(
        uids["study_uid"],
        uids["series_uid"],
        uids["sop_uid"],
        uids["sop_class"],
        modality=_text(header, "Modality"),
        body_part=_text(header, "BodyPartExamined"),
        study_description=_text(header, "StudyDescription"),
        series_description=_text(header, "SeriesDescription"),
        is_own=_is_own(header),
    )


def _is_own(header: Dataset) -> bool:
    number = _text(header, "SeriesNumber")
    return (
        _text(header, "Manufacturer") == OWN_MANUFACTURER
        and number.isdecimal()
        and int(number) in OWN_SERIES
    )


def _is_uid(text: str) -> bool:
    return len(text) <= _MAX_UID and _UID.fullmatch(text) is not None


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "")[:_TEXT_BYTES]
    except Exception:  # garbled bytes make pydicom raise anything
        return ""


def _labels(dataset: Dataset) -> tuple[str, ...]:
    segments = [_text(item, "SegmentLabel") for item in dataset.get("SegmentSequence") or ()]
    rois = [_text(item, "ROIName") for item in dataset.get("StructureSetROISequence") or ()]
    return tuple(dict.fromkeys([*segments, *rois]))


def _has_measurements(dataset: Dataset) -> bool:
    titles = dataset.get("ConceptNameCodeSequence") or ()
    return any(
        (_text(title, "CodeValue"), _text(title, "CodingSchemeDesignator")) == _MEASUREMENTS
        for title in titles
    )


def _references(dataset: Dataset) -> tuple[str, ...]:
    """SOP Instance UIDs that a SEG (C.8.20.2) or RTSTRUCT (C.8.8.5) refers to."""
    series = list(dataset.get("ReferencedSeriesSequence") or ())
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            series += study.get("RTReferencedSeriesSequence") or ()
    return tuple(dict.fromkeys(_instances(series)))


def _instances(series: Iterable[Dataset]) -> Iterator[str]:
    for item in series:
        images = item.get("ReferencedInstanceSequence") or item.get("ContourImageSequence") or ()
        for image in images:
            uid = str(image.get("ReferencedSOPInstanceUID", ""))
            if _is_uid(uid):
                yield uid
