"""Reports to their destinations, each instance to each destination with a state of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from oncofm.pacs.audit import Audit
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.config_peers import DicomDestination, StowDestination
from oncofm.pacs.database import PENDING, REFUSED, SENT, STORED, Database, Delivery
from oncofm.pacs.send_dicom import send_dicom
from oncofm.pacs.send_stow import send_stow
from oncofm.pacs.studies import Clock, Studies
from oncofm.pacs.verdict import Verdict

_AT_ONCE = 100
"""Instances for each association or request."""

Send = Callable[[Sequence[Delivery]], Iterator[tuple[Delivery, Verdict]]]


@dataclass
class Sender:
    """Delivers what is due.

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

    def deliver(self, name: str, is_stopping: Callable[[], bool]) -> bool:
        """Send what is due at a destination; says whether there was anything."""
        due = self.database.deliveries(
            "destination = ? AND state = ? AND due_at <= ?", name, PENDING, self.clock()
        )[:_AT_ONCE]
        if not due:
            return False
        destination = self.config.destinations[name]
        is_to_commit = isinstance(destination, DicomDestination) and destination.commitment
        self._hold(due)
        for delivery, verdict in _sending(destination)(due):
            if is_to_commit and verdict.state == SENT:
                verdict = replace(verdict, state=STORED)
            self._record(delivery, verdict)
            if is_stopping():
                break  # a slow peer may need minutes for the rest
        return True

    def _hold(self, due: Sequence[Delivery]) -> None:
        """Note that instances are being sent: what cannot be noted must not be sent for ever."""
        with self.database.transaction():
            for one in due:
                self.database.execute(
                    "UPDATE deliveries SET due_at = ? WHERE destination = ? AND sop_uid = ?",
                    *(self.clock() + self.config.sending.backoff_s, one.destination, one.sop_uid),
                )

    def _record(self, delivery: Delivery, verdict: Verdict) -> None:
        """Note at once what became of an instance: it must not be sent again."""
        now, sending = self.clock(), self.config.sending
        attempts, state, due_at = delivery.attempts + 1, verdict.state, now
        if state == PENDING and attempts >= sending.attempts:
            state = REFUSED
        elif state == PENDING:
            # The exponent is bounded as the number must be.
            wait_s = sending.backoff_s * 2 ** min(attempts - 1, 30)
            due_at = now + min(wait_s, sending.max_backoff_s)
        with self.database.transaction():
            self.database.execute(
                "UPDATE deliveries SET state = ?, attempts = ?, due_at = ?, status = ?, "
                "message = ?, changed_at = ? WHERE destination = ? AND sop_uid = ? AND state = ?",
                *(state, attempts, due_at, verdict.status, verdict.message, now),
                *(delivery.destination, delivery.sop_uid, PENDING),
            )
            self.studies.settle(delivery.study_key)
        self.audit(
            "delivery",
            sop=delivery.sop_uid,
            destination=delivery.destination,
            state=state,
            attempt=attempts,
            **(
                {}
                if state in (SENT, STORED)
                else {"status": verdict.status, "message": verdict.message}
            ),
        )


def _sending(destination: DicomDestination | StowDestination) -> Send:
    if isinstance(destination, DicomDestination):
        return lambda due: send_dicom(destination, due)
    return lambda due: send_stow(destination, due)
