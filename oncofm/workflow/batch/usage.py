"""What reading takes: of each item, and of all together."""

import heapq
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_SLOWEST = 10


@dataclass(frozen=True)
class ItemUsage:
    """What reading an item took, however it ended.

    Attributes
    ----------
    item_id : str
        Of the item.
    reading_s, held_up_s : float
        Seconds of work on it, and seconds until somebody took what was read.
    memory_mib : float or None
        Largest resident set so far of the process that read it; None where the system does not say.
    bytes_read : int or None
        By read calls, inputs or not; None where the system does not say.
    """

    item_id: str
    reading_s: float
    held_up_s: float
    memory_mib: float | None = None
    bytes_read: int | None = None


@dataclass(frozen=True)
class Usage:
    """What reading took all together.

    Attributes
    ----------
    reading_s, held_up_s, bytes_read
        Sums of those of the items.
    peak_memory_mib : float or None
        Largest resident set of any process that read.
    slowest : tuple of (str, float)
        Items that took longest, with their seconds.
    """

    reading_s: float = 0.0
    held_up_s: float = 0.0
    peak_memory_mib: float | None = None
    bytes_read: int | None = None
    slowest: tuple[tuple[str, float], ...] = ()


class ReaderUsage:
    """Adds up what several threads report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = Usage()
        self._slowest: list[tuple[float, str]] = []

    def add(self, items: Iterable[ItemUsage]) -> None:
        """Add items that have ended."""
        with self._lock:
            for item in items:
                self._add(item)

    def _add(self, item: ItemUsage) -> None:
        before = self._usage
        self._usage = replace(
            before,
            reading_s=before.reading_s + item.reading_s,
            held_up_s=before.held_up_s + item.held_up_s,
            peak_memory_mib=_known(max, before.peak_memory_mib, item.memory_mib),
            bytes_read=_known(int.__add__, before.bytes_read, item.bytes_read),
        )
        put = heapq.heappush if len(self._slowest) < _SLOWEST else heapq.heappushpop
        put(self._slowest, (item.reading_s, item.item_id))

    def snapshot(self) -> Usage:
        """Say what was reported so far."""
        with self._lock:
            slowest = tuple((item, seconds) for seconds, item in sorted(self._slowest)[::-1])
            return replace(self._usage, slowest=slowest)


def bytes_read_by(pid: int) -> int | None:
    """Count what a process has read by read calls so far; None where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith("rchar:")), None)
    return None if found is None else int(found.split()[1])


def _known(combine: Callable[[Any, Any], Any], before: Any, value: Any) -> Any:
    """Combine two numbers of which each may be unknown."""
    if before is None or value is None:
        return value if before is None else before
    return combine(before, value)
