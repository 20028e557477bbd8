"""What the node knows of the servers that it fetches from; safe at any moment, as the database is.

A study is fetched when its counts were the same twice in a row, so that one that a scanner is still
sending to the server is left alone, and again when they have changed since.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from oncofm.dicomweb.search import StudyFound
from oncofm.pacs.database import Database

SEEN, PENDING, FETCHED, FAILED = "seen", "pending", "fetched", "failed"
"""States of a study on a server."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS sources ("
    "name TEXT PRIMARY KEY, polled_at REAL NOT NULL DEFAULT 0, due_at REAL NOT NULL DEFAULT 0, "
    "failures INTEGER NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '')",
    "CREATE TABLE IF NOT EXISTS fetches ("
    "source TEXT NOT NULL, study_uid TEXT NOT NULL, state TEXT NOT NULL, "
    "counts TEXT NOT NULL DEFAULT '', counts_fetched TEXT NOT NULL DEFAULT '', "
    "ordered INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, "
    "due_at REAL NOT NULL DEFAULT 0, objects INTEGER NOT NULL DEFAULT 0, "
    "message TEXT NOT NULL DEFAULT '', changed_at REAL NOT NULL, "
    "PRIMARY KEY (source, study_uid))",
    "CREATE INDEX IF NOT EXISTS fetches_by_state ON fetches (source, state, due_at)",
)
_LONGEST_WAIT_S = 3600.0
_STUDY_BACKOFF_S = 30.0
_STUDY_ATTEMPTS = 10


@dataclass(frozen=True)
class SourceState:
    """A row of ``sources``.

    Attributes
    ----------
    name : str
        As in the configuration.
    polled_at : float
        When it answered last, in seconds since 1970; 0 if it never did.
    due_at : float
        When it is asked next.
    failures : int
        How often it has failed since.
    message : str
        A sentence about the last failure.
    """

    name: str
    polled_at: float = 0.0
    due_at: float = 0.0
    failures: int = 0
    message: str = ""


@dataclass(frozen=True)
class Fetch:
    """A row of ``fetches``: a study on a server.

    Attributes
    ----------
    source, study_uid : str
        Which.
    state : str
        ``seen``, ``pending``, ``fetched`` or ``failed``.
    counts, counts_fetched : str
        Numbers of its series and instances, now and when it was fetched last.
    ordered : int
        1 if somebody asked for it, and all of it is fetched, whatever is there already.
    attempts : int
        So often it was tried.
    due_at : float
        When it is tried next.
    objects : int
        How many came with the last fetch.
    message : str
        A sentence about the last failure.
    changed_at : float
        Seconds since 1970.
    """

    source: str
    study_uid: str
    state: str
    counts: str
    counts_fetched: str
    ordered: int
    attempts: int
    due_at: float
    objects: int
    message: str
    changed_at: float


class Sources:
    """The sources of a node, in its database; tables are made if they are absent."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.transaction():
            for sql in _SCHEMA:
                database.execute(sql)

    # --- servers --------------------------------------------------------------------------

    def state(self, name: str) -> SourceState:
        """How a server stands."""
        columns = ", ".join(SourceState.__dataclass_fields__)
        rows = self._database.rows(f"SELECT {columns} FROM sources WHERE name = ?", name)
        return SourceState(*rows[0]) if rows else SourceState(name)

    def note_answer(self, name: str, now: float, every_s: float) -> None:
        """Note that a server has answered."""
        self._put(SourceState(name, polled_at=now, due_at=now + every_s))

    def note_failure(self, name: str, now: float, every_s: float, message: str) -> None:
        """Note that a server has failed; it is asked again after longer and longer pauses."""
        state = self.state(name)
        # The exponent is bounded as the number must be.
        wait_s = min(every_s * 2 ** min(state.failures, 30), max(every_s, _LONGEST_WAIT_S))
        self._put(SourceState(name, state.polled_at, now + wait_s, state.failures + 1, message))

    def _put(self, state: SourceState) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO sources (name, polled_at, due_at, failures, message) "
            "VALUES (?, ?, ?, ?, ?)",
            *(state.name, state.polled_at, state.due_at, state.failures, state.message),
        )

    # --- studies --------------------------------------------------------------------------

    def fetches(self, where: str, *values: object) -> list[Fetch]:
        """Find studies; those that somebody asked for first."""
        columns = ", ".join(Fetch.__dataclass_fields__)
        rows = self._database.rows(
            f"SELECT {columns} FROM fetches WHERE {where} "
            "ORDER BY ordered DESC, attempts, changed_at, study_uid",
            *values,
        )
        return [Fetch(*row) for row in rows]

    def count(self, name: str) -> dict[str, int]:
        """State -> number of studies on a server."""
        rows = self._database.rows(
            "SELECT state, count(*) FROM fetches WHERE source = ? GROUP BY state", name
        )
        return dict.fromkeys((SEEN, PENDING, FETCHED, FAILED), 0) | dict(rows)

    def see(self, name: str, studies: Iterable[StudyFound], now: float) -> None:
        """Note what a server has, and what of it is to be fetched."""
        database = self._database
        with database.transaction():
            known = {one.study_uid: one for one in self.fetches("source = ?", name)}
            for study in studies:
                counts = f"{study.n_series} {study.n_instances}"
                before = known.get(study.uid)
                if before is None or (before.counts != counts and not before.ordered):
                    database.execute(
                        "INSERT INTO fetches (source, study_uid, state, counts, changed_at) "
                        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, "
                        "counts = excluded.counts, changed_at = excluded.changed_at",
                        *(name, study.uid, SEEN, counts, now),
                    )
                elif before.state == SEEN:
                    state = FETCHED if counts == before.counts_fetched else PENDING
                    database.execute(
                        "UPDATE fetches SET state = ?, attempts = 0, due_at = 0, changed_at = ? "
                        "WHERE source = ? AND study_uid = ?",
                        *(state, now, name, study.uid),
                    )

    def order(self, name: str, study_uid: str, now: float) -> None:
        """Have a study fetched, all of it."""
        self._database.execute(
            "INSERT INTO fetches (source, study_uid, state, ordered, changed_at) "
            "VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET state = excluded.state, ordered = 1, "
            "attempts = 0, due_at = 0, objects = 0, message = '', changed_at = excluded.changed_at",
            *(name, study_uid, PENDING, now),
        )

    def next_fetch(self, name: str, now: float) -> Fetch | None:
        """Find the study that is to be fetched next."""
        due = self.fetches("source = ? AND state = ? AND due_at <= ?", name, PENDING, now)
        return next(iter(due), None)

    def note_fetched(self, fetch: Fetch, n_objects: int, now: float) -> None:
        """Note that a study is here, unless it was ordered anew meanwhile."""
        self._database.execute(
            "UPDATE fetches SET state = ?, counts_fetched = ?, ordered = 0, objects = ?, "
            "message = '', changed_at = ? WHERE source = ? AND study_uid = ? AND changed_at = ?",
            *(FETCHED, fetch.counts, n_objects, now),
            *(fetch.source, fetch.study_uid, fetch.changed_at),
        )

    def note_failed(self, fetch: Fetch, message: str, now: float, *, is_to_blame: bool) -> str:
        """Note that a study could not be fetched, as `note_fetched` does; gives its state now.

        Parameters
        ----------
        fetch : Fetch
            The study.
        message : str
            Why.
        now : float
            The time.
        is_to_blame : bool
            Whether it counts as an attempt; else something is wrong with this machine.
        """
        attempts = fetch.attempts + int(is_to_blame)
        wait_s = min(_STUDY_BACKOFF_S * 2 ** min(attempts, 30), _LONGEST_WAIT_S)
        state = FAILED if attempts >= _STUDY_ATTEMPTS else PENDING
        self._database.execute(
            "UPDATE fetches SET state = ?, attempts = ?, due_at = ?, message = ?, changed_at = ? "
            "WHERE source = ? AND study_uid = ? AND changed_at = ?",
            *(state, attempts, now + wait_s, message, now),
            *(fetch.source, fetch.study_uid, fetch.changed_at),
        )
        return state

    def forget(self, name: str, before: float) -> None:
        """Delete what was fetched long ago."""
        self._database.execute(
            "DELETE FROM fetches WHERE source = ? AND state = ? AND changed_at < ?",
            *(name, FETCHED, before),
        )

    def reset_times(self, now: float) -> None:
        """Put right what a clock left that was set back."""
        with self._database.transaction():
            for table in ("sources", "fetches"):
                self._database.execute(f"UPDATE {table} SET due_at = min(due_at, ?)", now)
