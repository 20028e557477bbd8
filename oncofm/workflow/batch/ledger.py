"""What is done: a small database beside the results that survives whatever ends the process.

An item is done when its rows are in files that are on disk, and the ledger says so. Both happen in
this order, so a file that the ledger does not know is left over from a process that was killed.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from oncofm.errors import BatchError
from oncofm.workflow.batch.items import Item

LEDGER_FILE, LOCK_FILE = "ledger.sqlite", "ledger.lock"
REPORT_FAILED = "report_failed"
"""Reason of an item whose features are there, and not all of what was to leave as DICOM."""
_VERSION = "1"
_SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    item_id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    identity TEXT NOT NULL,
    configuration TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    n_lesions INTEGER NOT NULL,
    n_done INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    part INTEGER NOT NULL,
    finished_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS parts (part INTEGER PRIMARY KEY, files TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reports (case_id TEXT PRIMARY KEY, item_id TEXT NOT NULL);
INSERT OR IGNORE INTO facts VALUES ('version', '{_VERSION}');
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says about an item.

    Attributes
    ----------
    item_id, position, identity
        As in `oncofm.workflow.batch.items.Item`; the position is -1 if the plan has no such item
        any more.
    configuration : str
        Hash of the configuration that it was computed with.
    state, reason, message : str
        The worst state of its cases: ``done``, ``partial``, ``rejected`` or ``failed``.
    n_lesions, n_done : int
        Lesions of all its cases.
    attempt : int
        How often it was tried, from 1.
    part : int
        Number of the part that holds its rows.
    finished_at : str
        ISO 8601, UTC.
    """

    item_id: str
    position: int
    identity: str
    configuration: str
    state: str
    reason: str
    message: str
    n_lesions: int
    n_done: int
    attempt: int
    part: int
    finished_at: str


_COLUMNS = tuple(Entry.__dataclass_fields__)


class Ledger:
    """The ledger of one output folder; open it with `open_ledger`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def entries(self) -> dict[str, Entry]:
        """Item id -> what is known."""
        columns = ", ".join(_COLUMNS)
        rows = self._database.execute(f"SELECT {columns} FROM items ORDER BY position, item_id")
        return {row[0]: Entry(*row) for row in rows}

    def place(self, plan: Iterable[Item]) -> None:
        """Put what is known into the order of a plan."""
        with self._database:
            self._database.execute("UPDATE items SET position = -1")
            self._database.executemany(
                "UPDATE items SET position = ? WHERE item_id = ?",
                ((item.position, item.item_id) for item in plan),
            )

    def parts(self) -> dict[int, dict[str, str]]:
        """Part -> its files -> their SHA-256."""
        rows = self._database.execute("SELECT part, files FROM parts ORDER BY part")
        return {part: json.loads(files) for part, files in rows}

    def results(self) -> dict[str, Entry]:
        """Item id -> what is known, of the items of the newest plan and in its configuration."""
        digest = self.fact("digest")
        return {
            item_id: entry
            for item_id, entry in self.entries().items()
            if entry.position >= 0 and entry.configuration == digest
        }

    def fact(self, name: str) -> str | None:
        """Look up what was noted about the batch as a whole."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def reporting_item(self, case_id: str) -> str | None:
        """Look up which item of the newest plan has the reports that are called by a case."""
        row = self._database.execute(
            "SELECT item_id FROM reports JOIN items USING (item_id) "
            "WHERE case_id = ? AND position >= 0",
            (case_id,),
        ).fetchone()
        return row[0] if row else None

    def note_reports(self, items: Mapping[str, str]) -> None:
        """Note which items have the reports that are called by some cases."""
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO reports VALUES (?, ?)", list(items.items())
            )

    def note(self, **facts: str) -> None:
        """Note facts about the batch as a whole."""
        with self._database:
            self._put_facts(facts)

    def _put_facts(self, facts: Mapping[str, str]) -> None:
        self._database.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items())
        )

    def commit(
        self, part: int, files: Mapping[str, str], entries: Iterable[Entry], **facts: str
    ) -> None:
        """Say that a part is on disk and that the items in it are done with.

        Parameters
        ----------
        part : int
            Its number.
        files : mapping of str to str
            Its files and their SHA-256.
        entries : iterable of Entry
            Replace what was known of these items.
        **facts : str
            As for `note`.
        """
        values = [tuple(getattr(entry, name) for name in _COLUMNS) for entry in entries]
        places = ", ".join("?" * len(_COLUMNS))
        with self._database:
            text = json.dumps(files, sort_keys=True)
            self._database.execute("INSERT INTO parts VALUES (?, ?)", (part, text))
            self._database.executemany(
                f"INSERT OR REPLACE INTO items ({', '.join(_COLUMNS)}) VALUES ({places})", values
            )
            self._put_facts(facts)


@contextmanager
def open_ledger(folder: Path) -> Iterator[Ledger]:
    """Open the ledger of an output folder for writing; it is made if it is absent.

    Parameters
    ----------
    folder : pathlib.Path
        On a local disk: the locks of network file systems cannot be relied on.

    Raises
    ------
    BatchError
        If another process writes to this folder, or the ledger cannot be used.
    """
    with _locked(folder), _connect(folder / LEDGER_FILE, "rwc") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_SCHEMA)
        ledger = Ledger(database)
        _check_version(ledger, folder)
        try:
            yield ledger
        finally:
            _make_plain(database)


def _make_plain(database: sqlite3.Connection) -> None:
    """Leave one file that can be read on a read-only disk, too, unless somebody reads it now."""
    with suppress(sqlite3.Error):
        database.execute("PRAGMA busy_timeout = 0")
        database.execute("PRAGMA journal_mode = DELETE")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / LOCK_FILE
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(path.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BatchError(
                f"Another process writes to {folder}; wait for it, or choose another folder."
            ) from error
        except OSError as error:
            raise BatchError(
                f"{path} cannot be locked ({error.strerror}); choose a folder on a local disk."
            ) from error
        yield


@contextmanager
def read_ledger(folder: Path) -> Iterator[Ledger]:
    """Open the ledger of an output folder for reading, also while a batch runs.

    Raises
    ------
    BatchError
        If there is none, or it cannot be used.
    """
    path = folder / LEDGER_FILE
    no_batch = BatchError(f"{folder} holds no batch; name the output folder of `oncofm batch`.")
    if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file it raises nothing
        raise no_batch
    with _connect(path, "ro") as database:
        if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise no_batch  # its process ended before it began
        ledger = Ledger(database)
        _check_version(ledger, folder)
        yield ledger


@contextmanager
def _connect(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=30)
        try:
            yield database
        finally:
            database.close()
    except sqlite3.Error as error:
        raise BatchError(
            f"The ledger {path} cannot be used ({error}); free space, mend its "
            "permissions, or restore it from a copy."
        ) from error


def _check_version(ledger: Ledger, folder: Path) -> None:
    version = ledger.fact("version")
    if version != _VERSION:
        raise BatchError(
            f"The ledger in {folder} is of version {version}, this program writes {_VERSION}; "
            "choose another output folder."
        )
