"""Storage commitment (PS3.4 annex J): a report is delivered when its peer says that it keeps it.

What was asked is written down before it is asked, so that an answer finds its question whenever it
comes: on the association of the question, on one of the peer's own, or after a restart.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT

from oncofm.pacs.audit import Audit
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.config_peers import DicomDestination
from oncofm.pacs.database import PENDING, REFUSED, SENT, STORED, Database, Delivery
from oncofm.pacs.objects import loggable
from oncofm.pacs.send_commitment import Question, ask_peer
from oncofm.pacs.studies import Clock, Studies
from oncofm.pacs.verdict import Verdict

_AT_ONCE = 100
"""Instances for each association."""
_MAX_FAILURES = 3
"""So often a peer is sent what it says it does not have."""
_MAX_ANSWER_BYTES = 1 << 20
_SUCCESS, _CANNOT_READ, _NO_ROOM = 0x0000, 0x0110, 0x0213


@dataclass(frozen=True)
class Answer:
    """What a peer said to a question.

    Attributes
    ----------
    transaction_uid : str
        Of the question.
    kept : frozenset of str
        SOP Instance UIDs that it keeps.
    failed : dict of str to str
        SOP Instance UID -> failure reason, for example ``0112``.
    """

    transaction_uid: str
    kept: frozenset[str]
    failed: dict[str, str]


def read_answer(dataset: Dataset) -> Answer:
    """Read the event information of an N-EVENT-REPORT (PS3.4 table J.3-2); it may raise anything.

    An instance that is in both lists has failed.
    """
    failed = {
        str(item.ReferencedSOPInstanceUID): f"{int(item.get('FailureReason', 0x0110)):04X}"
        for item in dataset.get("FailedSOPSequence") or ()
    }
    kept = {str(item.ReferencedSOPInstanceUID) for item in dataset.get("ReferencedSOPSequence", ())}
    return Answer(str(dataset.TransactionUID), frozenset(kept - set(failed)), failed)


@dataclass
class Commitments:
    """Asks destinations to commit, and takes their answers.

    Attributes
    ----------
    database, studies, config, clock, audit
        The node's.
    """

    database: Database
    studies: Studies
    config: PacsConfig
    clock: Clock
    audit: Audit

    @property
    def destinations(self) -> list[str]:
        """Who is to commit."""
        return [
            name
            for name, one in self.config.destinations.items()
            if isinstance(one, DicomDestination) and one.commitment
        ]

    def recover(self) -> None:
        """Let go of what waits for a destination that need not commit any more."""
        asked = self.destinations
        for one in self.database.deliveries("state = ?", STORED):
            if one.destination not in asked:
                self._settle(one, SENT)

    # --- the question ---------------------------------------------------------------------

    def ask(self, name: str, is_stopping: Callable[[], bool]) -> bool:
        """Ask a destination about what it took, study by study; says whether there was anything."""
        due = self.database.deliveries(
            "destination = ? AND state = ? AND due_at <= ?", name, STORED, self.clock()
        )[:_AT_ONCE]
        if not due:
            return False
        destination = self.config.destinations[name]
        assert isinstance(destination, DicomDestination)
        due = sorted(due, key=lambda one: one.study_key)
        groups = groupby(due, key=lambda one: one.study_key)
        questions = [self._note(destination, list(group)) for _, group in groups]
        for question, verdict in ask_peer(
            destination, questions, self.take, lambda: is_stopping() or self._is_answered(questions)
        ):
            self._judge(question, verdict)
        return True

    def _note(self, destination: DicomDestination, deliveries: Sequence[Delivery]) -> Question:
        """Write a question down, and when it is asked again."""
        uid = str(generate_uid(prefix=None))  # random: nobody else can answer it
        with self.database.transaction():
            for one in deliveries:
                self.database.execute(
                    "INSERT INTO commitments VALUES (?, ?, ?)", uid, one.destination, one.sop_uid
                )
                wait_s = destination.commitment_timeout_s * 2 ** min(one.asks, 30)
                longest_s = self.config.sending.max_backoff_s
                due_at = self.clock() + min(
                    wait_s, max(longest_s, destination.commitment_timeout_s)
                )
                self.database.execute(
                    "UPDATE deliveries SET asks = asks + 1, due_at = ? "
                    "WHERE destination = ? AND sop_uid = ? AND state = ?",
                    *(due_at, one.destination, one.sop_uid, STORED),
                )
        return Question(uid, tuple(deliveries))

    def _is_answered(self, questions: Sequence[Question]) -> bool:
        return not any(
            self.database.rows(
                "SELECT 1 FROM commitments WHERE transaction_uid = ?", question.transaction_uid
            )
            for question in questions
        )

    def _judge(self, question: Question, verdict: Verdict) -> None:
        """Note that a question was not taken, if it was not."""
        sending = self.config.sending
        for one in question.deliveries:
            asks = one.asks + 1
            if verdict.state == REFUSED or asks >= sending.attempts:
                message = verdict.message or f"It never committed to instance {one.sop_uid}."
                self._settle(one, REFUSED, verdict.status, message)
            elif verdict.state == PENDING:
                wait_s = min(sending.backoff_s * 2 ** min(asks - 1, 30), sending.max_backoff_s)
                self._settle(one, STORED, verdict.status, verdict.message, wait_s)

    # --- the answer -----------------------------------------------------------------------

    def take(self, event: evt.Event) -> tuple[int, None]:
        """Take an N-EVENT-REPORT, on whatever association it comes."""
        calling = event.assoc.remote["ae_title"]
        try:
            information = cast(N_EVENT_REPORT, event.request).EventInformation
            n_bytes = cast(io.BytesIO, information).getbuffer().nbytes
            if n_bytes > _MAX_ANSWER_BYTES:
                raise ValueError("too long")
            answer = read_answer(event.event_information)
        except Exception as error:  # garbled bytes make pydicom raise anything
            self.audit("commitment_unreadable", calling=calling, error=type(error).__name__)
            return _CANNOT_READ, None
        try:
            self._apply(answer)
        except Exception as error:  # a full disk; it is asked again
            self.audit("commitment_lost", calling=calling, error=type(error).__name__)
            return _NO_ROOM, None
        return _SUCCESS, None

    def _apply(self, answer: Answer) -> None:
        with self.database.transaction():
            asked = list(self._asked(answer.transaction_uid))
            if not asked:
                uid = loggable(answer.transaction_uid)
                self.audit("commitment_unknown", transaction=uid)  # late, or somebody's guess
            for one in asked:
                if one.sop_uid in answer.kept:
                    self._settle(one, SENT)
                elif one.sop_uid in answer.failed:
                    self._fail(one, answer.failed[one.sop_uid])

    def _asked(self, transaction_uid: str) -> Iterator[Delivery]:
        for destination, sop_uid in self.database.rows(
            "SELECT destination, sop_uid FROM commitments WHERE transaction_uid = ?",
            transaction_uid,
        ):
            yield from self.database.deliveries(
                "destination = ? AND sop_uid = ? AND state = ?", destination, sop_uid, STORED
            )

    def _fail(self, one: Delivery, reason: str) -> None:
        """Send an instance again that was lost, and give it up after a few times."""
        sending, failures = self.config.sending, one.failures + 1
        message = f"The peer does not commit to instance {one.sop_uid} (failure reason {reason})."
        self.database.execute(
            "UPDATE deliveries SET failures = ?, asks = 0 WHERE destination = ? AND sop_uid = ?",
            *(failures, one.destination, one.sop_uid),
        )
        state = REFUSED if failures >= _MAX_FAILURES else PENDING
        wait_s = min(sending.backoff_s * 2 ** (failures - 1), sending.max_backoff_s)
        self._settle(one, state, reason, message, wait_s)

    def _settle(
        self,
        one: Delivery,
        state: str,
        status: str = "",
        message: str = "",
        wait_s: float = 0.0,
    ) -> None:
        """Write down how a delivery stands now."""
        now = self.clock()
        with self.database.transaction():
            n_changed = self.database.execute(
                "UPDATE deliveries SET state = ?, status = ?, message = ?, due_at = ?, "
                "changed_at = ? WHERE destination = ? AND sop_uid = ? AND state = ?",
                *(state, status, message, now + wait_s, now),
                *(one.destination, one.sop_uid, STORED),
            )
            if not n_changed:
                return  # answered meanwhile
            if state != STORED:
                self.database.execute(
                    "DELETE FROM commitments WHERE destination = ? AND sop_uid = ?",
                    *(one.destination, one.sop_uid),
                )
            self.studies.settle(one.study_key)
        self.audit(
            "commitment",
            sop=one.sop_uid,
            destination=one.destination,
            state=state,
            **({} if state == SENT else {"status": status, "message": message}),
        )
