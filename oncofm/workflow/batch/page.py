"""The report of a batch, ``report.html``: counted from the tables while they are written."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from oncofm.biomarkers.card import CLASS_KINDS, HeadCard
from oncofm.biomarkers.predictions import OUTLIER_PERCENTILE
from oncofm.results.files import write_text
from oncofm.results.manifest import RunManifest
from oncofm.results.report import (
    BatchPage,
    Distribution,
    Download,
    Example,
    HeadFigures,
    ReasonGroup,
    render_batch_report,
)
from oncofm.results.report.limits import MOST_EXAMPLES
from oncofm.results.table import ResultTable
from oncofm.workflow.batch.ledger import REPORT_FAILED, Entry
from oncofm.workflow.batch.meter import slowest_items
from oncofm.workflow.batch.parts import ITEM_ID_COLUMN
from oncofm.workflow.case import CaseState
from oncofm.workflow.page import list_tables

_LEVELS = ("case", "lesion", "output", "file", "series")
"""In the order of the page."""
_BINS = 40
_QUANTILES = (5, 25, 50, 75, 95)


class PageTally:
    """Counts what the page will say; of the rows themselves it keeps a few examples.

    Parameters
    ----------
    cards : sequence of HeadCard
        Of the heads that were asked.
    """

    def __init__(self, cards: Sequence[HeadCard]) -> None:
        self._reasons: dict[tuple[str, str, str], _Reason] = {}
        self._heads = {card.name: _HeadTally(card) for card in cards}

    def add(self, kind: str, rows: ResultTable) -> None:
        """Count rows of a table, as they are written."""
        if kind == "cases":
            self._add_cases(rows)
        elif kind == "predictions":
            self._add_predictions(rows)

    def write(
        self, path: Path, manifest: RunManifest, entries: Sequence[Entry], n_left: int
    ) -> None:
        """Write the page.

        Parameters
        ----------
        path : pathlib.Path
            ``report.html``, in the folder of the tables that it links to.
        manifest : RunManifest
            As in ``run.json``.
        entries : sequence of Entry
            What the ledger says about the items in the tables.
        n_left : int
            Items that are not computed.

        Raises
        ------
        OutputNotWritableError
            If the page cannot be written.
        """
        for entry in entries:
            if entry.reason == REPORT_FAILED:
                example = Example(entry.item_id, entry.item_id, entry.message)
                self._count("output", entry.state, entry.reason, example)
        known = {entry.item_id for entry in entries}
        attempts = manifest.throughput.attempts if manifest.throughput else []
        page = BatchPage(
            manifest,
            tuple(head.figures() for head in self._heads.values()),
            tuple(group for _, group in sorted(map(_group, self._reasons.items()))),
            tuple(pair for pair in slowest_items(attempts) if pair[0] in known),
            (*list_tables(path.parent), _MANIFEST),
            n_left,
        )
        write_text(path, render_batch_report(page))

    def _add_cases(self, rows: ResultTable) -> None:
        names = ("level", "state", "reason", "case_id", ITEM_ID_COLUMN, "message")
        columns = [rows.columns[name].to_pylist() for name in names]
        for level, state, reason, case_id, item_id, message in zip(*columns, strict=True):
            if state != CaseState.DONE:
                example = Example(case_id or "", item_id or "", message or "")
                self._count(level, state, reason or "", example)

    def _count(self, level: str, state: str, reason: str, example: Example) -> None:
        group = self._reasons.setdefault((level, state, reason), _Reason())
        group.n += 1
        if len(group.examples) < MOST_EXAMPLES:
            group.examples.append(example)

    def _add_predictions(self, rows: ResultTable) -> None:
        names = ("head", "class", "probability", "risk", "value")
        columns = [rows.columns[name].to_pylist() for name in (*names, *_OF_LESION)]
        for head, output, probability, risk, value, group, percentile in zip(*columns, strict=True):
            numbers = (probability, risk, value)
            number = next((number for number in numbers if number is not None), None)
            if number is not None and head in self._heads:
                self._heads[head].add(output, number, group, percentile)


_OF_LESION = ("risk_group", "training_percentile")
_MANIFEST = Download("run.json", "what ran, on what, with what, how fast, and how it ended")


@dataclass
class _Reason:
    """What is counted for a reason."""

    n: int = 0
    examples: list[Example] = field(default_factory=list)


def _group(
    counted: tuple[tuple[str, str, str], _Reason],
) -> tuple[tuple[int, int, str, str], ReasonGroup]:
    """Give a reason and where it stands: by level, the most frequent first."""
    (level, state, reason), found = counted
    group = ReasonGroup(level, state, reason, found.n, tuple(found.examples))
    return (_LEVELS.index(level), -found.n, state, reason), group


class _HeadTally:
    """What a head says about all lesions: four bytes for each number."""

    def __init__(self, card: HeadCard) -> None:
        self._card = card
        self._values = {name: array("f") for name in card.outputs}
        self._percentiles = array("f")
        self._groups: Counter[str] = Counter()

    def add(
        self, output: str | None, value: float, group: str | None, percentile: float | None
    ) -> None:
        """Add a row of the predictions; what is about the lesion as a whole is in each of them."""
        name = self._card.outputs[-1] if output is None else output
        if name not in self._values:
            return
        self._values[name].append(value)
        if name != self._card.outputs[-1]:
            return
        if group is not None:
            self._groups[group] += 1
        if percentile is not None:
            self._percentiles.append(percentile)

    def figures(self) -> HeadFigures:
        """Sum up."""
        bounds = (0.0, 1.0) if self._card.kind in CLASS_KINDS else None
        n_lesions = len(self._values[self._card.outputs[-1]])
        percentiles = np.array(self._percentiles)
        return HeadFigures(
            self._card,
            n_lesions,
            tuple(
                (name, _spread(np.array(values), bounds))
                for name, values in self._values.items()
                if values
            ),
            {name: self._groups[name] for name in sorted(self._groups)},
            _spread(percentiles, (0.0, 100.0)) if len(percentiles) else None,
            int((percentiles > OUTLIER_PERCENTILE).sum()),
        )


def _spread(values: np.ndarray, bounds: tuple[float, float] | None) -> Distribution:
    low, high = bounds or (float(values.min()), float(values.max()))
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(values, _BINS, (low, high))
    quantiles = np.percentile(values, _QUANTILES)
    return Distribution(low, high, tuple(counts.tolist()), tuple(quantiles.tolist()))
