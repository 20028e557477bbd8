"""What the node knows about studies, objects and deliveries: a small database, safe at any moment.

Files say what was received; the database says what became of it. A row is written after the file
that it is about, so that a killed process leaves files without rows, never rows without files.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oncofm.pacs.errors import NodeError
from oncofm.pacs.history import HISTORY_SCHEMA
from oncofm.pacs.objects import ObjectFacts

DATABASE_FILE = "node.sqlite"
RECEIVED, WAITING, QUEUED, RUNNING = "received", "waiting", "queued", "running"
SENDING, DONE, QUARANTINED = "sending", "done", "quarantined"
STATES = (RECEIVED, WAITING, QUEUED, RUNNING, SENDING, DONE, QUARANTINED)
PENDING, SENT, REFUSED, SHADOW, DROPPED = "pending", "sent", "refused", "shadow", "dropped"
STORED = "stored"
"""Of a delivery that the destination has taken and is yet to commit to."""

_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    key TEXT PRIMARY KEY,
    study_uid TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    rule TEXT NOT NULL DEFAULT '',
    fresh INTEGER NOT NULL DEFAULT 1,
    forced INTEGER NOT NULL DEFAULT 0,
    enqueued INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    done_with TEXT NOT NULL DEFAULT '',
    worker TEXT NOT NULL DEFAULT '',
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,
    due_at REAL NOT NULL DEFAULT 0,
    changed_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS studies_by_state ON studies (state);
CREATE TABLE IF NOT EXISTS objects (
    study_key TEXT NOT NULL,
    sop_uid TEXT NOT NULL,
    file TEXT NOT NULL,
    n_bytes INTEGER NOT NULL,
    calling TEXT NOT NULL,
    called TEXT NOT NULL,
    facts TEXT NOT NULL,
    present INTEGER NOT NULL,
    done_file TEXT NOT NULL DEFAULT '',
    received_at REAL NOT NULL,
    PRIMARY KEY (study_key, sop_uid)
);
CREATE INDEX IF NOT EXISTS objects_by_file ON objects (file);
CREATE INDEX IF NOT EXISTS objects_by_time ON objects (received_at, n_bytes);
CREATE INDEX IF NOT EXISTS objects_on_disk ON objects (study_key) WHERE present = 1;
CREATE TABLE IF NOT EXISTS garbage (file TEXT PRIMARY KEY, study_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    destination TEXT NOT NULL,
    sop_uid TEXT NOT NULL,
    sop_class TEXT NOT NULL,
    study_key TEXT NOT NULL,
    revision INTEGER NOT NULL,
    file TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL DEFAULT 0,
    status TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    changed_at REAL NOT NULL,
    asks INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (destination, sop_uid)
);
CREATE INDEX IF NOT EXISTS deliveries_by_study ON deliveries (study_key);
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (destination, state, due_at);
CREATE INDEX IF NOT EXISTS deliveries_by_time ON deliveries (destination, changed_at);
CREATE TABLE IF NOT EXISTS commitments (
    transaction_uid TEXT NOT NULL,
    destination TEXT NOT NULL,
    sop_uid TEXT NOT NULL,
    PRIMARY KEY (transaction_uid, destination, sop_uid)
);
CREATE TABLE IF NOT EXISTS node (id TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Study:
    """A row of ``studies``.

    Attributes
    ----------
    key : str
        Hash of its UID; also its folder's name.
    state, reason, message : str
        One of `STATES`, and why.
    rule : str
        Name of the rule that it was last considered by.
    fresh : int
        1 if something came that was not considered yet.
    forced : int
        1 if it was started although something is missing.
    enqueued : int
        1 if its job is in the queue.
    revision : int
        Number of its jobs that ended with reports.
    attempts : int
        Of the job at hand.
    done_with : str
        What the last job with reports ran with.
    worker : str
        Who runs the job, or ran the last one.
    first_at, last_at, due_at, changed_at : float
        Seconds since 1970: first and last object since it was done last, when the job may start or
        the rules are looked at again, last change of state.
    """

    key: str
    study_uid: str
    state: str
    reason: str
    message: str
    rule: str
    fresh: int
    forced: int
    enqueued: int
    revision: int
    attempts: int
    done_with: str
    worker: str
    first_at: float
    last_at: float
    due_at: float
    changed_at: float


@dataclass(frozen=True)
class StoredObject:
    """A row of ``objects``; `present` if its file is there, `done_file` what a job last read."""

    study_key: str
    sop_uid: str
    file: str
    n_bytes: int
    calling: str
    called: str
    facts: ObjectFacts
    present: bool
    done_file: str
    received_at: float


@dataclass(frozen=True)
class Delivery:
    """A row of ``deliveries``: an instance that goes, or went, to a destination.

    Of storage commitment: how often it was asked for since the instance was sent last, and how
    often the destination said that it does not have the instance.
    """

    destination: str
    sop_uid: str
    sop_class: str
    study_key: str
    revision: int
    file: str
    state: str
    attempts: int
    due_at: float
    status: str
    message: str
    changed_at: float
    asks: int = 0
    failures: int = 0


class Database:
    """The database of a node; open it with `open_database`. Any thread may use it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what happens inside happen as a whole; transactions may be nested."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.commit()  # which may fail on a full disk
            except BaseException:
                self._connection.rollback()
                raise

    def execute(self, sql: str, *values: object) -> int:
        """Change rows; says how many."""
        with self.transaction():
            return self._connection.execute(sql, values).rowcount

    def rows(self, sql: str, *values: object) -> list[tuple]:
        """Ask for rows."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def identity(self) -> str:
        """Name the node by a number that it drew when it was started first."""
        with self.transaction():
            if not self.rows("SELECT id FROM node"):
                self.execute("INSERT INTO node VALUES (?)", secrets.token_hex(8))
            return self.rows("SELECT id FROM node")[0][0]

    # --- studies --------------------------------------------------------------------------

    def studies(self, where: str = "1", *values: object) -> list[Study]:
        """Find studies, the oldest first."""
        columns = ", ".join(Study.__dataclass_fields__)
        rows = self.rows(
            f"SELECT {columns} FROM studies WHERE {where} ORDER BY first_at, key", *values
        )
        return [Study(*row) for row in rows]

    def study(self, key: str) -> Study | None:
        """Find one study by its key."""
        return next(iter(self.studies("key = ?", key)), None)

    def update(self, key: str, now: float, **values: object) -> None:
        """Change a study."""
        names = ", ".join(f"{name} = ?" for name in values)
        self.execute(
            f"UPDATE studies SET {names}, changed_at = ? WHERE key = ?", *values.values(), now, key
        )

    def counts(self) -> dict[str, int]:
        """State -> number of studies."""
        found = dict(self.rows("SELECT state, count(*) FROM studies GROUP BY state"))
        return {state: found.get(state, 0) for state in STATES}

    # --- objects --------------------------------------------------------------------------

    def objects(self, key: str) -> list[StoredObject]:
        """All objects of a study that are known, by UID."""
        rows = self.rows(
            "SELECT study_key, sop_uid, file, n_bytes, calling, called, facts, present, done_file, "
            "received_at FROM objects WHERE study_key = ? ORDER BY sop_uid",
            key,
        )
        return [_stored_object(*row) for row in rows]

    def throw_away(self, key: str, files: Iterable[str]) -> None:
        """Say that nobody needs some files of a study any more."""
        with self.transaction():
            for file in files:
                self.execute("INSERT OR IGNORE INTO garbage VALUES (?, ?)", file, key)

    def is_garbage(self, file: str) -> bool:
        """Whether a file is to be removed."""
        return bool(self.rows("SELECT 1 FROM garbage WHERE file = ?", file))

    # --- deliveries -----------------------------------------------------------------------

    def deliveries(self, where: str, *values: object) -> list[Delivery]:
        """Find deliveries, those of early revisions first."""
        columns = ", ".join(Delivery.__dataclass_fields__)
        rows = self.rows(
            f"SELECT {columns} FROM deliveries WHERE {where} "
            "ORDER BY changed_at, study_key, revision, sop_uid",
            *values,
        )
        return [Delivery(*row) for row in rows]


def _stored_object(
    study_key: str,
    sop_uid: str,
    file: str,
    n_bytes: int,
    calling: str,
    called: str,
    facts: str,
    present: int,
    done_file: str,
    received_at: float,
) -> StoredObject:
    return StoredObject(
        study_key=study_key,
        sop_uid=sop_uid,
        file=file,
        n_bytes=n_bytes,
        calling=calling,
        called=called,
        facts=ObjectFacts.from_json(facts),
        present=bool(present),
        done_file=done_file,
        received_at=received_at,
    )


@contextmanager
def open_database(folder: Path) -> Iterator[Database]:
    """Open the database of a node's folder; it is made if it is absent.

    Raises
    ------
    NodeError
        If it cannot be used.
    """
    path = folder / DATABASE_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise NodeError(
                    f"{path} is of version {version}, this program writes {_VERSION}; choose "
                    "another folder."
                )
            connection.executescript(_SCHEMA + HISTORY_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            yield Database(connection)
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise NodeError(
            f"The database {path} cannot be used ({error}); be the node's user, free space, or "
            "restore it from a copy."
        ) from error


@contextmanager
def open_existing(folder: Path) -> Iterator[Database]:
    """Open the database of a node that was started before.

    Raises
    ------
    NodeError
        If there is none, or it cannot be used.
    """
    try:
        is_there = (folder / DATABASE_FILE).is_file()
    except OSError as error:
        raise NodeError(
            f"{folder} cannot be read ({error.strerror or error}); be the node's user."
        ) from error
    if not is_there:
        raise NodeError(f"{folder} holds no node; start it once with `oncofm pacs serve`.")
    with open_database(folder) as database:
        yield database
