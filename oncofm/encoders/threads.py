"""How many threads the encoder may use: never more than the processors it is given."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def prepare_threads() -> None:
    """Set what torch's thread pool reads when torch is first imported; a user's choice stands.

    Threads that wait must not spin: with another busy process (or our own readers) on the same
    cores, torch gets two to four times slower. Alone it makes no difference.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_processors()))


def threads_to_use() -> int:
    """Count the threads of an engine that is not torch: the user's number for torch, else all."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isascii() and first.isdecimal() and int(first) > 0:
        return int(first)
    return usable_processors()


def usable_processors(cgroup: Path = _CGROUP) -> int:
    """Count the processors that this process may keep busy.

    Parameters
    ----------
    cgroup : pathlib.Path
        Where the control group's files are (version 2, or 1 with ``cpu/`` below).

    Returns
    -------
    int
        Processors that the scheduler allows, or fewer where a quota (``docker run --cpus``)
        pays for fewer; at least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, int(min(allowed, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """Processors that the quota pays for; infinite without one."""
    for texts in (_read(cgroup / "cpu.max"), _read(cgroup / "cpu" / "cpu.cfs_quota_us")):
        if not texts or texts[0] in ("max", "-1"):
            continue
        period = texts[1:] or _read(cgroup / "cpu" / "cpu.cfs_period_us")
        try:
            return max(1.0, float(texts[0]) / float(period[0]))
        except (ValueError, IndexError, ZeroDivisionError):
            continue
    return math.inf


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
