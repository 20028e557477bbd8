"""How far a batch is."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from oncofm.results.manifest import Throughput
from oncofm.workflow.batch.ledger import read_ledger
from oncofm.workflow.batch.meter import attempts_of, sum_up
from oncofm.workflow.case import CaseState

_SHOWN = 10


@dataclass(frozen=True)
class BatchStatus:
    """How far a batch is.

    Attributes
    ----------
    n_items, n_finished, n_left : int
        Of the plan; one that was committed is finished, however it ended.
    n_lesions, n_lesions_done : int
        Of the finished items.
    states, reasons : dict of str to int
        Finished items by their state, and those that are not done by their reason, most frequent
        first.
    failures : tuple of (str, str)
        Id and sentence of some items that failed.
    last_finished_at : str
        ISO 8601, UTC; empty if nothing is finished.
    throughput : Throughput or None
        How fast it went so far, and what it took; None if nothing was computed.
    """

    n_items: int
    n_finished: int
    n_left: int
    n_lesions: int
    n_lesions_done: int
    states: dict[str, int]
    reasons: dict[str, int]
    failures: tuple[tuple[str, str], ...]
    last_finished_at: str
    throughput: Throughput | None


def batch_status(folder: Path) -> BatchStatus:
    """Read the ledger of a batch.

    Raises
    ------
    BatchError
        If there is none.
    """
    with read_ledger(folder) as ledger:
        entries = list(ledger.results().values())
        throughput = sum_up(attempts_of(ledger))
        plan = json.loads(ledger.fact("plan") or '{"n_items": 0}')
    n_items = max(plan["n_items"], len(entries))
    failed = [entry for entry in entries if entry.state == CaseState.FAILED]
    return BatchStatus(
        n_items=n_items,
        n_finished=len(entries),
        n_left=n_items - len(entries),
        n_lesions=sum(entry.n_lesions for entry in entries),
        n_lesions_done=sum(entry.n_done for entry in entries),
        states=dict(Counter(entry.state for entry in entries).most_common()),
        reasons=dict(Counter(entry.reason for entry in entries if entry.reason).most_common()),
        failures=tuple((entry.item_id, entry.message) for entry in failed[:_SHOWN]),
        last_finished_at=max((entry.finished_at for entry in entries), default=""),
        throughput=throughput,
    )
