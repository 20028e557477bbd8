"""Where the bytes of an image come from: a file on disk, a member of a zip archive."""

import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast


class Source(Protocol):
    """One file's worth of bytes, wherever they lie.

    Attributes
    ----------
    name : str
        For messages: the path on disk, with the member behind it inside an archive.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - described above

    def open(self) -> BinaryIO:
        """Open for reading from the start; seekable. The caller closes it."""
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file on disk."""

    path: Path

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self.path)

    def open(self) -> BinaryIO:
        """Open the file."""
        return self.path.open("rb")


@dataclass(frozen=True, slots=True)
class ZipMemberSource:
    """A member of a zip archive, read in place: nothing is extracted to disk.

    All members share one open archive, which may be read from several threads. In another process
    it is opened anew.
    """

    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process by name."""
        return open_member, (self.archive.filename, self.member.filename)

    @property
    def name(self) -> str:
        """The archive and the member in it."""
        return f"{self.archive.filename}/{self.member.filename}"

    def open(self) -> BinaryIO:
        """Open the member; decompression goes only as far as it is read."""
        return cast(BinaryIO, self.archive.open(self.member))


@lru_cache(maxsize=8)
def _open_archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def open_member(path: str, name: str) -> ZipMemberSource:
    """Open a member of an archive by both their names."""
    archive = _open_archive(path)
    return ZipMemberSource(archive, archive.getinfo(name))
