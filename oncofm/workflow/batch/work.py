"""The work on items: computed, concluded, reported, written, until all are or SIGTERM comes."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from oncofm.biomarkers.head import Head
from oncofm.workflow.batch.computers import Computer
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.result import ItemResult, conclude
from oncofm.workflow.batch.writer import Writer
from oncofm.workflow.job import Report
from oncofm.workflow.settings import Settings


def work_through(
    items: Sequence[Item],
    computer: Computer,
    writer: Writer,
    heads: Sequence[Head],
    settings: Settings,
    report: Report,
) -> bool:
    """Compute items and commit them.

    Parameters
    ----------
    items : sequence of Item
        All that is to be done.
    computer : Computer
        Computes them.
    writer : Writer
        Commits them.
    heads : sequence of Head
        Predict from their features.
    settings : Settings
        Whether their volumes are looked at again.
    report : callable
        Is told of each.

    Returns
    -------
    bool
        Whether SIGTERM ended it early; what was in hand by then is committed.
    """
    by_position = {item.position: item for item in items}
    with _noting_sigterm() as terminated:
        computed, meter = computer.begin(
            items, keep_volumes=settings.writes_dicom, is_stopped=lambda: bool(terminated)
        )
        for outcome in computed:
            result = conclude(by_position[outcome.position], outcome, heads, settings)
            meter.count(len(result.outcomes), result.n_done)
            report(_event(result))
            writer.add(result, meter)
        writer.commit(meter)
    return bool(terminated)


def _event(result: ItemResult) -> dict[str, Any]:
    state, reason, message = result.worst
    return {
        "event": "case",
        "case_id": result.item.item_id,
        "state": state,
        "reason": reason,
        "message": message,
        "n_lesions": result.n_lesions,
        "n_done": result.n_done,
    }


@contextmanager
def _noting_sigterm() -> Iterator[list[int]]:
    """Yield a list that gets an entry when the process is asked to terminate."""
    received: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    except ValueError:  # not in the main thread, so nobody sends us signals
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
