"""How long a run and its parts take, and how much memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Timing:
    """How long a run and its parts take, in seconds."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def total(self) -> float:
        """Return the seconds since the start."""
        return round(time.perf_counter() - self.started, 3)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the run."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 3)


def peak_memory_mib() -> float:
    """Largest resident set of this process so far, in MiB."""
    # Not ru_maxrss: on Linux that starts at what the parent had when it forked.
    found = peak_memory_of("self")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def peak_memory_of(process: int | str) -> float | None:
    """Largest resident set of a process so far, in MiB; None if it is gone or nobody counts it."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if found is None else int(found.split()[1]) / 2**10
