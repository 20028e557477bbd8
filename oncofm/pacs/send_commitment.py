"""Questions to a peer, whether it keeps what it was sent (N-ACTION, PS3.4 J.3.2)."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association

from oncofm.pacs.config_peers import DicomDestination
from oncofm.pacs.database import PENDING, REFUSED, STORED, Delivery
from oncofm.pacs.receive import COMMITMENT, Take
from oncofm.pacs.send_dicom import open_association
from oncofm.pacs.verdict import Verdict

_INSTANCE = "1.2.840.10008.1.20.1.1"
_REQUEST = 1
_NOT_SUPPORTED = (0x0118, 0x0122, 0x0123, 0x0124, 0x0211)
"""No such class, class not supported, no such action, not authorized, unrecognised operation."""
_POLL_S = 0.05


@dataclass(frozen=True)
class Question:
    """What a peer is asked to commit to, under a Transaction UID."""

    transaction_uid: str
    deliveries: tuple[Delivery, ...]


def ask_peer(
    destination: DicomDestination,
    questions: Sequence[Question],
    take: Take,
    is_over: Callable[[], bool],
) -> Iterator[tuple[Question, Verdict]]:
    """Ask over one association, and keep it for a while: some peers answer on it.

    Parameters
    ----------
    destination : DicomDestination
        The peer.
    questions : sequence of Question
        What is asked.
    take : callable
        Takes the answers that come on this association.
    is_over : callable
        Whether there is nothing to wait for any more.

    Yields
    ------
    tuple of Question and Verdict
        As each is taken: ``stored`` if the peer will answer, ``pending`` if it may be asked again,
        ``refused`` if it never will; all are yielded.
    """
    contexts = [(COMMITMENT, ExplicitVRLittleEndian), (COMMITMENT, ImplicitVRLittleEndian)]
    association = open_association(destination, contexts, [(evt.EVT_N_EVENT_REPORT, take)])
    if isinstance(association, Verdict):
        yield from ((question, association) for question in questions)
        return
    try:
        for question in questions:
            yield question, _ask(association, question)
        end = time.monotonic() + destination.timeout_s
        while association.is_established and not is_over() and time.monotonic() < end:
            time.sleep(_POLL_S)
    finally:
        if association.is_established:
            association.release()


def _ask(association: Association, question: Question) -> Verdict:
    information = _information(question)
    try:
        answer, _ = association.send_n_action(information, _REQUEST, COMMITMENT, _INSTANCE)
    except RuntimeError:  # there is none any more
        return Verdict(PENDING, "", "The peer ended the association; it is asked again.")
    if "Status" not in answer:
        return Verdict(PENDING, "", "The peer did not answer in time; it is asked again.")
    status = int(answer.Status)
    if status == 0:
        return Verdict(STORED)
    text = f"{status:04X}"
    state = REFUSED if status in _NOT_SUPPORTED else PENDING
    return Verdict(state, text, f"The peer does not take the question for commitment ({text}).")


def _information(question: Question) -> Dataset:
    """Put a question as action information (PS3.4 table J.3-1)."""
    information = Dataset()
    information.TransactionUID = question.transaction_uid
    information.ReferencedSOPSequence = []
    for one in question.deliveries:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class, one.sop_uid
        information.ReferencedSOPSequence.append(item)
    return information
