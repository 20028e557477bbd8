"""The status page of a node, as HTML that loads nothing."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources

from oncofm.pacs.database import DONE, QUARANTINED
from oncofm.pacs.status import (
    DestinationStatus,
    Disk,
    NodeStatus,
    RuleStatus,
    SourceStatus,
    Trouble,
    size,
)
from oncofm.results.manifest import RESEARCH_USE
from oncofm.results.report.markup import Html, code, element, isolated, join

_ASSETS = {"report.css": "oncofm.results.report", "page.css": "oncofm.pacs"}
_SCRIPT = "page.js"
_WITHOUT_SCRIPT_S = 30
_WHAT_TO_DO = (
    "oncofm pacs show says more of a study, requeue tries it again, drop gives it up, export "
    "writes what is known of it to a folder."
)
_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}
_THROUGHPUT = {
    "objects": "Objects received",
    "received_bytes": "Received",
    "jobs": "Jobs started",
    "studies": "Studies done",
    "sent": "Instances delivered",
    "failures": "Failures",
}


@dataclass(frozen=True)
class Process:
    """What only the process itself knows about a node.

    Attributes
    ----------
    started : str
        UTC, ISO 8601.
    is_ready : bool
        Whether it takes objects and can run jobs.
    problems : list of str
        Sentences that say why not.
    """

    started: str
    is_ready: bool
    problems: list[str]


def render_page(status: NodeStatus, process: Process) -> str:
    """Write the status page.

    Parameters
    ----------
    status : NodeStatus
        What it says.
    process : Process
        And about the process.

    Returns
    -------
    str
        A document that loads nothing but itself, again and again; `content_policy` forbids all
        else.
    """
    titles = ", ".join(status.ae_titles)
    sections = (
        _section("studies", "Studies", _studies(status)),
        _section("attention", "Needs attention", _quarantined(status)),
        _section("errors", "Last errors", _troubles(status)),
        _section("destinations", "Destinations", _destinations(status.destinations)),
        *([_section("sources", "Sources", _sources(status.sources))] if status.sources else []),
        _section("throughput", "Throughput", _throughput(status)),
        _section("disk", "Disk", _disk(status.disk)),
        _section("rules", "Rules in force", _rules(status.rules)),
    )
    body = element(
        "body",
        element("header", element("p", RESEARCH_USE), class_="statement"),
        element(
            "main",
            element("h1", "Node ", isolated(titles)),
            element(
                "p",
                element("span", f"oncofm {status.version}", id="version"),
                f" · port {status.port} · ",
                element("span", "as of ", _moment(status.time), " UTC", id="time"),
                class_="subtitle",
            ),
            element("p", "No answer from the node.", id="lost", class_="alarm", hidden=True),
            _state(process),
            *sections,
        ),
        element("script", _script()),
    )
    n_quarantined = status.studies[QUARANTINED]
    title = f"{f'({n_quarantined}) ' if n_quarantined else ''}{titles} - oncofm"
    document = element("html", _head(title), body, lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


@cache
def content_policy() -> str:
    """Content-Security-Policy that the page is sent with."""
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "img-src data:; connect-src 'self'; "
        f"style-src {_digest(_style())}; script-src {_digest(_script())}"
    )


def _head(title: str) -> Html:
    refresh = element("meta", http_equiv="refresh", content=_WITHOUT_SCRIPT_S)
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="robots", content="noindex"),
        element("noscript", refresh),
        element("title", title),
        Html('<link rel="icon" href="data:,">'),
        element("style", _style()),
    )


# --- sections -----------------------------------------------------------------------------


def _state(process: Process) -> Html:
    if process.is_ready:
        content = element(
            "p",
            element("span", "ready", class_="badge done"),
            " The node takes objects and runs jobs. It was started ",
            _moment(process.started),
            ".",
        )
        return element("div", content, id="state", class_="state")
    sentences = (element("p", sentence) for sentence in process.problems)
    return element(
        "div", element("strong", "Not ready"), *sentences, id="state", class_="state alarm"
    )


def _section(key: str, name: str, *content: Html) -> Html:
    return element("section", element("h2", name), *content, id=key)


def _studies(status: NodeStatus) -> Html:
    tiles = (
        element(
            "li",
            element("span", state, class_="quiet"),
            element("strong", f"{count:,}", class_=_mark(state, count)),
            id=f"state-{state}",
        )
        for state, count in status.studies.items()
    )
    return element("ul", *tiles, class_="counts")


def _mark(state: str, count: int) -> str:
    if state == QUARANTINED and count:
        return "count bad"
    return "count good" if state == DONE and count else "count"


def _quarantined(status: NodeStatus) -> Html:
    rows = [
        (_moment(one.time), _uid(one.study_uid), one.rule, _why(one.reason, one.message))
        for one in status.quarantined
    ]
    table = _table(("Since", "Study", "Rule", "Why"), rows, "Nothing is in quarantine.")
    return join([table, element("p", _WHAT_TO_DO, class_="note")]) if rows else table


def _troubles(status: NodeStatus) -> Html:
    rows = [
        (
            _moment(one.time),
            join([code(one.event), *_under(_more(one))]),
            _uid(one.study_uid),
            _why(one.reason, one.message),
        )
        for one in status.troubles
    ]
    return _table(("Time", "What", "Study", "Why"), rows, "Nothing went wrong in the last 7 days.")


def _more(trouble: Trouble) -> str:
    again = f"{trouble.times:,} times" if trouble.times > 1 else ""
    return isolated(trouble.peer) if trouble.peer else again


def _destinations(destinations: Iterable[DestinationStatus]) -> Html:
    rows = [
        (
            join([isolated(one.name), *_under(isolated(f"{one.kind} {one.address}"))]),
            _delivered(one),
            _pending(one),
            _number(one.refused, "bad" if one.refused else ""),
            _answer(one),
        )
        for one in destinations
    ]
    names = ("Destination", "Delivered", "Pending", "Refused", "Last answer")
    return _table(names, rows, "There is no destination: all rules are shadows.")


def _delivered(one: DestinationStatus) -> Html:
    more = {"to be committed": one.stored, "in shadow": one.shadow, "dropped": one.dropped}
    said = ", ".join(f"{n:,} {what}" for what, n in more.items() if n)
    return join([_number(one.sent), *_under(said)])


def _pending(one: DestinationStatus) -> Html:
    if not one.pending:
        return _number(0)
    times = "once" if one.attempts == 1 else f"{one.attempts} times"
    tried = f"tried {times}, " if one.attempts else ""
    due = ["next at ", _moment(one.next_try)] if one.next_try else ["due now"]
    return join([_number(one.pending), element("small", tried, *due)])


def _answer(one: DestinationStatus) -> Html:
    if not one.answered:
        return element("span", "not tried yet", class_="quiet")
    return join([_moment(one.answered), Html(" "), _why(one.answer, one.message)])


def _sources(sources: Iterable[SourceStatus]) -> Html:
    rows = [
        (
            join([isolated(one.name), *_under(isolated(one.address))]),
            join([_number(one.fetched), *_under(f"{one.seen:,} more seen" if one.seen else "")]),
            _number(one.pending),
            _number(one.failed, "bad" if one.failed else ""),
            _moment(one.answered) if one.answered else element("span", "never", class_="quiet"),
            join([_number(one.failures), *_under(isolated(one.message))]),
        )
        for one in sources
    ]
    names = ("Source", "Fetched", "Pending", "Given up", "Answered", "Failures since")
    return _table(names, rows, "")


def _throughput(status: NodeStatus) -> Html:
    spans = {name: asdict(one) for name, one in status.throughput.items()}
    rows = [
        (
            label,
            *(
                _size(span[key]) if key == "received_bytes" else _number(span[key])
                for span in spans.values()
            ),
        )
        for key, label in _THROUGHPUT.items()
    ]
    rates = (_per_second(span["objects"], _SECONDS[name]) for name, span in spans.items())
    rows.insert(1, ("Objects per second", *rates))
    return _table(("", *(f"Last {name}" for name in spans)), rows, "")


def _per_second(objects: int, seconds: int) -> Html:
    return element("span", f"{objects / seconds:.2g}", class_="count")


def _disk(disk: Disk) -> Html:
    is_low = disk.free_bytes < disk.min_free_bytes
    sentence = "Nothing is taken until there is more." if is_low else ""
    return join(
        [
            element(
                "p",
                element("strong", _size(disk.free_bytes), class_="bad" if is_low else None),
                " free of ",
                _size(disk.total_bytes),
                "; the watermark is ",
                _size(disk.min_free_bytes),
                f". {sentence}",
            ),
            element(
                "meter",
                min="0",
                max=disk.total_bytes,
                low=disk.min_free_bytes,
                value=disk.free_bytes,
                aria_label="Free disk",
            ),
        ]
    )


def _rules(rules: Iterable[RuleStatus]) -> Html:
    rows = [
        (
            join([isolated(rule.name), *_under("shadow: nothing is sent" if rule.shadow else "")]),
            join([element("div", _pattern(key, rule.match[key])) for key in rule.match])
            or element("span", "every study", class_="quiet"),
            ", ".join(rule.require) or "nothing",
            f"{_duration(rule.quiet_s)}; forced after {_duration(rule.force_s)}",
            ", ".join(rule.destinations) or "none",
        )
        for rule in rules
    ]
    return _table(("Rule", "Studies", "Needs", "Quiet for", "Destinations"), rows, "")


def _pattern(name: str, patterns: list[str]) -> Html:
    return join([code(name), Html(" "), isolated(", ".join(patterns))])


# --- pieces -------------------------------------------------------------------------------


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> Html:
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
    table = element("table", element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll")


def _why(reason: str, message: str) -> Html:
    parts = [code(reason)] if reason else []
    return join([*parts, *([isolated(message)] if message else [])], " ")


def _under(text: str) -> list[Html]:
    return [element("small", text)] if text.strip() and text != "<bdi></bdi>" else []


def _uid(uid: str) -> Html:
    """Show a UID, which may be broken at its dots."""
    return element("code", Html("<wbr>.".join(isolated(uid).split("."))), class_="uid")


def _moment(iso: str) -> Html:
    words = iso.replace("T", " ").removesuffix("+00:00")
    return element("time", words, datetime=iso, title="UTC")


def _number(count: int, mark: str = "") -> Html:
    return element("span", f"{count:,}", class_=f"count {mark}".strip())


def _duration(seconds: float) -> str:
    """Show seconds in the unit that fits."""
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if seconds >= unit_s and not seconds % unit_s:
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s"


def _size(n_bytes: int) -> Html:
    return element("span", size(n_bytes), class_="count")


@cache
def _style() -> Html:
    return Html("".join(_asset(package, name) for name, package in _ASSETS.items()))


@cache
def _script() -> Html:
    return Html(_asset(__package__ or "", _SCRIPT))


def _asset(package: str, name: str) -> str:
    return "\n" + (resources.files(package) / name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
