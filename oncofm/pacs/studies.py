"""From objects to jobs to reports: the states of studies, and what moves them on.

Everything that is decided here is decided in a transaction, and again after a crash.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import oncofm
from oncofm.pacs.audit import Audit
from oncofm.pacs.config import PacsConfig, Rule
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
    SHADOW,
    STORED,
    WAITING,
    Database,
    StoredObject,
    Study,
)
from oncofm.pacs.objects import digest
from oncofm.pacs.receive import Received
from oncofm.pacs.rules import (
    awaits_images,
    choose_rule,
    is_input,
    missing,
    study_facts,
    was_deleted,
)
from oncofm.pacs.work_queue import WorkQueue
from oncofm.pacs.workers import is_gone

_CHANGES_RESULTS = {"weights", "expected_sha256", "random_seed", "precision"}
_DELIVER = (
    "INSERT INTO deliveries (destination, sop_uid, sop_class, study_key, revision, file, state, "
    "changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "state = excluded.state, revision = excluded.revision, file = excluded.file, attempts = 0, "
    "due_at = 0, changed_at = excluded.changed_at WHERE state IN (?, ?)"
)
"""What was sent stays sent; what was given up before is tried anew."""

Clock = Callable[[], float]
"""Seconds since 1970."""


@dataclass(frozen=True)
class Work:
    """A job that was taken on.

    Attributes
    ----------
    key, study_uid : str
        The study.
    rule : Rule
        What it falls under.
    revision : int
        Number that the job has if it ends with reports, from 1.
    files : mapping of str to str
        SOP Instance UID -> file in the spool.
    """

    key: str
    study_uid: str
    rule: Rule
    revision: int
    files: dict[str, str]


@dataclass(frozen=True)
class ReportFile:
    """A report, or another result, that is to be sent.

    Attributes
    ----------
    path : pathlib.Path
        Where it is.
    sop_class, sop_uid : str
        What it is.
    """

    path: Path
    sop_class: str
    sop_uid: str


class Studies:
    """All studies of a node.

    Parameters
    ----------
    database : Database
        What is known.
    queue : WorkQueue
        Takes the keys of studies whose jobs may start.
    config : PacsConfig
        Rules, limits.
    clock : callable
        The time; the only one that is used.
    audit : callable
        Told of every change of state.
    worker : str
        Who runs the jobs that are taken here.
    """

    def __init__(
        self,
        database: Database,
        queue: WorkQueue,
        config: PacsConfig,
        clock: Clock,
        audit: Audit,
        worker: str,
    ) -> None:
        self._database = database
        self._queue = queue
        self._config = config
        self._clock = clock
        self._audit = audit
        self._worker = worker
        self._shortest_quiet_s = min(rule.quiet_s for rule in config.rules)
        self._longest_quiet_s = max(rule.quiet_s for rule in config.rules)
        self._longest_force_s = max(rule.force_s for rule in config.rules)

    # --- what comes in --------------------------------------------------------------------

    def record(self, received: Sequence[Received]) -> None:
        """Note objects that are on disk."""
        with self._database.transaction():
            for one in received:
                self._record(one, self._clock())

    def _record(self, one: Received, now: float) -> None:
        database, facts = self._database, one.facts
        key = digest(facts.study_uid)
        known = database.rows(
            "SELECT file, present FROM objects WHERE study_key = ? AND sop_uid = ?",
            key,
            facts.sop_uid,
        )
        database.execute("DELETE FROM garbage WHERE file = ?", one.file)
        if known and known[0] == (one.file, 1):
            return
        if known and known[0][0] != one.file and known[0][1]:
            database.throw_away(key, [known[0][0]])
        database.execute(
            "INSERT INTO objects (study_key, sop_uid, file, n_bytes, calling, called, facts, "
            "present, received_at) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET "
            "file = excluded.file, n_bytes = excluded.n_bytes, calling = excluded.calling, "
            "called = excluded.called, facts = excluded.facts, present = 1, "
            "received_at = excluded.received_at",
            *(key, facts.sop_uid, one.file, one.n_bytes, one.calling, one.called),
            *(facts.to_json(), now),
        )
        study = database.study(key)
        if study is None:
            database.execute(
                "INSERT INTO studies (key, study_uid, state, first_at, last_at, changed_at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                *(key, facts.study_uid, RECEIVED, now, now, now),
            )
            self._audit("study", study=facts.study_uid, state=RECEIVED, calling=one.calling)
            return
        is_over = study.state in (DONE, QUARANTINED, SENDING) and not study.fresh
        database.execute(
            "UPDATE studies SET fresh = 1, last_at = ?, first_at = ? WHERE key = ?",
            *(now, now if is_over else study.first_at, key),
        )

    # --- what time brings -----------------------------------------------------------------

    def recover(self) -> None:
        """Put right what a process left that was killed, or a clock that was set back."""
        now = self._clock()
        self._reclaim()
        with self._database.transaction():
            self._database.execute("UPDATE studies SET enqueued = 0 WHERE state = ?", QUEUED)
            for name in ("first_at", "last_at", "due_at", "changed_at"):
                self._database.execute(f"UPDATE studies SET {name} = min({name}, ?)", now)
            self._database.execute("UPDATE deliveries SET due_at = min(due_at, ?)", now)
        self._queue.clear()

    def tick(self) -> None:
        """Move on what the time has come for."""
        now, database = self._clock(), self._database
        states = (WAITING, DONE, QUARANTINED, SENDING)
        for study in database.studies("fresh = 1 AND state IN (?, ?, ?, ?)", *states):
            self._move(study, RECEIVED, due_at=0)
        latest = now - self._shortest_quiet_s
        where = "state = ? AND last_at <= ? AND due_at <= ?"
        for study in database.studies(where, RECEIVED, latest, now):
            self._consider(study.key)
        for study in database.studies("state = ?", WAITING):
            rule = self._config.rule(study.rule)
            if rule is not None:
                force_s = rule.force_s
            else:  # no rule fits yet, or its rule is gone
                force_s = 0.0 if study.rule else self._longest_force_s
            if now >= study.first_at + force_s:
                self._consider(study.key)
        self._reclaim()
        self._enqueue(now)

    def _reclaim(self) -> None:
        """Put back the jobs of workers whose process has ended."""
        for study in self._database.studies("state = ?", RUNNING):
            if study.worker != self._worker and is_gone(self._config.node.folder, study.worker):
                self._put_back(study.key, study.worker)

    def _put_back(self, key: str, worker: str) -> None:
        """Let a job begin anew that was cut off: it is not to blame for that."""
        with self._database.transaction():
            study = self._database.study(key)
            if study is None or (study.state, study.worker) != (RUNNING, worker):
                return
            self._move(
                study,
                QUEUED,
                study.reason,
                study.message,
                attempts=max(study.attempts - 1, 0),
                due_at=0,
                enqueued=0,
            )

    def _enqueue(self, now: float) -> None:
        database = self._database
        if len(self._queue) == 0:  # whoever took one out may be gone before it was noted
            database.execute(
                "UPDATE studies SET enqueued = 0 WHERE state = ? AND enqueued = 1", QUEUED
            )
        for study in database.studies("state = ? AND enqueued = 0 AND due_at <= ?", QUEUED, now):
            # In this order: a queue that takes the same key over and over would grow.
            database.execute("UPDATE studies SET enqueued = 1 WHERE key = ?", study.key)
            self._queue.put(study.key)

    def _consider(self, key: str) -> None:
        """Decide what is to be done with a study that nothing came of for a while."""
        now = self._clock()
        with self._database.transaction():
            study = self._database.study(key)
            if study is None or study.state not in (RECEIVED, WAITING):
                return
            objects = self._database.objects(key)
            present = [item for item in objects if item.present]
            rule = choose_rule(self._config.rules, study_facts(objects))
            if rule is None:
                self._consider_misfit(study, objects, now)
                return
            if now < study.last_at + rule.quiet_s:
                self._look_again(study, study.last_at + rule.quiet_s)
                return
            if study.done_with and not self._is_news(study, rule, present):
                self._move(study, SENDING, rule=rule.name, fresh=0)
                self.settle(key)
                return
            lacking, is_late = missing(rule, objects), now >= study.first_at + rule.force_s
            message = "; ".join(lacking)
            if lacking and not is_late:
                self._move(study, WAITING, "incomplete", message, fresh=0, rule=rule.name)
            elif is_late and any(was_deleted(rule, item) for item in objects):
                self._move(study, QUARANTINED, "objects_gone", message, fresh=0, rule=rule.name)
            else:
                self._move(
                    study,
                    QUEUED,
                    "forced" if lacking else "",
                    message,
                    fresh=0,
                    rule=rule.name,
                    forced=int(bool(lacking)),
                    attempts=0,
                    due_at=now,
                    enqueued=0,
                )

    def _consider_misfit(self, study: Study, objects: Sequence[StoredObject], now: float) -> None:
        """Be done with a study that no rule fits, unless its images may still come."""
        if now < study.last_at + self._longest_quiet_s:
            self._look_again(study, study.last_at + self._longest_quiet_s)
            return
        if (
            awaits_images(self._config.rules, objects)
            and now < study.first_at + self._longest_force_s
        ):
            message = "no rule fits, and no images have come yet"
            self._move(study, WAITING, "incomplete", message, fresh=0, rule="")
        else:
            self._move(study, DONE, "no_rule", "No rule fits the study.", fresh=0, rule="")

    def _look_again(self, study: Study, at: float) -> None:
        """Leave a study alone until then: to look at thousands of objects takes a while."""
        if study.due_at != at:
            self._database.execute("UPDATE studies SET due_at = ? WHERE key = ?", at, study.key)

    def _is_news(self, study: Study, rule: Rule, present: Sequence[StoredObject]) -> bool:
        """Whether a job that was done before could end another way now."""
        inputs = [item for item in present if is_input(rule, item)]
        if any(item.file != item.done_file for item in inputs):
            return True
        return bool(inputs) and study.done_with != self._fingerprint(rule)

    # --- jobs -----------------------------------------------------------------------------

    def take_job(self) -> Work | None:
        """Take the next job that can run; its study is running from now on.

        A worker does one at a time: what it had before it has not ended, and begins anew.
        """
        for study in self._database.studies("state = ? AND worker = ?", RUNNING, self._worker):
            self._put_back(study.key, self._worker)
        while (key := self._queue.take()) is not None:
            with self._database.transaction():
                study = self._database.study(key)
                if study is None or study.state != QUEUED:
                    continue  # it was in the queue twice, or was dropped
                rule = self._config.rule(study.rule)
                if study.fresh or rule is None:
                    self._move(study, RECEIVED, fresh=1, enqueued=0, due_at=0)
                    continue
                self._move(
                    study,
                    RUNNING,
                    study.reason,
                    study.message,
                    attempts=study.attempts + 1,
                    worker=self._worker,
                )
                files = {
                    item.sop_uid: item.file for item in self._database.objects(key) if item.present
                }
            return Work(key, study.study_uid, rule, study.revision + 1, files)
        return None

    def put_back(self, work: Work) -> None:
        """Give a job back that was stopped with its worker."""
        self._put_back(work.key, self._worker)

    def finish_job(self, work: Work, reports: Sequence[ReportFile]) -> None:
        """Note that a job ended with reports, and where they must go."""
        now, database = self._clock(), self._database
        with database.transaction():
            study = self._running(work)
            if study is None:
                return
            taken = [one.sop_uid for one in reports if self._is_of_another(one, work.key)]
            if taken:
                message = (
                    f"Report {taken[0]} was made for another study, which has the same images."
                )
                self._move(study, QUARANTINED, "uid_taken", message)
                return
            for sop_uid, file in work.files.items():
                database.execute(
                    "UPDATE objects SET done_file = ? WHERE study_key = ? AND sop_uid = ?",
                    *(file, work.key, sop_uid),
                )
            state = SHADOW if work.rule.shadow else PENDING
            for report in reports:
                for destination in work.rule.destinations:
                    database.execute(
                        _DELIVER,
                        *(destination, report.sop_uid, report.sop_class, work.key),
                        *(work.revision, str(report.path), state, now, DROPPED, REFUSED),
                    )
            self._move(
                study,
                SENDING,
                study.reason,
                study.message,
                revision=work.revision,
                done_with=self._fingerprint(work.rule),
            )
            self.settle(work.key)

    def fail_job(self, work: Work, reason: str, message: str, *, is_final: bool) -> None:
        """Note that a job ended without a report; it is tried again unless that is final."""
        now, jobs = self._clock(), self._config.jobs
        with self._database.transaction():
            study = self._running(work)
            if study is None:
                return
            if is_final or study.attempts >= jobs.attempts:
                self._move(study, QUARANTINED, reason, message)
                return
            wait_s = min(jobs.backoff_s * 2 ** (study.attempts - 1), jobs.max_backoff_s)
            self._move(study, QUEUED, reason, message, due_at=now + wait_s, enqueued=0)

    def settle(self, key: str) -> None:
        """Say how a study stands after a delivery."""
        with self._database.transaction():
            study = self._database.study(key)
            if study is None or study.state != SENDING:
                return
            deliveries = self._database.deliveries("study_key = ?", key)
            refused = [one for one in deliveries if one.state == REFUSED]
            if any(one.state in (PENDING, STORED) for one in deliveries):
                return
            if refused:
                first = refused[0]
                message = f"{first.destination} refused {first.sop_uid}: {first.message}"
                self._move(study, QUARANTINED, "refused", message)
            else:
                self._move(study, DONE, study.reason, study.message)

    def _is_of_another(self, report: ReportFile, key: str) -> bool:
        """Whether a report has the UID of one of another study, so that a peer has one of them."""
        return bool(
            self._database.rows(
                "SELECT 1 FROM deliveries WHERE sop_uid = ? AND study_key != ?", report.sop_uid, key
            )
        )

    def _running(self, work: Work) -> Study | None:
        """Find the study of a job, unless somebody else has it by now."""
        study = self._database.study(work.key)
        is_ours = study is not None and (study.state, study.worker) == (RUNNING, self._worker)
        return study if is_ours else None

    # --- helpers --------------------------------------------------------------------------

    def _move(
        self, study: Study, state: str, reason: str = "", message: str = "", **values: object
    ) -> None:
        self._database.update(
            study.key, self._clock(), state=state, reason=reason, message=message, **values
        )
        if (state, reason) != (study.state, study.reason):
            facts = {"reason": reason, "message": message} if reason else {}
            self._audit("study", study=study.study_uid, state=state, **facts)

    def _fingerprint(self, rule: Rule) -> str:
        """Digest of what a job of a rule runs with."""
        model = self._config.model.model_dump(mode="json", include=_CHANGES_RESULTS)
        content = [oncofm.__version__, rule.settings.model_dump(mode="json"), model]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
