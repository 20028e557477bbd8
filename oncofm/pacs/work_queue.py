"""The durable queue of jobs: huey's storage, in an SQLite file, Redis or PostgreSQL.

The queue holds no more than keys of studies. Taking one out is no promise to finish it: the
database knows what was being done, and puts it in again after a crash.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from huey.storage import BaseStorage, SqliteStorage

from oncofm.pacs.errors import NodeError, PacsConfigError

QUEUE_FILE = "queue.sqlite"
_SQLITE = "sqlite:///"


class WorkQueue:
    """First in, first out.

    Parameters
    ----------
    storage : huey.storage.BaseStorage
        Where it is kept.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage: Any = storage

    def put(self, key: str) -> None:
        """Append; on disk, or with the server, when it returns."""
        with self._connected():
            self._storage.enqueue(key.encode())

    def take(self) -> str | None:
        """Take the first out, if there is one."""
        with self._connected():
            data = self._storage.dequeue()
        return None if data is None else bytes(data).decode(errors="replace")

    def clear(self) -> None:
        """Empty it: the database knows what belongs into it."""
        with self._connected():
            self._storage.flush_queue()

    def __len__(self) -> int:
        with self._connected():
            return int(self._storage.queue_size())

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Let go of a connection that failed, so that the next call makes a new one."""
        try:
            yield
        except Exception:
            with suppress(Exception):
                self._storage.close()
            raise


def open_queue(url: str, folder: Path, name: str) -> WorkQueue:
    """Open the queue of a node.

    Parameters
    ----------
    url : str
        Empty for a file in the folder, else ``sqlite:///FILE``, ``redis://`` or ``postgresql://``.
    folder : pathlib.Path
        The node's.
    name : str
        Tells the queues of several nodes in one server apart.

    Raises
    ------
    PacsConfigError
        If the URL is of another kind, or what it needs is not installed.
    NodeError
        If it cannot be reached.
    """
    try:
        if not url or url.startswith(_SQLITE):
            file = url.removeprefix(_SQLITE) or str(folder / QUEUE_FILE)
            return WorkQueue(SqliteStorage(name, file, fsync=True, timeout=30))
        if url.startswith(("redis://", "rediss://")):
            import_module("redis")  # without which huey says something else
            from huey.storage import RedisStorage

            return WorkQueue(RedisStorage(name, blocking=False, url=url))
        if url.startswith("postgresql://"):
            from huey.contrib.sql_huey import SqlStorage

            return WorkQueue(SqlStorage(name, url))
    except ImportError as error:
        raise PacsConfigError(
            f"The queue needs the package {error.name}; install it beside oncofm[pacs]."
        ) from error
    except (OSError, sqlite3.Error) as error:
        raise NodeError(f"The queue cannot be opened ({error}); look at its file.") from error
    except Exception as error:  # its text may quote the password in the URL
        raise NodeError(
            f"The queue's server cannot be reached ({type(error).__name__}); start it first."
        ) from error
    raise PacsConfigError(
        "The queue is none of sqlite:///, redis:// and postgresql://; leave it out for a file in "
        "the node's folder."
    )
