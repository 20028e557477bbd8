"""Headers of a study as bytes of a catalog, and back, safely."""

import io
import pickle
import zlib
from pathlib import Path
from typing import Any

from oncofm.errors import BatchError, UnreadableFileError
from oncofm.imaging.scan import DicomScan, InstanceRecord, SeriesRecord, SkippedFile
from oncofm.imaging.sources import FileSource, open_member


def pack(scan: DicomScan) -> bytes:
    """Make a scan small; records of one series have nearly everything in common."""
    # Errors as their text: other libraries change how exceptions are pickled.
    skipped = [(file.name, file.reason, file.error and str(file.error)) for file in scan.skipped]
    return zlib.compress(pickle.dumps((scan.series, skipped), protocol=5), 1)


def unpack(data: bytes) -> DicomScan:
    """Give the scan that was packed.

    Raises
    ------
    BatchError
        If the bytes are something else.
    """
    try:
        series, skipped = _Records(io.BytesIO(zlib.decompress(data))).load()
        files = tuple(
            SkippedFile(name, reason, None if text is None else UnreadableFileError(text))
            for name, reason, text in skipped
        )
        return DicomScan(series, files)
    except Exception as error:
        raise BatchError(
            f"The catalog of this batch is damaged ({type(error).__name__}: {error}); delete "
            "catalog.sqlite, and it is made anew."
        ) from error


class _Records(pickle.Unpickler):
    """Makes what `pack` packs and nothing else, as a catalog may come from anybody."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _PACKED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"{module_name}.{global_name} has no place in it"
            ) from None


_PACKED = {
    (each.__module__, each.__qualname__): each
    for each in (
        SeriesRecord,
        InstanceRecord,
        FileSource,
        type(Path()),
        open_member,
    )
}
