"""From parts to the tables of a batch, in the order of the plan, and its manifest."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from oncofm.biomarkers.head import Head
from oncofm.encoders.encoder import EncoderFacts
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
from oncofm.results.table import ResultTable
from oncofm.results.table_files import open_table, remove_table
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.ledger import REPORT_FAILED, Entry, Ledger
from oncofm.workflow.batch.meter import attempts_of, sum_up
from oncofm.workflow.batch.parts import merge_parts, without_items
from oncofm.workflow.case import CaseState
from oncofm.workflow.describe import EXIT_DONE, EXIT_NONE_DONE, EXIT_SOME_NOT_DONE
from oncofm.workflow.settings import Settings
from oncofm.workflow.tabulate import tabulate_cases, tabulate_features, tabulate_predictions
from oncofm.workflow.timing import Timing, peak_memory_mib
from oncofm.workflow.write import PAGE

if TYPE_CHECKING:
    from oncofm.workflow.batch.page import PageTally

TABLES = {
    "features": "features.parquet",
    "predictions": "predictions.csv",
    "cases": "cases.csv",
    "skipped": "skipped.csv",
}
"""Kind of rows -> file."""


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
    n_skipped: int = 0
    series_uids: set[str] = field(default_factory=set)

    def add(self, kind: str, rows: ResultTable) -> None:
        """Count rows of ``cases`` and of ``skipped``."""
        if kind == "skipped":
            self.n_skipped += rows.columns.num_rows
        if kind != "cases":
            return
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
    settings: Settings,
    timing: Timing,
) -> BatchResult:
    """Write the tables, the report and the manifest of a batch.

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
    settings : Settings
        Whether a report is asked for.
    timing : Timing
        Seconds per step; those of writing are added.

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
    tally = _tally(heads) if settings.report else None
    watch = _nobody if tally is None else tally.add
    with timing.part("write"):
        if wanted:
            sources = [(output, ledger.parts())]
            counts = write_tables(
                output, sources, wanted, with_predictions=bool(heads), watch=watch
            )
        else:
            counts = CaseCounts()
            _write_empty(output, encoder, configuration, with_predictions=bool(heads))
    n_unreported = sum(entry.reason == REPORT_FAILED for entry in entries)
    n_left = len(plan) - len(wanted)
    exit_code = counts.exit_code(n_left + n_unreported)
    manifest = RunManifest(
        software=describe_software(),
        model=describe_model(encoder),
        configuration=configuration,
        configuration_hash=configuration.digest(),
        inputs=Inputs(
            series_uids=sorted(counts.series_uids - {""}),
            segmentation_uids=[],
            n_files_skipped=counts.n_skipped,
        ),
        summary=Summary(
            cases={state.value: counts.cases[state] for state in CaseState},
            lesions={state.value: counts.lesions[state] for state in CaseState},
            left_out=dict(counts.left_out),
            exit_code=exit_code,
        ),
        heads=[head.card.name for head in heads],
        reports=None,
        seconds=timing.seconds | {"total": timing.total()},
        peak_memory_mib=round(peak_memory_mib(), 1),
        throughput=sum_up(attempts_of(ledger)),
        finished_at=utc_now(),
    )
    with timing.part("write_page"):
        if tally is None:
            (output / PAGE).unlink(missing_ok=True)  # an older one would look like one of this
        else:
            tally.write(output / PAGE, manifest, entries, n_left)
    seconds = timing.seconds | {"total": timing.total()}  # the page could not know how long it took
    manifest = manifest.model_copy(update={"seconds": seconds})
    write_manifest(manifest, output / "run.json")
    return BatchResult(manifest, exit_code)


def _tally(heads: Sequence[Head]) -> "PageTally":
    from oncofm.workflow.batch.page import PageTally

    return PageTally([head.card for head in heads])


def _nobody(kind: str, rows: ResultTable) -> None:
    """Watch nothing."""


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
    for kind, name in TABLES.items():
        if kind in tables:
            with open_table(output / name) as write:
                write(without_items(tables[kind]))
        else:
            remove_table(output / name)


def write_tables(
    output: Path,
    sources: Sequence[tuple[Path, Mapping[int, Mapping[str, str]]]],
    wanted: Sequence[tuple[int, int, str]],
    *,
    with_predictions: bool,
    names: Mapping[str, str] = TABLES,
    watch: Callable[[str, ResultTable], None] = _nobody,
) -> CaseCounts:
    """Write the tables of some items.

    Parameters
    ----------
    output : pathlib.Path
        Folder for the tables.
    sources, wanted
        As for `merge_parts`.
    with_predictions : bool
        Whether there are any; without, and without skipped files, an older table is removed.
    names : mapping of str to str
        Kind of rows -> file.
    watch : callable
        Is shown the rows of each kind, as they are written.

    Returns
    -------
    CaseCounts
        What the rows say.
    """
    counts = CaseCounts()
    for kind, name in names.items():
        path = output / name
        blocks = merge_parts(sources, wanted, kind)
        first = None if kind == "predictions" and not with_predictions else next(blocks, None)
        if first is None or (kind == "skipped" and not first.columns.num_rows):
            remove_table(path)
            continue
        with open_table(path) as write:
            for rows in chain([first], blocks):
                write(rows)
                counts.add(kind, rows)
                watch(kind, rows)
    return counts
