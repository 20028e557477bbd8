"""What operators and time do to studies: look, try again, give up, clean up."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from oncofm.pacs.config_node import RetentionSection
from oncofm.pacs.database import (
    DONE,
    DROPPED,
    PENDING,
    QUARANTINED,
    QUEUED,
    RECEIVED,
    REFUSED,
    RUNNING,
    SENDING,
    STORED,
    WAITING,
    Database,
    Study,
)
from oncofm.pacs.errors import NodeError
from oncofm.pacs.objects import digest
from oncofm.pacs.papers import JOBS_FOLDER
from oncofm.pacs.spool import Spool
from oncofm.pacs.worker import REPORTS_FOLDER

_HOUR_S, _DAY_S = 3600.0, 86_400.0
_LOOK_S = 60.0
"""How often reports and records are looked at, which are kept for days."""


def find_study(database: Database, study_uid: str) -> Study:
    """Find a study by its UID.

    Raises
    ------
    NodeError
        If the node knows no such study.
    """
    study = database.study(digest(study_uid))
    if study is None:
        raise NodeError("The node knows no study of that UID; `oncofm pacs list` shows all.")
    return study


def requeue(database: Database, study_uid: str, now: float) -> str:
    """Try again, now: in quarantine the sending if there are reports, else the job.

    The job of a study that waits starts with what is there. One that fits no rule may fit one now,
    if its objects are still there. Where a next try is due later, be it of a job or of a delivery,
    it is due now.

    Returns
    -------
    str
        The new state.

    Raises
    ------
    NodeError
        If there is no such study, or there is nothing to try again.
    """
    with database.transaction():
        study = find_study(database, study_uid)
        if study.state == QUEUED:
            database.execute("UPDATE studies SET due_at = 0 WHERE key = ?", study.key)
            return QUEUED
        if study.state == SENDING:
            _send_anew(database, study.key, PENDING)
            return SENDING
        if study.state not in (QUARANTINED, WAITING) and study.reason != "no_rule":
            raise NodeError(
                f"Study {study.study_uid} is {study.state}; only what is waiting, queued, sending "
                "or quarantined, or fits no rule, can be tried again."
            )
        if study.state == QUARANTINED and _send_anew(database, study.key, REFUSED):
            database.update(study.key, now, state=SENDING, reason="", message="")
            return SENDING
        if study.state == DONE and not any(one.present for one in database.objects(study.key)):
            raise NodeError(f"The objects of study {study.study_uid} were deleted; send it again.")
        times = {"last_at": 0.0, "due_at": 0.0}
        if study.state == WAITING:
            times["first_at"] = 0.0  # it has waited long enough
        database.update(
            study.key, now, state=RECEIVED, reason="", message="", attempts=0, fresh=1, **times
        )
        return RECEIVED


def _send_anew(database: Database, key: str, state: str) -> int:
    """Let deliveries of a state begin anew; says how many."""
    return database.execute(
        "UPDATE deliveries SET state = ?, attempts = 0, asks = 0, failures = 0, due_at = 0 "
        "WHERE study_key = ? AND state = ?",
        *(PENDING, key, state),
    )


def drop(database: Database, study_uid: str, now: float) -> None:
    """Give a study up: what was received and not sent is deleted.

    Raises
    ------
    NodeError
        If there is no such study, or its job runs.
    """
    with database.transaction():
        study = find_study(database, study_uid)
        if study.state == RUNNING:
            raise NodeError(f"Study {study.study_uid} is running; wait until its job has ended.")
        database.throw_away(
            study.key, [item.file for item in database.objects(study.key) if item.present]
        )
        database.execute(
            "UPDATE objects SET present = 0, done_file = '' WHERE study_key = ?", study.key
        )
        database.execute(
            "UPDATE deliveries SET state = ?, changed_at = ? WHERE study_key = ? AND state IN "
            "(?, ?, ?)",
            *(DROPPED, now, study.key, PENDING, REFUSED, STORED),
        )
        database.execute(
            "DELETE FROM commitments WHERE sop_uid IN (SELECT sop_uid FROM deliveries "
            "WHERE study_key = ?)",
            study.key,
        )
        database.update(
            study.key,
            now,
            state=DONE,
            reason="dropped",
            message="An operator gave the study up.",
            fresh=0,
            enqueued=0,
            done_with="",  # what comes later is computed and sent anew
        )


def find_studies(database: Database, study_uids: Sequence[str], state: str) -> list[Study]:
    """Find studies by their UIDs and, unless it is empty, those of a state; each once.

    Raises
    ------
    NodeError
        If the node knows no study of a UID.
    """
    found = [find_study(database, uid) for uid in study_uids]
    found += database.studies("state = ?", state)
    return list({study.key: study for study in found}.values())


class Housekeeping:
    """Deletes what is kept no longer.

    Parameters
    ----------
    database : Database
        The node's.
    spool : Spool
        Received files.
    folder : pathlib.Path
        The node's.
    retention : RetentionSection
        How long things are kept.
    clock : callable
        The time.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool,
        folder: Path,
        retention: RetentionSection,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._spool = spool
        self._folder = folder
        self._retention = retention
        self._clock = clock
        self._looked_at = -_LOOK_S

    def tidy(self) -> None:
        """Delete what is kept no longer."""
        now = self._clock()
        self._let_go(now - self._retention.images_hours * _HOUR_S)
        self._remove_garbage()
        if abs(now - self._looked_at) >= _LOOK_S:  # there may be many thousands
            self._looked_at = now
            self._remove_reports(now - self._retention.reports_days * _DAY_S)
            self._forget(now - self._retention.records_days * _DAY_S)

    def _let_go(self, before: float) -> None:
        database = self._database
        with database.transaction():
            for study in database.studies(
                # The plus sign keeps SQLite from going through all that are done.
                "+state = ? AND fresh = 0 AND changed_at <= ? AND key IN "
                "(SELECT study_key FROM objects WHERE present = 1)",
                *(DONE, before),
            ):
                files = [item.file for item in database.objects(study.key) if item.present]
                database.throw_away(study.key, files)
                database.execute("UPDATE objects SET present = 0 WHERE study_key = ?", study.key)

    def _remove_garbage(self) -> None:
        database = self._database
        files = database.rows(
            "SELECT file FROM garbage WHERE study_key NOT IN "
            "(SELECT key FROM studies WHERE state = ?)",
            RUNNING,
        )
        for name in self._spool.remove((file for (file,) in files), database.is_garbage):
            database.execute("DELETE FROM garbage WHERE file = ?", name)

    def _remove_reports(self, before: float) -> None:
        kept = (REPORTS_FOLDER, JOBS_FOLDER)
        for folder in (path for name in kept for path in self._folder.glob(f"{name}/*")):
            study = self._database.study(folder.name)
            if study is None or (study.state == DONE and study.changed_at <= before):
                shutil.rmtree(folder, ignore_errors=True)

    def _forget(self, before: float) -> None:
        with self._database.transaction():
            for study in self._database.studies(
                "state = ? AND fresh = 0 AND changed_at <= ?", DONE, before
            ):
                for table in ("objects", "deliveries", "history"):
                    self._database.execute(f"DELETE FROM {table} WHERE study_key = ?", study.key)
                self._database.execute("DELETE FROM studies WHERE key = ?", study.key)
