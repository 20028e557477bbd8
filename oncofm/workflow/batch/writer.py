"""From results to what lasts: rows in a part that is on disk, then an entry in the ledger."""

import time
from collections.abc import Sequence
from pathlib import Path

from oncofm.biomarkers.head import Head
from oncofm.encoders.encoder import EncoderFacts
from oncofm.results.manifest import Configuration, provenance, utc_now
from oncofm.workflow.batch.ledger import REPORT_FAILED, Entry, Ledger
from oncofm.workflow.batch.meter import Meter, attempts_fact, attempts_of
from oncofm.workflow.batch.parts import KINDS, write_part
from oncofm.workflow.batch.remote import discard
from oncofm.workflow.batch.result import ItemResult
from oncofm.workflow.case import CaseOutcome, CaseState
from oncofm.workflow.settings import Settings
from oncofm.workflow.tabulate import tabulate_cases, tabulate_features, tabulate_predictions
from oncofm.workflow.write import tabulate_skipped, write_dicom

_LESIONS_PER_PART = 256
_SECONDS_PER_PART = 20.0
"""What at most is computed again after the process was killed."""


class Writer:
    """Keeps the results of a process until there are enough of them for a part.

    Parameters
    ----------
    output : pathlib.Path
        Folder for parts and reports.
    ledger : Ledger
        Learns what is on disk.
    encoder, configuration
        What computes; it stands in every row.
    digest : str
        Hash of everything that can change a row.
    heads : sequence of Head
        Whether there are predictions.
    settings : Settings
        Which reports and pictures to write.
    """

    def __init__(
        self,
        output: Path,
        ledger: Ledger,
        encoder: EncoderFacts,
        configuration: Configuration,
        digest: str,
        heads: Sequence[Head],
        settings: Settings,
    ) -> None:
        self._output = output
        self._ledger = ledger
        self._encoder = encoder
        self._configuration = configuration
        self._digest = digest
        self._heads = heads
        self._settings = settings
        self._origin = provenance(encoder, configuration)
        self._tries = {entry.item_id: entry.attempt for entry in ledger.entries().values()}
        self._next_part = max(ledger.parts(), default=0) + 1
        self._earlier = attempts_of(ledger)
        self._waiting: list[ItemResult] = []
        self._n_lesions = 0
        self._reporting: dict[str, str] = {}
        self._committed_at = time.monotonic()

    def add(self, result: ItemResult, meter: Meter) -> None:
        """Take a result, and commit all if they are enough, or wait for long."""
        self._waiting.append(result)
        self._n_lesions += result.n_done
        waited_s = time.monotonic() - self._committed_at
        if self._n_lesions >= _LESIONS_PER_PART or waited_s >= _SECONDS_PER_PART:
            self.commit(meter)

    def commit(self, meter: Meter) -> None:
        """Write what waits as one part, then say so in the ledger, with what the meter shows."""
        self._committed_at = time.monotonic()
        if not self._waiting:
            return
        with meter.writing():
            failures = [self._write_dicom(result) for result in self._waiting]
            self._ledger.note_reports(self._reporting)
            files = write_part(self._output, self._next_part, self._tables())
            entries = [
                self._entry(result, sentences)
                for result, sentences in zip(self._waiting, failures, strict=True)
            ]
        facts = attempts_fact([*self._earlier, meter.attempt()])
        with meter.writing():
            self._ledger.commit(self._next_part, files, entries, **facts)
        self._next_part += 1
        self._waiting, self._n_lesions, self._reporting = [], 0, {}

    def _write_dicom(self, result: ItemResult) -> list[str]:
        """Write what leaves as DICOM; returns a sentence for everything that could not."""
        item_id = result.item.item_id
        reporters = [self._reporter(outcome, item_id) for outcome in result.outcomes]
        pairs = list(zip(result.outcomes, reporters, strict=True))
        own = [outcome for outcome, reporter in pairs if reporter == item_id]
        reports = write_dicom(self._output, own, self._encoder, self._configuration, self._settings)
        discard(result.item.folder)
        others = [
            f"Case {outcome.case.case_id} has no report: item {reporter} has one of that name; "
            f"compute item {item_id} into a folder of its own."
            for outcome, reporter in pairs
            if reporter != item_id
        ]
        return [*(reports.failures if reports else []), *others]

    def _reporter(self, outcome: CaseOutcome, item_id: str) -> str:
        """Say whose reports are called by a case: of items with one series the first one's."""
        case_id = outcome.case.case_id
        has_report = outcome.done and outcome.case.volume is not None
        if not (has_report and self._settings.writes_dicom):
            return item_id
        reporter = self._reporting.get(case_id) or self._ledger.reporting_item(case_id) or item_id
        self._reporting[case_id] = reporter
        return reporter

    def _tables(self) -> dict[str, list]:
        tables: dict[str, list] = {kind: [] for kind in KINDS}
        for result in self._waiting:
            item_id, outcomes = result.item.item_id, result.outcomes
            features = tabulate_features(outcomes, self._origin, self._encoder.n_features)
            tables["features"].append((item_id, features))
            cases = tabulate_cases(outcomes, result.verdicts, self._origin)
            tables["cases"].append((item_id, cases))
            if self._heads:
                predictions = tabulate_predictions(outcomes, self._origin)
                tables["predictions"].append((item_id, predictions))
            if result.skipped:
                tables["skipped"].append((item_id, tabulate_skipped(result.skipped)))
        return tables

    def _entry(self, result: ItemResult, failures: Sequence[str]) -> Entry:
        item = result.item
        state, reason, message = result.worst
        if failures and state == CaseState.DONE:
            state, reason, message = CaseState.PARTIAL.value, REPORT_FAILED, failures[0]
        return Entry(
            item_id=item.item_id,
            position=item.position,
            identity=item.identity,
            configuration=self._digest,
            state=state,
            reason=reason,
            message=message,
            n_lesions=result.n_lesions,
            n_done=result.n_done,
            attempt=self._tries.get(item.item_id, 0) + 1,
            part=self._next_part,
            finished_at=utc_now(),
        )
