"""What lies in a folder, a file list or a zip: one pass over the headers, grouped to series.

No pixel is read and no element that could name a patient is looked at. Nothing is left out
without a word: what is not an image is in `DicomScan.skipped`.
"""

import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydicom.uid import MediaStorageDirectoryStorage

from oncofm.errors import InputNotFoundError, UnreadableFileError
from oncofm.imaging.header import (
    Header,
    HeaderError,
    NotDicomError,
    read_header,
    text_of,
    unsigned_of,
)
from oncofm.imaging.sources import FileSource, Source, ZipMemberSource

Value = TypeVar("Value")

_MEDIA_STORAGE_CLASS = 0x00020002
_IMAGE_TYPE = 0x00080008
_SOP_CLASS = 0x00080016
_SOP_INSTANCE = 0x00080018
_MODALITY = 0x00080060
_TRIGGER_TIME = 0x00181060
_STUDY = 0x0020000D
_SERIES = 0x0020000E
_ACQUISITION_NUMBER = 0x00200012
_IMAGE_POSITION = 0x00200032
_IMAGE_ORIENTATION = 0x00200037
_FRAME_OF_REFERENCE = 0x00200052
_TEMPORAL_POSITION = 0x00200100
_SAMPLES_PER_PIXEL = 0x00280002
_NUMBER_OF_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_PIXEL_SPACING = 0x00280030
_RESCALE_INTERCEPT = 0x00281052
_RESCALE_SLOPE = 0x00281053
_LAST_TAG = 0x0028FFFF
"""Everything a scan needs stands in groups 0008 to 0028."""
_WANTED = frozenset(
    (
        *(_IMAGE_TYPE, _SOP_CLASS, _SOP_INSTANCE, _MODALITY, _TRIGGER_TIME, _STUDY, _SERIES),
        *(_ACQUISITION_NUMBER, _IMAGE_POSITION, _IMAGE_ORIENTATION, _FRAME_OF_REFERENCE),
        *(_TEMPORAL_POSITION, _SAMPLES_PER_PIXEL, _NUMBER_OF_FRAMES, _ROWS, _COLUMNS),
        *(_PIXEL_SPACING, _RESCALE_INTERCEPT, _RESCALE_SLOPE),
    )
)

NOT_DICOM = "not_dicom"
EMPTY_FILE = "empty_file"
DICOMDIR = "dicomdir"
ARCHIVE = "archive"
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One DICOM file of any modality, by its header.

    Numbers are None where the header has none or they cannot be read; in enhanced multi-frame
    images they stand elsewhere.

    Attributes
    ----------
    source : Source
        Where the file is.
    sop_instance_uid, sop_class_uid, series_uid, study_uid, frame_of_reference_uid : str
        Empty where absent (only the first and the third never are).
    modality, transfer_syntax_uid : str
        Modality (0008,0060), Transfer Syntax UID (0002,0010).
    image_type : tuple of str
        Values of Image Type (0008,0008).
    n_frames : int
        Number of Frames (0028,0008), 1 where absent.
    rows, columns, samples_per_pixel : int or None
        (0028,0010), (0028,0011), (0028,0002).
    position_mm : tuple of 3 float or None
        Image Position (Patient) (0020,0032).
    orientation : tuple of 6 float or None
        Image Orientation (Patient) (0020,0037): along a row, then along a column.
    pixel_spacing_mm : tuple of 2 float or None
        Pixel Spacing (0028,0030): between rows, between columns.
    rescale_slope, rescale_intercept : float or None
        (0028,1053), (0028,1052).
    acquisition_number, temporal_position, trigger_time_ms : float or None
        (0020,0012), (0020,0100), (0018,1060): what tells scans of one place apart.
    """

    source: Source
    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    modality: str
    transfer_syntax_uid: str
    image_type: tuple[str, ...]
    n_frames: int
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    rescale_slope: float | None
    rescale_intercept: float | None
    acquisition_number: float | None
    temporal_position: float | None
    trigger_time_ms: float | None


@dataclass(frozen=True)
class SeriesRecord:
    """All files of one Series Instance UID, whatever folders they came from.

    Attributes
    ----------
    series_uid, study_uid, frame_of_reference_uid, modality : str
        Of the first instance that has them.
    instances : tuple of InstanceRecord
        One per SOP Instance UID, in the order of the scan.
    duplicates : tuple of InstanceRecord
        Further files with a SOP Instance UID that `instances` already holds.
    """

    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    modality: str
    instances: tuple[InstanceRecord, ...]
    duplicates: tuple[InstanceRecord, ...] = ()

    @property
    def sop_class_uids(self) -> tuple[str, ...]:
        """The SOP classes of the instances, each once."""
        return tuple(dict.fromkeys(instance.sop_class_uid for instance in self.instances))


@dataclass(frozen=True)
class SkippedFile:
    """A file, folder or archive that gave no instance.

    Attributes
    ----------
    name : str
        Its path.
    reason : str
        ``not_dicom``, ``empty_file``, ``dicomdir`` (an index; the files it lists are found
        without it), ``archive`` (a zip inside a folder) or ``unreadable_file``.
    error : UnreadableFileError or None
        Set for ``unreadable_file``: something that should have been read.
    """

    name: str
    reason: str
    error: UnreadableFileError | None = None


@dataclass(frozen=True)
class DicomScan:
    """The result of `scan_dicom`.

    Attributes
    ----------
    series : tuple of SeriesRecord
        Every series of every modality, in the order of the scan.
    skipped : tuple of SkippedFile
        Everything else that was seen.
    """

    series: tuple[SeriesRecord, ...]
    skipped: tuple[SkippedFile, ...]

    def of_modality(self, modality: str) -> tuple[SeriesRecord, ...]:
        """Choose the series of one modality, such as ``CT`` or ``SEG``."""
        return tuple(series for series in self.series if series.modality == modality)


def scan_dicom(inputs: str | Path | Sequence[str | Path]) -> DicomScan:
    """Read the headers of everything below the inputs.

    Parameters
    ----------
    inputs : path or sequence of paths
        Folders (walked to the end, symbolic links followed, every file seen once), files (with
        any name), and zip archives (read in place).

    Returns
    -------
    DicomScan
        Series and skipped files.

    Raises
    ------
    InputNotFoundError
        If an input does not exist.
    """
    paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    skipped: list[SkippedFile] = []
    instances: list[InstanceRecord] = []
    share = _Shared()
    for source in _sources(paths, skipped):
        record = _read_record(source, share, skipped)
        if record is not None:
            instances.append(record)
    return DicomScan(group_instances(instances), tuple(skipped))


# --- finding files ------------------------------------------------------------------------


def _sources(paths: Sequence[Path], skipped: list[SkippedFile]) -> Iterator[Source]:
    seen: set[tuple[int, int]] = set()
    for path in paths:
        try:
            path.stat()
        except OSError as error:
            raise InputNotFoundError(
                f"{path} cannot be found ({error.strerror}); name a folder, file or zip archive."
            ) from error
        if path.is_file() and _is_archive(FileSource(path)):
            yield from _zip_members(path, skipped)
        else:
            yield from _walk(path, seen, skipped)


def _walk(
    path: Path, seen: set[tuple[int, int]], skipped: list[SkippedFile]
) -> Iterator[FileSource]:
    """Yield the files below a path in the order of their names, each real file once."""
    try:
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        if key in seen:
            return
        seen.add(key)
        if not stat.S_ISDIR(status.st_mode):
            if not stat.S_ISREG(status.st_mode):
                skipped.append(SkippedFile(str(path), NOT_DICOM))
            elif status.st_size == 0:
                skipped.append(SkippedFile(str(path), EMPTY_FILE))
            else:
                yield FileSource(path)
            return
        names = sorted(os.listdir(path))  # noqa: PTH208 - names only, no object per file
    except OSError as error:
        skipped.append(_unreadable(str(path), error.strerror or type(error).__name__))
        return
    for name in names:
        yield from _walk(path / name, seen, skipped)


def _zip_members(path: Path, skipped: list[SkippedFile]) -> Iterator[ZipMemberSource]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        skipped.append(_unreadable(str(path), f"broken zip archive: {error}"))
        return
    members = [member for member in archive.infolist() if not member.is_dir()]
    n_encrypted = sum(1 for member in members if member.flag_bits & 1)
    if n_encrypted:
        problem = f"{n_encrypted} of its {len(members)} members are encrypted"
        skipped.append(_unreadable(str(path), problem))
    for member in members:
        source = ZipMemberSource(archive, member)
        if member.file_size == 0:
            skipped.append(SkippedFile(source.name, EMPTY_FILE))
        elif not member.flag_bits & 1:
            yield source


# --- reading one header -------------------------------------------------------------------


class _Shared(dict[tuple[Any, Any], Any]):
    """Reads equal values of many headers once, and gives them one place in memory."""

    def __call__(self, read: Callable[[bytes], Value], header: Header, tag: int) -> Value:
        key = (read, header.elements.get(tag, b""))
        try:
            return self[key]
        except KeyError:
            return self.setdefault(key, read(key[1]))


def _read_record(
    source: Source, share: _Shared, skipped: list[SkippedFile]
) -> InstanceRecord | None:
    try:
        header = read_header(source, _WANTED, _LAST_TAG)
    except NotDicomError:
        skipped.append(SkippedFile(source.name, ARCHIVE if _is_archive(source) else NOT_DICOM))
        return None
    except HeaderError as error:
        skipped.append(_unreadable(source.name, str(error)))
        return None
    except Exception as error:
        # Disks and archives fail in more ways than can be listed (OSError, BadZipFile,
        # zlib.error, LZMAError ...), and one broken file must not stop the scan.
        problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        skipped.append(_unreadable(source.name, problem))
        return None
    if header.text(_MEDIA_STORAGE_CLASS) == MediaStorageDirectoryStorage:
        skipped.append(SkippedFile(source.name, DICOMDIR))
        return None
    record = _record(source, header, share)
    if not record.sop_instance_uid or not record.series_uid:
        problem = "it has no SOP Instance UID or no Series Instance UID"
        skipped.append(_unreadable(source.name, problem))
        return None
    return record


def _record(source: Source, header: Header, share: _Shared) -> InstanceRecord:
    unsigned = _big_unsigned if header.is_big_endian else _little_unsigned
    syntax = header.transfer_syntax_uid
    return InstanceRecord(
        source=source,
        sop_instance_uid=header.text(_SOP_INSTANCE),
        sop_class_uid=share(text_of, header, _SOP_CLASS),
        series_uid=share(text_of, header, _SERIES),
        study_uid=share(text_of, header, _STUDY),
        frame_of_reference_uid=share(text_of, header, _FRAME_OF_REFERENCE),
        modality=share(text_of, header, _MODALITY),
        transfer_syntax_uid=share.setdefault((str, syntax), syntax),
        image_type=share(_words, header, _IMAGE_TYPE),
        n_frames=share(_count, header, _NUMBER_OF_FRAMES),
        rows=share(unsigned, header, _ROWS),
        columns=share(unsigned, header, _COLUMNS),
        samples_per_pixel=share(unsigned, header, _SAMPLES_PER_PIXEL),
        position_mm=_numbers(header.elements.get(_IMAGE_POSITION, b""), 3),
        orientation=share(_six_numbers, header, _IMAGE_ORIENTATION),
        pixel_spacing_mm=share(_two_numbers, header, _PIXEL_SPACING),
        rescale_slope=share(_number, header, _RESCALE_SLOPE),
        rescale_intercept=share(_number, header, _RESCALE_INTERCEPT),
        acquisition_number=share(_number, header, _ACQUISITION_NUMBER),
        temporal_position=share(_number, header, _TEMPORAL_POSITION),
        trigger_time_ms=_number(header.elements.get(_TRIGGER_TIME, b"")),
    )


def _words(value: bytes) -> tuple[str, ...]:
    return tuple(part.strip() for part in text_of(value).split("\\"))


def _numbers(value: bytes, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(map(float, text_of(value).split("\\")))
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def _two_numbers(value: bytes) -> tuple[float, ...] | None:
    return _numbers(value, 2)


def _six_numbers(value: bytes) -> tuple[float, ...] | None:
    return _numbers(value, 6)


def _number(value: bytes) -> float | None:
    values = _numbers(value, 1)
    return values[0] if values else None


def _count(value: bytes) -> int:
    return int(_number(value) or 1)


def _little_unsigned(value: bytes) -> int | None:
    return unsigned_of(value, "little")


def _big_unsigned(value: bytes) -> int | None:
    return unsigned_of(value, "big")


def _is_archive(source: Source) -> bool:
    try:
        with source.open() as file:
            return file.read(4) in _ZIP_STARTS
    except OSError:
        return False  # whoever reads it next meets the same error and reports it


def _unreadable(name: str, problem: str) -> SkippedFile:
    sentence = f"{name} cannot be read: {problem}; copy it again from its origin."
    error = UnreadableFileError(sentence)
    return SkippedFile(name, error.code, error)


# --- grouping -----------------------------------------------------------------------------


def group_instances(instances: Iterable[InstanceRecord]) -> tuple[SeriesRecord, ...]:
    """Put instances into their series, in the order of the first of each."""
    by_series: dict[str, dict[str, InstanceRecord]] = {}
    duplicates: dict[str, list[InstanceRecord]] = {}
    for instance in instances:
        members = by_series.setdefault(instance.series_uid, {})
        if instance.sop_instance_uid in members:
            duplicates.setdefault(instance.series_uid, []).append(instance)
        else:
            members[instance.sop_instance_uid] = instance
    return tuple(
        SeriesRecord(
            series_uid=series_uid,
            study_uid=_first(member.study_uid for member in members.values()),
            frame_of_reference_uid=_first(
                member.frame_of_reference_uid for member in members.values()
            ),
            modality=_first(member.modality for member in members.values()),
            instances=tuple(members.values()),
            duplicates=tuple(duplicates.get(series_uid, ())),
        )
        for series_uid, members in by_series.items()
    )


def _first(values: Iterator[str]) -> str:
    return next((value for value in values if value), "")
