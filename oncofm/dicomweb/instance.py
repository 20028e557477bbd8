"""Whether a fetched file is what was asked for."""

import zlib
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from oncofm.dicomweb.address import Resource, is_uid
from oncofm.errors import WebAnswerError
from oncofm.imaging.header import read_header
from oncofm.imaging.sources import FileSource

_SOP_CLASS, _SOP_UID, _STUDY_UID, _SERIES_UID = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_PREFIX_BYTES, _LENGTH_BYTES = 132, 12
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """An instance that is on disk.

    Attributes
    ----------
    path : pathlib.Path
        A DICOM file.
    uid : str
        SOP Instance UID.
    sop_class : str
        SOP Class UID.
    """

    path: Path
    uid: str
    sop_class: str


def identify(path: Path, series: Resource, max_bytes: int) -> Fetched:
    """Look at a file that should be of a series.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    series : Resource
        What was asked for.
    max_bytes : int
        So large a deflated data set may become.

    Raises
    ------
    WebAnswerError
        If it cannot be read, or is of another series.
    """
    said = f"series {series.series_uid}"
    try:
        meta = read_file_meta_info(path)
        is_deflated = str(meta.get("TransferSyntaxUID", "")) == DeflatedExplicitVRLittleEndian
        is_small = not is_deflated or _inflates(path, data_set_start(meta), max_bytes)
        wanted = (_SOP_CLASS, _SOP_UID, _STUDY_UID, _SERIES_UID)
        header = read_header(FileSource(path), wanted, _SERIES_UID) if is_small else None
    except OSError:
        raise
    except Exception as error:  # garbled bytes make pydicom raise anything
        raise WebAnswerError(
            f"The server sends something of {said} that is no DICOM file; use another server."
        ) from error
    if header is None:
        raise WebAnswerError(
            f"The server sends something of {said} that inflates to more than "
            f"{max_bytes / 1e6:g} MB; use another server."
        )
    uid = header.text(_SOP_UID)
    if not is_uid(uid):
        raise WebAnswerError(
            f"The server sends something of {said} that has no usable UID; use another server."
        )
    place = (header.text(_STUDY_UID), header.text(_SERIES_UID))
    if place != (series.study_uid, series.series_uid):
        raise WebAnswerError(
            f"The server sends instance {uid} for {said}, of which it is not; use another server."
        )
    return Fetched(path, uid, header.text(_SOP_CLASS))


def data_set_start(meta: FileMetaDataset) -> int:
    """Where the data set of a file begins (PS3.10 7.1), in bytes."""
    return _PREFIX_BYTES + _LENGTH_BYTES + int(meta.FileMetaInformationGroupLength)


def _inflates(path: Path, start: int, max_bytes: int) -> bool:
    """Inflate a data set piece by piece and forget it: a small one may become huge."""
    inflater, n_bytes = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(start)
        while not inflater.eof and (rest := file.read(_CHUNK)):
            while rest and not inflater.eof:
                n_bytes += len(inflater.decompress(rest, _CHUNK))
                rest = inflater.unconsumed_tail
                if n_bytes > max_bytes:
                    return False
    return True
