"""How a node stands: what its status page, ``/status.json`` and `oncofm pacs status` say.

All of it is read from the node's folder, so that any process can say it. UIDs, AE titles, codes and
sentences of ours; no free text of a study.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import oncofm
from oncofm.pacs.audit import AUDIT_FILE
from oncofm.pacs.config import DicomDestination, PacsConfig, Rule
from oncofm.pacs.database import (
    DROPPED,
    LOCK_FILE,
    PENDING,
    QUARANTINED,
    REFUSED,
    SENT,
    SHADOW,
    STORED,
    Database,
)
from oncofm.pacs.history import Throughput, throughput, troubles
from oncofm.pacs.sources import Sources

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0
DELIVERY_STATES = (PENDING, STORED, SENT, REFUSED, SHADOW, DROPPED)
_TROUBLE_S = 7 * _DAY_S
_MOST_TROUBLES, _MOST_EVENTS, _MOST_QUARANTINED = 20, 10, 50
_MOST_SHOWN = 5
_TAIL_BYTES = 1 << 17
_BAD_ENDINGS = ("_refused", "_failed", "_unreadable")
"""What events of the audit log are called that went wrong."""
_SENTENCES = {
    "association_refused": "An association was refused; the configuration says who may come.",
    "connection_failed": "A connection came to nothing.",
    "thread_failed": "A part of the node failed, and was started again.",
    "spool_unreadable": "A file in the spool cannot be read; it is left where it is.",
}
"""For events that have none of their own."""


@dataclass(frozen=True)
class Trouble:
    """Something that went wrong.

    Attributes
    ----------
    time : str
        UTC, ISO 8601.
    event : str
        ``study``, ``delivery``, or what the audit log calls it.
    study_uid, peer : str
        What it is about, a destination or a source; empty for strangers and the node itself.
    reason, message : str
        Reason code or status of the peer, and a sentence.
    times : int
        How often; `time` is that of the last one.
    """

    time: str
    event: str
    study_uid: str
    peer: str
    reason: str
    message: str
    times: int = 1


@dataclass(frozen=True)
class DestinationStatus:
    """How sending to a destination stands.

    Attributes
    ----------
    name, kind, address : str
        Who it is; an address without what comes before an ``@`` in it.
    pending, stored, sent, refused, shadow, dropped : int
        Instances; `stored` are those that the destination is yet to commit to.
    attempts : int
        Most that one of the pending ones had.
    next_try : str
        When the next of them is due; empty if that is now, or there are none.
    answered : str
        When it was tried last; empty if it never was.
    answer, message : str
        Status and sentence of then.
    """

    name: str
    kind: str
    address: str
    pending: int
    stored: int
    sent: int
    refused: int
    shadow: int
    dropped: int
    attempts: int
    next_try: str
    answered: str
    answer: str
    message: str


@dataclass(frozen=True)
class SourceStatus:
    """How fetching from a server stands.

    Attributes
    ----------
    name, address : str
        Who it is.
    seen, pending, fetched, failed : int
        Studies there.
    answered, next_try : str
        When it answered last, and when it is asked next; empty if it never did, or is not asked.
    failures : int
        How often it has failed since.
    message : str
        A sentence about the last failure.
    """

    name: str
    address: str
    seen: int
    pending: int
    fetched: int
    failed: int
    answered: str
    next_try: str
    failures: int
    message: str


@dataclass(frozen=True)
class RuleStatus:
    """A rule in force; `match` is in the words of the configuration."""

    name: str
    match: dict[str, list[str]]
    require: list[str]
    quiet_s: float
    force_s: float
    destinations: list[str]
    shadow: bool


@dataclass(frozen=True)
class Quarantined:
    """A study that somebody must look at."""

    time: str
    study_uid: str
    rule: str
    reason: str
    message: str


@dataclass(frozen=True)
class Disk:
    """The disk of the node's folder; below `min_free_bytes` nothing is taken."""

    total_bytes: int
    free_bytes: int
    min_free_bytes: int


@dataclass(frozen=True)
class NodeStatus:
    """How a node stands.

    Attributes
    ----------
    time : str
        When it was asked; all times are UTC, ISO 8601.
    version : str
        Of this software.
    ae_titles, port
        Where it listens.
    is_running : bool
        Whether a process serves the folder.
    studies : dict of str to int
        By state, all seven.
    throughput : dict of str to Throughput
        Of the last ``minute``, ``hour`` and ``day``.
    disk, destinations, sources, rules, quarantined, troubles
        The latest first; of the last 7 days and no more than a page holds.
    """

    time: str
    version: str
    ae_titles: list[str]
    port: int
    is_running: bool
    studies: dict[str, int]
    throughput: dict[str, Throughput]
    disk: Disk
    destinations: list[DestinationStatus]
    sources: list[SourceStatus]
    rules: list[RuleStatus]
    quarantined: list[Quarantined]
    troubles: list[Trouble]


def read_status(database: Database, config: PacsConfig, now: float) -> NodeStatus:
    """Ask how a node stands.

    Parameters
    ----------
    database : Database
        The node's.
    config : PacsConfig
        Its configuration.
    now : float
        Seconds since 1970.
    """
    folder = config.node.folder
    usage = shutil.disk_usage(folder)
    return NodeStatus(
        time=iso(now),
        version=oncofm.__version__,
        ae_titles=list(config.node.ae_titles),
        port=config.node.port,
        is_running=is_served(folder),
        studies=database.counts(),
        throughput={
            "minute": throughput(database, now - _MINUTE_S),
            "hour": throughput(database, now - _HOUR_S),
            "day": throughput(database, now - _DAY_S),
        },
        disk=Disk(usage.total, usage.free, int(config.node.min_free_mb * 1e6)),
        destinations=[_destination(database, config, name) for name in _names(database, config)],
        sources=_sources(database, config),
        rules=[_rule(rule) for rule in config.rules],
        quarantined=_quarantined(database),
        troubles=_troubles(database, folder, now),
    )


def describe_status(status: NodeStatus) -> str:
    """Write it for a terminal."""
    disk, hour = status.disk, status.throughput["hour"]
    names = f"{', '.join(status.ae_titles)} (oncofm {status.version}, port {status.port})"
    return "\n".join(
        [
            f"{names} {'runs' if status.is_running else 'does not run'}",
            f"disk: {size(disk.free_bytes)} free, nothing is taken below "
            f"{size(disk.min_free_bytes)}",
            *(f"{state:<12} {count:>8}" for state, count in status.studies.items()),
            f"last hour: objects received {hour.objects}, jobs started {hour.jobs}, "
            f"studies done {hour.studies}, instances delivered {hour.sent}, "
            f"failures {hour.failures}",
            *map(_describe_destination, status.destinations),
            *map(_describe_source, status.sources),
            *map(_describe_trouble, reversed(status.troubles[:_MOST_SHOWN])),
        ]
    )


def _describe_destination(one: DestinationStatus) -> str:
    counts = {"delivered": one.sent, "pending": one.pending, "refused": one.refused}
    counts |= {"to be committed": one.stored, "in shadow": one.shadow, "dropped": one.dropped}
    said = ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing yet"
    again = f"; next try {one.next_try}" if one.next_try else ""
    last = " ".join(filter(None, [one.answer, one.message]))
    answer = f"; last answer: {last}" if last else ""
    return f"{one.name}: {said}{again}{answer}"


def _describe_source(one: SourceStatus) -> str:
    counts = {"seen": one.seen, "pending": one.pending, "fetched": one.fetched}
    said = ", ".join(f"{n} {what}" for what, n in (counts | {"failed": one.failed}).items())
    return f"{one.name}: {said}{f'; {one.message}' if one.message else ''}"


def _describe_trouble(one: Trouble) -> str:
    words = (one.time, one.event, one.peer, one.study_uid, one.reason, one.message)
    return "  ".join(filter(None, words))


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


def is_served(folder: Path) -> bool:
    """Whether a process holds the lock of `sole_node`; it is not kept for longer than that."""
    try:
        with (folder / LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


# --- destinations -------------------------------------------------------------------------


def _names(database: Database, config: PacsConfig) -> list[str]:
    """Destinations of the configuration, then those that it had before."""
    known = database.rows("SELECT DISTINCT destination FROM deliveries ORDER BY destination")
    return list(dict.fromkeys([*config.destinations, *(name for (name,) in known)]))


def _destination(database: Database, config: PacsConfig, name: str) -> DestinationStatus:
    kind, address = _address(config, name)
    counts = dict(
        database.rows(
            "SELECT state, count(*) FROM deliveries WHERE destination = ? GROUP BY state", name
        )
    )
    ((attempts, due_at),) = database.rows(
        "SELECT coalesce(max(attempts), 0), coalesce(min(due_at), 0) FROM deliveries "
        "WHERE destination = ? AND state = ?",
        *(name, PENDING),
    )
    answers = database.rows(
        "SELECT changed_at, status, message FROM deliveries WHERE destination = ? AND "
        "attempts > 0 AND state IN (?, ?, ?, ?) ORDER BY changed_at DESC LIMIT 1",
        *(name, PENDING, STORED, SENT, REFUSED),
    )
    answered, answer, message = answers[0] if answers else (0.0, "", "")
    return DestinationStatus(
        name=name,
        kind=kind,
        address=address,
        **{one: counts.get(one, 0) for one in DELIVERY_STATES},
        attempts=attempts,
        next_try=iso(due_at),
        answered=iso(answered),
        answer=answer,
        message=message,
    )


def _address(config: PacsConfig, name: str) -> tuple[str, str]:
    destination = config.destinations.get(name)
    if destination is None:
        return "removed", ""
    if isinstance(destination, DicomDestination):
        return "dicom", f"{destination.ae_title} at {destination.host}:{destination.port}"
    return "stow", destination.url.partition("?")[0]


def _sources(database: Database, config: PacsConfig) -> list[SourceStatus]:
    if not config.sources:
        return []
    sources = Sources(database)
    states = {name: sources.state(name) for name in config.sources}
    return [
        SourceStatus(
            name=name,
            address=config.sources[name].url,
            **sources.count(name),
            answered=iso(state.polled_at),
            next_try=iso(state.due_at),
            failures=state.failures,
            message=state.message,
        )
        for name, state in states.items()
    ]


# --- rules and studies --------------------------------------------------------------------


def _rule(rule: Rule) -> RuleStatus:
    match = {name: list(values) for name, values in rule.match.model_dump().items() if values}
    return RuleStatus(
        rule.name,
        match,
        list(rule.require),
        rule.quiet_s,
        rule.force_s,
        list(rule.destinations),
        rule.shadow,
    )


def _quarantined(database: Database) -> list[Quarantined]:
    studies = database.studies("state = ?", QUARANTINED)
    latest = sorted(studies, key=lambda study: study.changed_at, reverse=True)
    return [
        Quarantined(iso(one.changed_at), one.study_uid, one.rule, one.reason, one.message)
        for one in latest[:_MOST_QUARANTINED]
    ]


# --- what went wrong ----------------------------------------------------------------------


def _troubles(database: Database, folder: Path, now: float) -> list[Trouble]:
    found = [
        Trouble(
            iso(step.at),
            "delivery" if step.destination else "study",
            study_uid,
            step.destination,
            step.reason,
            step.message,
        )
        for study_uid, step in troubles(database, now - _TROUBLE_S, _MOST_TROUBLES)
    ]
    found += _together(map(_from_event, _bad_events(folder / AUDIT_FILE)))[-_MOST_EVENTS:]
    return sorted(found, key=lambda trouble: trouble.time, reverse=True)


def _together(found: Iterable[Trouble]) -> list[Trouble]:
    """Count what happens again and again, lest it hides the rest."""
    last: dict[Trouble, Trouble] = {}
    for trouble in found:
        key = replace(trouble, time="")
        before = last.pop(key, None)
        last[key] = replace(trouble, times=before.times + 1) if before else trouble
    return list(last.values())


def _bad_events(path: Path) -> Iterator[dict[str, Any]]:
    """Events of the end of the audit log that are about strangers or the node itself."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).splitlines()
    except OSError:
        return  # it was just moved away, and a new one comes with the next event
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the first one is cut
        if isinstance(event, dict) and str(event.get("event", "")).endswith(_BAD_ENDINGS):
            yield event


def _from_event(event: dict[str, Any]) -> Trouble:
    """Say what an event says; who it came from is part of the sentence."""
    said = event.get("message") or _SENTENCES.get(event["event"], "")
    who = ", ".join(
        f"{name} {event[name]}"
        for name in ("calling", "called", "address", "thread")
        if event.get(name)
    )
    return Trouble(
        time=str(event.get("time", ""))[:19] + "+00:00",
        event=str(event["event"]),
        study_uid=str(event.get("study", "")),
        peer=str(event.get("destination") or event.get("source") or ""),
        reason=str(event.get("reason") or event.get("status") or event.get("error") or ""),
        message=" ".join(filter(None, [str(said), f"({who})" if who else ""])),
    )
