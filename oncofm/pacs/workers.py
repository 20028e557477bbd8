"""Who runs jobs: each worker holds a lock, which falls when its process ends, however it does."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oncofm.pacs.errors import NodeError

WORKERS_FOLDER = "workers"
"""Below the node's folder: a lock file for each worker."""


@contextmanager
def be_worker(folder: Path) -> Iterator[str]:
    """Be a worker of a node's folder while entered; gives the name.

    Raises
    ------
    NodeError
        If the folder cannot be written.
    """
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    path = _path(folder, name)
    try:
        path.parent.mkdir(exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise NodeError(
            f"{path} cannot be written ({error.strerror or error}); choose a folder on a local "
            "disk."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield name
        finally:
            path.unlink(missing_ok=True)


def is_gone(folder: Path, name: str) -> bool:
    """Whether a worker's process has ended."""
    path = _path(folder, name)
    try:
        with path.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    with contextlib.suppress(OSError):
        path.unlink()
    return True


def _path(folder: Path, name: str) -> Path:
    return folder / WORKERS_FOLDER / f"{name}.lock"
