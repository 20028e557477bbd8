"""Times and sizes, written for people."""

from datetime import UTC, datetime


def iso(seconds: float) -> str:
    """Write a time as people and programs can read it; empty for 0."""
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def size(n_bytes: int) -> str:
    """Write a number of bytes in the unit that fits."""
    number, unit = float(n_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.3g} {unit}"
