"""The audit log: who sent what, and what became of it, by UID; JSON lines."""

import json
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from oncofm.pacs.errors import NodeError

AUDIT_FILE = "audit.jsonl"
"""Below the node's folder."""


class Audit(Protocol):
    """Takes events; values are UIDs, AE titles, numbers, codes and sentences of ours."""

    def __call__(self, event: str, **facts: object) -> None:
        """Note an event."""
        ...


class AuditLog:
    """Lines at the end of a file, on disk before `__call__` returns.

    Parameters
    ----------
    path : pathlib.Path
        Made if absent; whoever rotates it moves it away, and a new one is begun.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.touch()
        except OSError as error:
            raise NodeError(
                f"{path} cannot be written ({error.strerror or error}); choose another folder."
            ) from error

    def __call__(self, event: str, **facts: object) -> None:
        """Append a line; a full disk stops nothing, the line goes to standard error then."""
        line = json.dumps(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        )
        with self._lock:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                print(line, file=sys.stderr, flush=True)
