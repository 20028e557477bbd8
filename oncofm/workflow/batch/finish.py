"""From parts to the tables of a batch, in the order of the plan, and its manifest."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncofm.biomarkers.head import Head
from oncofm.encoders.encoder import EncoderFacts
from oncofm.results.files import atomic_path
from oncofm.results.manifest import (
    Configuration,
    Inputs,
    RunManifest,
    Summary,
    describe_model,
    describe_software,
    provenance,
    utc_now,
    write_manifest,
)
from oncofm.results.table import ResultTable, TableWriter, write_table
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.ledger import Entry, Ledger
from oncofm.workflow.batch.parts import merge_parts
from oncofm.workflow.case import CaseState
from oncofm.workflow.describe import EXIT_DONE, EXIT_NONE_DONE, EXIT_SOME_NOT_DONE
from oncofm.workflow.tabulate import tabulate_cases, tabulate_features, tabulate_predictions
from oncofm.workflow.timing import Timing, peak_memory_mib

TABLES = {"features": ".parquet", "predictions": ".csv", "cases": ".csv"}
"""Kind of rows -> suffix of their table."""
REPORT_FAILED = "report_failed"
"""Reason of an item whose features are there, and not all of what was to leave as DICOM."""


@dataclass(frozen=True)
class BatchResult:
    """How a batch ended.

    Attributes
    ----------
    manifest : RunManifest or None
        As in ``run.json``; None if the batch was ended early.
    exit_code : int
        0 if all cases are done, 2 if some are not, 3 if none is; 143 after SIGTERM.
    """

    manifest: RunManifest | None
    exit_code: int


@dataclass
class CaseCounts:
    """How many cases and lesions ended how, and what was left out."""

    cases: Counter[str] = field(default_factory=Counter)
    lesions: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    n_broken_files: int = 0
    series_uids: set[str] = field(default_factory=set)

    def add(self, rows: ResultTable) -> None:
        """Count rows of ``cases``."""
        names = ("level", "state", "reason", "series_uid")
        columns = [rows.columns[name].to_pylist() for name in names]
        for level, state, reason, series_uid in zip(*columns, strict=True):
            if level == "case":
                self.cases[state] += 1
                self.series_uids.add(series_uid or "")
            elif level == "lesion":
                self.lesions[state] += 1
            else:
                self.left_out[reason] += 1
                self.n_broken_files += level == "file"

    def exit_code(self, n_missing: int) -> int:
        """As promised for a run; `n_missing` items have no result, or not all of their reports."""
        usable = self.cases[CaseState.DONE] + self.cases[CaseState.PARTIAL]
        if not usable:
            return EXIT_NONE_DONE
        all_done = self.cases[CaseState.DONE] == self.cases.total()
        return (
            EXIT_DONE if all_done and not (self.n_broken_files or n_missing) else EXIT_SOME_NOT_DONE
        )


def finish(
    output: Path,
    ledger: Ledger,
    plan: Sequence[Item],
    encoder: EncoderFacts,
    configuration: Configuration,
    heads: Sequence[Head],
    timing: Timing,
) -> BatchResult:
    """Write the tables and the manifest of a batch.

    Parameters
    ----------
    output : pathlib.Path
        Of the batch.
    ledger : Ledger
        What is done.
    plan : sequence of Item
        What was to be done. Of the ledger, what is about other items, about other files or with
        another configuration is left out.
    encoder, configuration, heads
        What it was done with.
    timing : Timing
        Seconds per step.

    Raises
    ------
    BatchError
        If a part is missing or damaged.
    OutputNotWritableError
        If a file cannot be written.
    """
    results = ledger.results()
    entries = [results[item.item_id] for item in plan if _answered(item, results)]
    wanted = [(0, entry.part, entry.item_id) for entry in entries]
    if wanted:
        sources = [(output, ledger.parts())]
        counts = write_tables(output, sources, wanted, with_predictions=bool(heads))
    else:
        counts = CaseCounts()
        _write_empty(output, encoder, configuration, with_predictions=bool(heads))
    n_unreported = sum(entry.reason == REPORT_FAILED for entry in entries)
    exit_code = counts.exit_code(len(plan) - len(wanted) + n_unreported)
    manifest = RunManifest(
        software=describe_software(),
        model=describe_model(encoder),
        configuration=configuration,
        configuration_hash=configuration.digest(),
        inputs=Inputs(
            series_uids=sorted(counts.series_uids - {""}), segmentation_uids=[], n_files_skipped=0
        ),
        summary=Summary(
            cases={state.value: counts.cases[state] for state in CaseState},
            lesions={state.value: counts.lesions[state] for state in CaseState},
            left_out=dict(counts.left_out),
            exit_code=exit_code,
        ),
        heads=[head.card.name for head in heads],
        reports=None,
        seconds=dict(timing.seconds),
        peak_memory_mib=round(peak_memory_mib(), 1),
        finished_at=utc_now(),
    )
    write_manifest(manifest, output / "run.json")
    return BatchResult(manifest, exit_code)


def _answered(item: Item, results: Mapping[str, Entry]) -> bool:
    return item.item_id in results and results[item.item_id].identity == item.identity


def _write_empty(
    output: Path, encoder: EncoderFacts, configuration: Configuration, *, with_predictions: bool
) -> None:
    """Write the tables of a batch without items: a shard may have none."""
    origin = provenance(encoder, configuration)
    tables = {
        "features": tabulate_features([], origin, encoder.n_features),
        "cases": tabulate_cases([], [], origin),
    }
    if with_predictions:
        tables["predictions"] = tabulate_predictions([], origin)
    for kind, suffix in TABLES.items():
        path = output / f"{kind}{suffix}"
        if kind in tables:
            write_table(tables[kind], path)
        else:
            path.unlink(missing_ok=True)


def write_tables(
    output: Path,
    sources: Sequence[tuple[Path, Mapping[int, Mapping[str, str]]]],
    wanted: Sequence[tuple[int, int, str]],
    *,
    with_predictions: bool,
) -> CaseCounts:
    """Write features, predictions and cases of some items; see `merge_parts`.

    Returns
    -------
    CaseCounts
        What the cases say.
    """
    counts = CaseCounts()
    for kind, suffix in TABLES.items():
        path = output / f"{kind}{suffix}"
        if kind == "predictions" and not with_predictions:
            path.unlink(missing_ok=True)
            continue
        with _open(path) as write:
            for rows in merge_parts(sources, wanted, kind):
                write(rows)
                if kind == "cases":
                    counts.add(rows)
    return counts


@contextmanager
def _open(path: Path) -> Iterator[Callable[[ResultTable], Any]]:
    with atomic_path(path) as temporary, TableWriter(temporary, path.suffix) as writer:
        yield writer.write
