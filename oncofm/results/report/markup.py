"""HTML by construction: whatever is not markup already is escaped."""

import re
from functools import cache, lru_cache
from html import escape

from oncofm.results.report.limits import MOST_CHARACTERS

_BLANKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)
"""Control characters, what turns the direction of text around, and what UTF-8 or HTML cannot
hold."""
_VOID = frozenset({"br", "img", "input", "meta", "wbr"})


class Html(str):
    """Markup, as opposed to text that has to be escaped."""

    __slots__ = ()


def text(value: str) -> Html:
    """Escape text for an element or an attribute; markup stays as it is.

    Parameters
    ----------
    value : str
        Anything. Blanks become spaces, what cannot be printed becomes U+FFFD, and what is longer
        than `MOST_CHARACTERS` is cut.
    """
    if isinstance(value, Html):
        return value
    return _escaped(value[: MOST_CHARACTERS + 1])


@lru_cache(4096)  # a report says the same a thousand times
def _escaped(value: str) -> Html:
    return Html(escape(printable(value)))


def printable(value: str, most: int = MOST_CHARACTERS) -> str:
    """Make text printable on one line, of at most so many characters."""
    if value.isprintable() and len(value) <= most:
        return value
    value = _UNPRINTABLE.sub("\ufffd", _BLANKS.sub(" ", value[: most + 1]))
    return value if len(value) <= most else f"{value[: most - 1]}…"


def element(name: str, /, *children: str, **attributes: str | int | bool | None) -> Html:
    """Make an element.

    Parameters
    ----------
    name : str
        Of the element.
    *children : str
        Text is escaped, `Html` is not.
    **attributes : str, int, bool or None
        ``class_`` is ``class``, other underscores are hyphens. None and False leave the attribute
        out, True gives it no value.
    """
    opening = "".join([_attribute(key, value) for key, value in attributes.items()])
    if name in _VOID:
        return Html(f"<{name}{opening}>")
    content = "".join([child if type(child) is Html else text(child) for child in children])
    return Html(f"<{name}{opening}>{content}</{name}>")


def join(parts: "list[Html] | tuple[Html, ...]", between: str = "") -> Html:
    """Put markup in a row."""
    return Html(text(between).join(parts))


def code(value: str) -> Html:
    """Show a code or a UID; its words may be broken apart behind ``_`` only."""
    return element("code", Html(text(value).replace("_", "_<wbr>")))


def isolated(value: str) -> Html:
    """Text from outside: it may run from right to left, its neighbours do not."""
    return element("bdi", value)


def _attribute(key: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    key = _attribute_name(key)
    if value is True:
        return f" {key}"
    return f' {key}="{text(value if isinstance(value, str) else str(value))}"'


@cache
def _attribute_name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
