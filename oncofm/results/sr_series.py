"""The series that reports form, and the earlier report that a new one revises (C.17.2, C.17.6)."""

import datetime
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import Comprehensive3DSRStorage
from pydicom.valuerep import DA, TM

from oncofm.errors import Rejected, ReportInvalidError
from oncofm.results.sr_codes import one_line
from oncofm.results.sr_header import instance_uids, uid_text

NAME_BYTES = 64
"""What names of software and model may take (LO)."""

_LAST_YEAR = 9998
"""A revision is later than its predecessor, so that one cannot be at the end of time."""
_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "ManufacturerModelName",
    "ContentDate",
    "ContentTime",
    "CurrentRequestedProcedureEvidenceSequence",
    "PredecessorDocumentsSequence",
)


@dataclass(frozen=True)
class ReportSeries:
    """A kind of series of reports.

    Attributes
    ----------
    number : int
        Series Number (0020,0011); tells the kinds apart.
    description : str
        Series Description (0008,103E).
    """

    number: int
    description: str


SEGMENTS = ReportSeries(9001, "Imaging biomarkers, research use only")
POINTS = ReportSeries(9002, "Imaging biomarkers, research use only")
FEATURES = ReportSeries(9003, "Imaging features, research use only")
_SERIES = {series.number: series for series in (SEGMENTS, POINTS, FEATURES)}
_STYLES = (SEGMENTS, POINTS)
"""Two ways to say the same; a report of one may revise one of the other."""


@dataclass(frozen=True)
class EarlierReport:
    """What is known of a report that was written before.

    Attributes
    ----------
    instance : pydicom.dataset.Dataset
        Its UIDs, as `oncofm.results.sr_header.instance_uids` gives them.
    series : ReportSeries
        What it is one of.
    model : str
        Manufacturer's Model Name.
    source_series : frozenset of str
        Series that it is about.
    tracking_uid : str
        Of its lesion, if it is one of features; else empty.
    written_at : datetime.datetime
        Content Date and Time.
    predecessors : tuple of pydicom.dataset.Dataset
        UIDs of the reports that it revises.
    """

    instance: Dataset
    series: ReportSeries
    model: str
    source_series: frozenset[str]
    tracking_uid: str
    written_at: datetime.datetime
    predecessors: tuple[Dataset, ...]


def read_earlier_reports(path: Path, software: str) -> tuple[list[EarlierReport], list[str]]:
    """Read the reports that an earlier run wrote.

    Parameters
    ----------
    path : pathlib.Path
        A report, or a folder that holds some, at any depth and among other files.
    software : str
        Whose reports they are; files of others are passed over.

    Returns
    -------
    list of EarlierReport
        In the order of their files.
    list of str
        A sentence for each file that claims to be such a report but cannot be used, and for a
        path that cannot be read.
    """
    try:
        files = _files(path)
    except OSError as error:
        reason = error.strerror or error
        return [], [f"{path} with earlier reports cannot be read ({reason}); name another."]
    found, failures = [], []
    for file in files:
        if not _claims_to_be_ours(file, software):
            continue
        try:
            found.append(_read(file))
        except Rejected as error:
            failures.append(str(error))
        except Exception:  # garbled bytes make pydicom raise anything
            failures.append(
                f"Earlier report {file} cannot be read, so that nothing names it as its "
                "predecessor; get it anew or take it away."
            )
    return found, failures


def find_predecessor(
    earlier: Sequence[EarlierReport],
    series: ReportSeries,
    *,
    source_series_uid: str,
    model: str,
    tracking_uid: str = "",
) -> EarlierReport | None:
    """Find the newest report of the same source series and model, and of one lesion.

    Groups of segments and of points are two styles of one report, features are another report. Of
    those of one time the one that no other names as its predecessor is the newest, and then the
    one of the same style.
    """
    model = one_line(model, NAME_BYTES)
    kinds = _STYLES if series in _STYLES else (series,)
    found = [
        report
        for report in earlier
        if report.series in kinds
        and report.model == model
        and source_series_uid in report.source_series
        and report.tracking_uid == tracking_uid
    ]
    revised = {item.SOPInstanceUID for report in found for item in report.predecessors}

    def age(report: EarlierReport) -> tuple[datetime.datetime, bool, bool, str]:
        uid = report.instance.SOPInstanceUID
        return report.written_at, uid not in revised, report.series == series, uid

    return max(found, key=age, default=None)


def _files(path: Path) -> list[Path]:
    if stat.S_ISREG(path.stat().st_mode):
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def _claims_to_be_ours(file: Path, software: str) -> bool:
    manufacturer = Tag("Manufacturer")
    try:
        with file.open("rb") as stream:
            start = read_partial(stream, stop_when=lambda tag, vr, length: tag > manufacturer)
    except Exception:  # no DICOM file; garbled bytes make pydicom raise anything
        return False
    return uid_text(start, "SOPClassUID") == Comprehensive3DSRStorage and (
        uid_text(start, "Manufacturer") == one_line(software, NAME_BYTES)
    )


def _read(file: Path) -> EarlierReport:
    # With the tree left out: a list of features has 4096 items.
    header = pydicom.dcmread(file, specific_tags=list(_TAGS))
    name = f"Earlier report {file}"
    series = _SERIES.get(header.get("SeriesNumber"))
    if series is None:
        raise ReportInvalidError(
            f"{name} has a Series Number that oncofm does not write; get the file that it wrote."
        )
    return EarlierReport(
        instance=instance_uids(header, name),
        series=series,
        model=uid_text(header, "ManufacturerModelName"),
        source_series=frozenset(
            str(item.SeriesInstanceUID)
            for study in header.CurrentRequestedProcedureEvidenceSequence
            for item in study.ReferencedSeriesSequence
        ),
        tracking_uid=_tracking_uid(file) if series is FEATURES else "",
        written_at=_content_datetime(header, name),
        predecessors=tuple(_predecessors(header, name)),
    )


def _predecessors(header: Dataset, name: str) -> Iterator[Dataset]:
    for study in header.get("PredecessorDocumentsSequence") or ():
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                uids = Dataset()
                uids.StudyInstanceUID = study.StudyInstanceUID
                uids.SeriesInstanceUID = series.SeriesInstanceUID
                uids.SOPClassUID = item.ReferencedSOPClassUID
                uids.SOPInstanceUID = item.ReferencedSOPInstanceUID
                yield instance_uids(uids, f"The predecessor of {name}")


def _content_datetime(header: Dataset, name: str) -> datetime.datetime:
    date, time = DA(header.ContentDate), TM(header.ContentTime)
    if date is None or time is None or date.year > _LAST_YEAR:
        raise ReportInvalidError(
            f"{name} has no usable Content Date and Time; get it anew or take it away."
        )
    return datetime.datetime(date.year, date.month, date.day, time.hour, time.minute, time.second)


def _tracking_uid(file: Path) -> str:
    content = pydicom.dcmread(file, specific_tags=["ContentSequence"]).ContentSequence
    (group,) = content[-1].ContentSequence
    return next(str(item.UID) for item in group.ContentSequence if "UID" in item)
