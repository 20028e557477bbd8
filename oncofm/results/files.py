"""Files that are either whole or absent."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from oncofm.errors import OutputNotWritableError

_PROBE_BYTES = 4096


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; on success sync it and move it into place.

    Parameters
    ----------
    target : pathlib.Path
        The final name. A file of that name is replaced in one step.

    Yields
    ------
    pathlib.Path
        Temporary name to write to, in the same folder.

    Raises
    ------
    OutputNotWritableError
        If writing fails, for example on a full disk; nothing is left behind.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise OutputNotWritableError(
            f"{target} cannot be written ({error.strerror or error}); free space or choose "
            "another output, then run again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def prepare_output_folder(folder: Path) -> None:
    """Create the output folder and prove that a file can be written into it.

    Raises
    ------
    OutputNotWritableError
        Before any work is done, if the folder is a file, read-only or full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".oncofm-{secrets.token_hex(4)}.probe"
        try:
            with probe.open("wb") as file:
                file.write(b"\0" * _PROBE_BYTES)
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputNotWritableError(
            f"Output folder {folder} cannot be written ({error.strerror or error}); choose a "
            "writable folder or mend its permissions."
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
