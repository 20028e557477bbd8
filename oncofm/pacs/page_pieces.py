"""Pieces of the status page: tables, times, numbers, UIDs."""

from collections.abc import Sequence

from oncofm.pacs.readable import size as readable_size
from oncofm.results.report.markup import Html, code, element, isolated, join


def table(names: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> Html:
    """Show a table, or say in a sentence that there is nothing to show."""
    if not rows:
        return element("p", nothing, class_="quiet nothing")
    head = element("tr", *(element("th", name, scope="col") for name in names))
    body = (
        element(
            "tr",
            *(
                element("td", element("div", value), data_name=name)
                for name, value in zip(names, row, strict=True)
            ),
        )
        for row in rows
    )
    whole = element("table", element("thead", head), element("tbody", *body))
    return element("div", whole, class_="scroll")


def why(reason: str, message: str) -> Html:
    """Show a code and a sentence, if there are any."""
    parts = [code(reason)] if reason else []
    return join([*parts, *([isolated(message)] if message else [])], " ")


def under(text: str) -> list[Html]:
    """Show a remark on a line of its own, unless it is empty."""
    return [element("small", text)] if text.strip() and text != "<bdi></bdi>" else []


def uid(text: str) -> Html:
    """Show a UID, which may be broken at its dots."""
    return element("code", Html("<wbr>.".join(isolated(text).split("."))), class_="uid")


def moment(iso: str) -> Html:
    """Show a time."""
    words = iso.replace("T", " ").removesuffix("+00:00")
    return element("time", words, datetime=iso, title="UTC")


def number(count: int, mark: str = "") -> Html:
    """Show a number; a mark, as the style sheet has it, makes it stand out."""
    return element("span", f"{count:,}", class_=f"count {mark}".strip())


def duration(seconds: float) -> str:
    """Show seconds in the unit that fits."""
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if seconds >= unit_s and not seconds % unit_s:
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s"


def size(n_bytes: int) -> Html:
    """Show a number of bytes."""
    return element("span", readable_size(n_bytes), class_="count")
