"""What became of studies and deliveries, step by step: noted by the database itself.

Triggers write a row whenever a study changes its state, or a destination's answer is another than
before, whichever process changes it. So the history is whole if the database is.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oncofm.pacs.database import Database

HISTORY_SCHEMA = """
CREATE TABLE IF NOT EXISTS history (
    study_key TEXT NOT NULL,
    at REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    revision INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    destination TEXT NOT NULL,
    sop_uid TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS history_by_study ON history (study_key);
CREATE INDEX IF NOT EXISTS history_by_time ON history (at);
CREATE TRIGGER IF NOT EXISTS study_begins AFTER INSERT ON studies BEGIN
    INSERT INTO history VALUES (NEW.key, NEW.changed_at, NEW.state, NEW.reason, NEW.message,
        NEW.revision, NEW.attempts, '', '');
END;
CREATE TRIGGER IF NOT EXISTS study_moves AFTER UPDATE OF state, reason ON studies
WHEN (NEW.state, NEW.reason) != (OLD.state, OLD.reason) BEGIN
    INSERT INTO history VALUES (NEW.key, NEW.changed_at, NEW.state, NEW.reason, NEW.message,
        NEW.revision, NEW.attempts, '', '');
END;
CREATE TRIGGER IF NOT EXISTS delivery_moves AFTER UPDATE OF state, status, message ON deliveries
WHEN NEW.attempts > 0
    AND (NEW.state, NEW.status, NEW.message) != (OLD.state, OLD.status, OLD.message) BEGIN
    INSERT INTO history VALUES (NEW.study_key, NEW.changed_at, NEW.state, NEW.status, NEW.message,
        NEW.revision, NEW.attempts, NEW.destination, NEW.sop_uid);
END;
"""

_IS_TROUBLE = (
    "(destination = '' AND (state = 'quarantined' OR "
    "(state = 'queued' AND reason NOT IN ('', 'forced')))) "
    "OR (destination != '' AND state IN ('pending', 'refused'))"
)
_NOT_WORK = ("no_rule", "dropped")
"""Reasons with which a study is done that nothing was made of."""


@dataclass(frozen=True)
class Step:
    """A row of ``history``.

    Attributes
    ----------
    at : float
        Seconds since 1970.
    state, reason, message : str
        Of the study; or of a delivery, whose reason is the peer's status.
    revision, attempt : int
        Which job, and how often it, or the delivery, had been tried.
    destination, sop_uid : str
        Of the delivery; empty if the step is the study's.
    """

    at: float
    state: str
    reason: str
    message: str
    revision: int
    attempt: int
    destination: str
    sop_uid: str


@dataclass(frozen=True)
class Throughput:
    """What happened in a stretch of time.

    Attributes
    ----------
    objects, received_bytes : int
        Received; what came again counts once.
    jobs : int
        Started.
    studies : int
        That are done, and had something to be made of.
    sent : int
        Instances that a destination has taken.
    failures : int
        Jobs that failed, and answers of destinations that were no success.
    """

    objects: int
    received_bytes: int
    jobs: int
    studies: int
    sent: int
    failures: int


def steps(database: "Database", study_key: str) -> list[Step]:
    """Find all steps of a study and its deliveries, the first one first."""
    columns = ", ".join(Step.__dataclass_fields__)
    rows = database.rows(
        f"SELECT {columns} FROM history WHERE study_key = ? ORDER BY rowid", study_key
    )
    return [Step(*row) for row in rows]


def troubles(database: "Database", since: float, most: int) -> list[tuple[str, Step]]:
    """Find the last steps that went wrong, with the UID of the study, the latest first."""
    columns = ", ".join(f"history.{name}" for name in Step.__dataclass_fields__)
    rows = database.rows(
        f"SELECT study_uid, {columns} FROM (SELECT * FROM history WHERE at > ? AND "
        f"({_IS_TROUBLE})) AS history JOIN studies ON key = study_key "
        "ORDER BY history.at DESC LIMIT ?",
        *(since, most),
    )
    return [(uid, Step(*row)) for uid, *row in rows]


def throughput(database: "Database", since: float) -> Throughput:
    """Count what happened since a time."""
    ((objects, received_bytes),) = database.rows(
        "SELECT count(*), coalesce(sum(n_bytes), 0) FROM objects WHERE received_at > ?", since
    )
    ((jobs, studies, sent, failures),) = database.rows(
        "SELECT count(CASE WHEN destination = '' AND state = 'running' THEN 1 END), "
        "count(DISTINCT CASE WHEN destination = '' AND state = 'done' AND reason NOT IN (?, ?) "
        "THEN study_key END), "
        "count(CASE WHEN destination != '' AND state = 'sent' THEN 1 END), "
        f"count(CASE WHEN {_IS_TROUBLE} THEN 1 END) FROM history WHERE at > ?",
        *(*_NOT_WORK, since),
    )
    return Throughput(objects, received_bytes, jobs, studies, sent, failures)
