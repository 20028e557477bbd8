"""What went wrong lately: steps of studies and deliveries, and events of the audit log."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oncofm.pacs.audit import AUDIT_FILE
from oncofm.pacs.database import Database
from oncofm.pacs.history import troubles
from oncofm.pacs.readable import iso

_SINCE_S = 7 * 86_400.0
_MOST_TROUBLES, _MOST_EVENTS = 20, 10
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


def read_troubles(database: Database, folder: Path, now: float) -> list[Trouble]:
    """Find what went wrong, the latest first; of the last 7 days, and no more than a page holds.

    Parameters
    ----------
    database : Database
        The node's.
    folder : pathlib.Path
        The node's, with the audit log.
    now : float
        Seconds since 1970.
    """
    found = [
        Trouble(
            iso(step.at),
            "delivery" if step.destination else "study",
            study_uid,
            step.destination,
            step.reason,
            step.message,
        )
        for study_uid, step in troubles(database, now - _SINCE_S, _MOST_TROUBLES)
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
