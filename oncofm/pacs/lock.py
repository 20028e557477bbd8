"""One process serves a node's folder, and the others can tell whether one does."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from oncofm.pacs.errors import NodeError

_LOCK_FILE = "node.lock"


@contextmanager
def sole_node(folder: Path) -> Iterator[None]:
    """Keep a folder to one process.

    Raises
    ------
    NodeError
        If another process serves it.
    """
    path = folder / _LOCK_FILE
    with ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = stack.enter_context(path.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NodeError(
                f"Another node serves {folder}; stop it, or choose another folder."
            ) from error
        except OSError as error:
            raise NodeError(
                f"{path} cannot be locked ({error.strerror or error}); be the node's user, or "
                "choose a folder on a local disk."
            ) from error
        yield


def is_served(folder: Path) -> bool:
    """Whether a process holds the lock of `sole_node`; it is not kept for longer than that."""
    try:
        with (folder / _LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
