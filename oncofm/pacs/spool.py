"""Received files: on disk for good before anybody is told so."""

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from oncofm.pacs.errors import NodeError
from oncofm.pacs.objects import digest

_SUFFIX, _TEMPORARY = ".dcm", ".tmp"


class Spool:
    """A folder of received files, ``<hash of study>/<hash of instance>-<hash of bytes>.dcm``.

    The name follows from the bytes, so that a file never changes: a job that reads it is safe
    from an object of the same UID that comes later, and an object that comes twice is one file.

    Parameters
    ----------
    folder : pathlib.Path
        Made if absent.
    min_free_bytes : int
        Below that `is_full` says so.
    """

    def __init__(self, folder: Path, min_free_bytes: int) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._lock = threading.Lock()
        self._pending: dict[str, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NodeError(
                f"{folder} cannot be made ({error.strerror or error}); choose another folder."
            ) from error

    @property
    def free_bytes(self) -> int:
        """Free on the disk."""
        return shutil.disk_usage(self._folder).free

    def is_full(self, n_more: int = 0) -> bool:
        """Whether the disk is below its watermark, or would be with so many bytes more."""
        return self.free_bytes - n_more < self._min_free_bytes

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._folder / name

    def store(
        self, study_uid: str, sop_uid: str, start: bytes, data_set: bytes | memoryview
    ) -> str:
        """Put a file on disk, and only then return; its name is pending until `settle`.

        Parameters
        ----------
        study_uid, sop_uid : str
            Any text.
        start : bytes
            Preamble and file meta information; the name does not depend on it.
        data_set : bytes
            As it came.

        Returns
        -------
        str
            Its name below the folder.

        Raises
        ------
        OSError
            If it is not on disk.
        """
        folder = self._folder / digest(study_uid)
        target = folder / f"{digest(sop_uid)}-{digest(data_set)}{_SUFFIX}"
        temporary = folder / f"{secrets.token_hex(8)}{_TEMPORARY}"
        name = f"{folder.name}/{target.name}"
        try:
            with self._lock:  # or the empty folder might be removed in between
                is_new = not folder.is_dir()
                folder.mkdir(exist_ok=True)
                file = temporary.open("xb")
            with file:
                file.write(start)
                file.write(data_set)
                file.flush()
                os.fsync(file.fileno())
            with self._lock:
                temporary.replace(target)
                self._pending[name] = self._pending.get(name, 0) + 1
            sync_folder(folder)
            if is_new:
                sync_folder(self._folder)
        finally:
            temporary.unlink(missing_ok=True)
        return name

    def settle(self, name: str) -> None:
        """Say that a stored file is in the books."""
        with self._lock:
            left = self._pending.pop(name, 0) - 1
            if left > 0:
                self._pending[name] = left

    def remove(self, names: Iterable[str], is_garbage: Callable[[str], bool]) -> list[str]:
        """Remove files that nobody needs, but for those that came again meanwhile.

        Parameters
        ----------
        names : iterable of str
            What to remove.
        is_garbage : callable
            Asked again for each when nothing can come in between.

        Returns
        -------
        list of str
            What is gone.
        """
        gone = []
        for name in names:
            with self._lock:
                if name in self._pending or not is_garbage(name):
                    continue
                self.path(name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self.path(name).parent.rmdir()  # if it was the last one
            gone.append(name)
        return gone

    def names(self) -> Iterator[str]:
        """Find all files; what was left half-written by a killed process is removed."""
        for folder in sorted(self._folder.iterdir()):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.suffix == _TEMPORARY:
                    path.unlink()
                elif path.suffix == _SUFFIX:
                    yield f"{folder.name}/{path.name}"


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
