"""Sections of the status page, one function each."""

from collections.abc import Iterable
from dataclasses import asdict

from oncofm.pacs.database import DONE, QUARANTINED
from oncofm.pacs.page_pieces import (
    duration,
    moment,
    number,
    size,
    table,
    uid,
    under,
    why,
)
from oncofm.pacs.status import Disk, NodeStatus, RuleStatus
from oncofm.pacs.status_peers import DestinationStatus, SourceStatus
from oncofm.pacs.status_troubles import Trouble
from oncofm.results.report.markup import Html, code, element, isolated, join

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


def sections(status: NodeStatus) -> list[Html]:
    """Write all sections of the page, in the order of urgency."""
    sources = [_section("sources", "Sources", _sources(status.sources))] if status.sources else []
    return [
        _section("studies", "Studies", _studies(status)),
        _section("attention", "Needs attention", _quarantined(status)),
        _section("errors", "Last errors", _troubles(status)),
        _section("destinations", "Destinations", _destinations(status.destinations)),
        *sources,
        _section("throughput", "Throughput", _throughput(status)),
        _section("disk", "Disk", _disk(status.disk)),
        _section("rules", "Rules in force", _rules(status.rules)),
    ]


def _section(key: str, name: str, content: Html) -> Html:
    return element("section", element("h2", name), content, id=key)


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
        (moment(one.time), uid(one.study_uid), one.rule, why(one.reason, one.message))
        for one in status.quarantined
    ]
    studies = table(("Since", "Study", "Rule", "Why"), rows, "Nothing is in quarantine.")
    return join([studies, element("p", _WHAT_TO_DO, class_="note")]) if rows else studies


def _troubles(status: NodeStatus) -> Html:
    rows = [
        (
            moment(one.time),
            join([code(one.event), *under(_more(one))]),
            uid(one.study_uid),
            why(one.reason, one.message),
        )
        for one in status.troubles
    ]
    return table(("Time", "What", "Study", "Why"), rows, "Nothing went wrong in the last 7 days.")


def _more(trouble: Trouble) -> str:
    again = f"{trouble.times:,} times" if trouble.times > 1 else ""
    return isolated(trouble.peer) if trouble.peer else again


def _destinations(destinations: Iterable[DestinationStatus]) -> Html:
    rows = [
        (
            join([isolated(one.name), *under(isolated(f"{one.kind} {one.address}"))]),
            _delivered(one),
            _pending(one),
            number(one.refused, "bad" if one.refused else ""),
            _answer(one),
        )
        for one in destinations
    ]
    names = ("Destination", "Delivered", "Pending", "Refused", "Last answer")
    return table(names, rows, "There is no destination: all rules are shadows.")


def _delivered(one: DestinationStatus) -> Html:
    more = {"to be committed": one.stored, "in shadow": one.shadow, "dropped": one.dropped}
    said = ", ".join(f"{n:,} {what}" for what, n in more.items() if n)
    return join([number(one.sent), *under(said)])


def _pending(one: DestinationStatus) -> Html:
    if not one.pending:
        return number(0)
    times = "once" if one.attempts == 1 else f"{one.attempts} times"
    tried = f"tried {times}, " if one.attempts else ""
    due = ["next at ", moment(one.next_try)] if one.next_try else ["due now"]
    return join([number(one.pending), element("small", tried, *due)])


def _answer(one: DestinationStatus) -> Html:
    if not one.answered:
        return element("span", "not tried yet", class_="quiet")
    return join([moment(one.answered), Html(" "), why(one.answer, one.message)])


def _sources(sources: Iterable[SourceStatus]) -> Html:
    rows = [
        (
            join([isolated(one.name), *under(isolated(one.address))]),
            join([number(one.fetched), *under(f"{one.seen:,} more seen" if one.seen else "")]),
            number(one.pending),
            number(one.failed, "bad" if one.failed else ""),
            moment(one.answered) if one.answered else element("span", "never", class_="quiet"),
            join([number(one.failures), *under(isolated(one.message))]),
        )
        for one in sources
    ]
    names = ("Source", "Fetched", "Pending", "Given up", "Answered", "Failures since")
    return table(names, rows, "")


def _throughput(status: NodeStatus) -> Html:
    spans = {name: asdict(one) for name, one in status.throughput.items()}
    rows = [
        (
            label,
            *(
                size(span[key]) if key == "received_bytes" else number(span[key])
                for span in spans.values()
            ),
        )
        for key, label in _THROUGHPUT.items()
    ]
    rates = (_per_second(span["objects"], _SECONDS[name]) for name, span in spans.items())
    rows.insert(1, ("Objects per second", *rates))
    return table(("", *(f"Last {name}" for name in spans)), rows, "")


def _per_second(objects: int, seconds: int) -> Html:
    return element("span", f"{objects / seconds:.2g}", class_="count")


def _disk(disk: Disk) -> Html:
    is_low = disk.free_bytes < disk.min_free_bytes
    sentence = "Nothing is taken until there is more." if is_low else ""
    return join(
        [
            element(
                "p",
                element("strong", size(disk.free_bytes), class_="bad" if is_low else None),
                " free of ",
                size(disk.total_bytes),
                "; the watermark is ",
                size(disk.min_free_bytes),
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
            join([isolated(rule.name), *under("shadow: nothing is sent" if rule.shadow else "")]),
            join([element("div", _pattern(key, rule.match[key])) for key in rule.match])
            or element("span", "every study", class_="quiet"),
            ", ".join(rule.require) or "nothing",
            f"{duration(rule.quiet_s)}; forced after {duration(rule.force_s)}",
            ", ".join(rule.destinations) or "none",
        )
        for rule in rules
    ]
    return table(("Rule", "Studies", "Needs", "Quiet for", "Destinations"), rows, "")


def _pattern(name: str, patterns: list[str]) -> Html:
    return join([code(name), Html(" "), isolated(", ".join(patterns))])
