"""How an item ended, in the words of the tables, the ledger and the progress."""

from collections.abc import Sequence
from dataclasses import dataclass

from oncofm.biomarkers.head import Head
from oncofm.imaging.scan import SkippedFile
from oncofm.workflow.batch.compute import ItemOutcome
from oncofm.workflow.batch.items import Item
from oncofm.workflow.case import Case, CaseOutcome, CaseState, InputVerdict
from oncofm.workflow.jitter import gather_shifts
from oncofm.workflow.predict import predict_case
from oncofm.workflow.settings import Settings

NO_CASE = "no_case"
"""State of an item that holds no CT volume and no annotation: its files are listed, that is all."""

_WORST_FIRST = (CaseState.FAILED, CaseState.REJECTED, CaseState.PARTIAL, CaseState.DONE)


@dataclass(frozen=True)
class ItemResult:
    """An item of which nothing is on its way any more.

    Attributes
    ----------
    item : Item
        What it was.
    outcomes : tuple of CaseOutcome
        Its cases, with predictions; one that failed, if the item could not be read.
    verdicts, skipped
        As in `oncofm.workflow.gather.Worklist`.
    """

    item: Item
    outcomes: tuple[CaseOutcome, ...]
    verdicts: tuple[InputVerdict, ...]
    skipped: tuple[SkippedFile, ...]

    @property
    def n_lesions(self) -> int:
        """Lesions of all its cases."""
        return sum(len(outcome.lesions) for outcome in self.outcomes)

    @property
    def n_done(self) -> int:
        """Those that have features."""
        return sum(len(outcome.done) for outcome in self.outcomes)

    @property
    def worst(self) -> tuple[str, str, str]:
        """State, reason and sentence of the case that ended worst; an item may have none."""
        for state in _WORST_FIRST:
            for outcome in self.outcomes:
                if outcome.state is state:
                    return state.value, outcome.reason, outcome.message
        return NO_CASE, "", ""


def conclude(
    item: Item, outcome: ItemOutcome, heads: Sequence[Head], settings: Settings
) -> ItemResult:
    """Predict from an item's features."""
    if outcome.failure is not None:
        failure = outcome.failure
        case = CaseOutcome(Case(item.item_id), CaseState.FAILED, failure.reason, failure.message)
        cases = (case,)
    else:
        gathered = (gather_shifts(case, settings.jitter) for case in outcome.outcomes)
        cases = tuple(predict_case(case, heads) for case in gathered)
    return ItemResult(item, cases, outcome.verdicts, outcome.skipped)
