"""One point of a JSON file before it has a number: what the readers of point files share."""

import json
import math
from dataclasses import dataclass
from typing import Any

Vector = tuple[float, float, float]


class UnusableError(Exception):
    """Why one point cannot be used: the end of a sentence, without the values of the file."""


@dataclass(frozen=True)
class PointDraft:
    """A point as a file tells of it.

    Attributes
    ----------
    place : str
        Where in the file it stands, for messages: ``control point 2 of markup 1``.
    label, description : str
        The file's own words, or empty.
    position_mm : tuple of float or None
        LPS millimetres, None where `fault` says why there is none.
    fault : str
        End of the sentence that rejects the point, empty for a good one.
    extent_mm : tuple of float or None
        World-axis-aligned size (x, y, z), where the file gives one.
    hidden : bool
        True if the file says that the point is not shown.
    """

    place: str
    label: str = ""
    description: str = ""
    position_mm: Vector | None = None
    fault: str = ""
    extent_mm: Vector | None = None
    hidden: bool = False


def number(value: Any) -> float:
    """Read a JSON number; NaN for anything else, and for what a float cannot hold."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return math.nan


def numbers(value: Any, count: int, name: str) -> list[float]:
    """Read a JSON list of finite numbers.

    Parameters
    ----------
    value : object
        As parsed.
    count : int
        How many there must be.
    name : str
        What to call the list in the message.

    Raises
    ------
    UnusableError
        If it is anything else.
    """
    found = [number(item) for item in value] if isinstance(value, list) else []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise UnusableError(f"its {name} is not a list of {count} finite numbers; correct it")
    return found


def text(value: Any) -> str:
    """Turn a JSON value into text that can be written as UTF-8; null is empty."""
    if value is None:
        return ""
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return words.encode("utf-8", "replace").decode("utf-8")
