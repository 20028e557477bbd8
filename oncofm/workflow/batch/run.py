"""``oncofm batch``: many cases, whatever happens in between."""

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from oncofm.biomarkers.head import Head, require_fit
from oncofm.encoders.encoder import Encoder, EncoderFacts, FixedBatches
from oncofm.errors import BatchError, InputNotFoundError
from oncofm.results.files import prepare_output_folder
from oncofm.results.manifest import Configuration, provenance, utc_now
from oncofm.workflow.batch.catalog import catalog_items
from oncofm.workflow.batch.compute import ItemOutcome, compute_items
from oncofm.workflow.batch.finish import BatchResult, finish
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.ledger import REPORT_FAILED, Entry, Ledger, open_ledger
from oncofm.workflow.batch.manifest_file import SUFFIXES, manifest_items
from oncofm.workflow.batch.meter import Meter, attempts_fact, attempts_of
from oncofm.workflow.batch.parts import KINDS, remove_unknown, write_part
from oncofm.workflow.batch.readers import Readers
from oncofm.workflow.batch.remote import FETCHED_FOLDER, discard
from oncofm.workflow.case import Case, CaseOutcome, CaseState
from oncofm.workflow.describe import configure
from oncofm.workflow.jitter import gather_shifts
from oncofm.workflow.job import Report, load_heads, start_loading
from oncofm.workflow.predict import predict_case
from oncofm.workflow.settings import Settings
from oncofm.workflow.tabulate import tabulate_cases, tabulate_features, tabulate_predictions
from oncofm.workflow.timing import Timing
from oncofm.workflow.write import tabulate_skipped, write_dicom

if TYPE_CHECKING:
    from oncofm.workflow.batch.cluster import Cluster

CATALOG_FILE = "catalog.sqlite"
EXIT_TERMINATED = 143
"""128 + SIGTERM, as a shell reports it."""

_LESIONS_PER_PART = 256
_SECONDS_PER_PART = 20.0
"""What at most is computed again after the process was killed."""

NO_CASE = "no_case"
"""State of an item that holds no CT volume and no annotation: its files are listed, that is all."""

_WORST_FIRST = (CaseState.FAILED, CaseState.REJECTED, CaseState.PARTIAL, CaseState.DONE)


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is worked through; none of it changes a result.

    Attributes
    ----------
    n_readers : int
        Processes that read.
    time_limit_s : float
        For reading one item.
    resume : bool
        Go on with what the output folder holds.
    retry_failed : bool
        Also try again what failed before.
    limit : int or None
        Stop after as many items.
    shard : tuple of (int, int)
        Number of the shard, from 0, and how many there are: this one takes every n-th item.
    cluster : str
        Address of a dask scheduler whose workers compute; empty: this process does.
    """

    n_readers: int = 2
    time_limit_s: float = 600.0
    resume: bool = False
    retry_failed: bool = False
    limit: int | None = None
    shard: tuple[int, int] = (0, 1)
    cluster: str = ""


def run_batch(
    source: Path,
    output: Path,
    settings: Settings,
    options: BatchOptions,
    report: Report = lambda event: None,
) -> BatchResult:
    """Compute the features of every case of a manifest or folder.

    Parameters
    ----------
    source : pathlib.Path
        Manifest, or folder of DICOM.
    output : pathlib.Path
        Folder for the results, on a local disk.
    settings : Settings
        What the user chose about the features.
    options : BatchOptions
        How to get there.
    report : callable
        Takes progress events.

    Returns
    -------
    BatchResult
        Its exit code is 143 if the process was asked to terminate; what was finished until then
        is kept, and the final tables are not written.

    Raises
    ------
    SetupError
        If the batch cannot start, or the output can no longer be written.
    """
    timing = Timing()
    _require_source(source, output)
    prepare_output_folder(output)
    heads = load_heads(settings)
    with open_ledger(output) as ledger, _computer(options, settings, timing) as computer:
        _check_resume(ledger, output, options)
        discard(output / FETCHED_FOLDER)
        remove_unknown(output, (name for files in ledger.parts().values() for name in files))
        with timing.part("plan"):
            plan = plan_items(source, output, options.shard)
        encoder = computer.describe_encoder()
        _check_heads(heads, encoder, settings)
        configuration = configure(encoder, settings)
        batch = _Batch(output, ledger, computer, encoder, settings, heads, configuration)
        ledger.note(
            configuration=configuration.model_dump_json(),
            digest=batch.digest,
            plan=json.dumps({"n_items": len(plan), "shard": options.shard}),
        )
        ledger.place(plan)
        todo = _left_to_do(plan, ledger.results(), options)
        n_done = len(plan) - len(todo)
        report({"event": "start", "n_cases": len(plan), "n_lesions": None, "n_before": n_done})
        with timing.part("read_and_encode"):
            terminated = batch.work(todo, report)
        if terminated:
            return BatchResult(None, EXIT_TERMINATED)
        encoder = computer.describe_encoder()  # its batches may have become smaller
        result = finish(output, ledger, plan, encoder, configuration, heads, settings, timing)
        if result.manifest is not None:
            report({"event": "end", **result.manifest.summary.model_dump()})
        return result


class _Computer(Protocol):
    """What turns items into outcomes: this process, or a cluster."""

    def describe_encoder(self) -> EncoderFacts:
        """Say what computes."""
        ...

    def begin(
        self, items: Sequence[Item], *, keep_volumes: bool, is_stopped: Callable[[], bool]
    ) -> tuple[Iterator[ItemOutcome], Meter]:
        """Compute items, each once, in no particular order; none is begun once stopped.

        The meter knows how long this process waited for others.
        """
        ...


@contextmanager
def _computer(options: BatchOptions, settings: Settings, timing: Timing) -> Iterator[_Computer]:
    if options.cluster:
        from oncofm.workflow.batch.cluster import Cluster

        with Cluster(options.cluster, settings) as cluster:
            yield _Elsewhere(cluster)
    else:
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as loader:
            yield _Here(settings, options, start_loading(loader, settings, timing))


class _Here:
    """Readers in processes of their own, the encoder in this one."""

    def __init__(
        self, settings: Settings, options: BatchOptions, load_encoder: Callable[[], Encoder]
    ) -> None:
        self._settings = settings
        self._options = options
        self._load_encoder = load_encoder

    def describe_encoder(self) -> EncoderFacts:
        return EncoderFacts.of(self._load_encoder())

    def begin(
        self, items: Sequence[Item], *, keep_volumes: bool, is_stopped: Callable[[], bool]
    ) -> tuple[Iterator[ItemOutcome], Meter]:
        n_readers = max(1, min(self._options.n_readers, len(items)))
        readers = Readers(
            takewhile(lambda _: not is_stopped(), items),
            self._settings,
            keep_volumes=keep_volumes,
            n_processes=n_readers,
            time_limit_s=self._options.time_limit_s,
        )
        meter = Meter(n_readers, readers.usage)
        return self._outcomes(readers, meter), meter

    def _outcomes(self, readers: Readers, meter: Meter) -> Iterator[ItemOutcome]:
        # Which lesions share a batch is chance, and must not be seen in the features.
        encoder = FixedBatches(self._load_encoder())
        with readers:
            yield from compute_items(meter.waited(readers.messages()), lambda: encoder)


class _Elsewhere:
    """Workers of a cluster; this process waits for them and writes."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster

    def describe_encoder(self) -> EncoderFacts:
        return self._cluster.describe_encoder()

    def begin(
        self, items: Sequence[Item], *, keep_volumes: bool, is_stopped: Callable[[], bool]
    ) -> tuple[Iterator[ItemOutcome], Meter]:
        meter = Meter(self._cluster.n_workers)
        outcomes = self._cluster.outcomes(items, keep_volumes=keep_volumes, is_stopped=is_stopped)
        return meter.waited(outcomes), meter


def plan_items(source: Path, output: Path, shard: tuple[int, int] = (0, 1)) -> list[Item]:
    """List the items of a manifest or folder, or those of one shard.

    Raises
    ------
    InputNotFoundError
        If the source does not exist.
    BatchError
        If it is neither, or empty, or the output.
    """
    _require_source(source, output)
    if source.is_dir():
        items = catalog_items(source, output / CATALOG_FILE)
    elif source.suffix.lower() in SUFFIXES:
        items = manifest_items(source, output / FETCHED_FOLDER)
    else:
        raise BatchError(
            f"{source} is neither a folder nor one of {', '.join(SUFFIXES)}; name one of those."
        )
    if not items:
        raise BatchError(f"{source} is empty; name a manifest with rows, or a folder with files.")
    number, n_shards = shard
    return items[number::n_shards]


def _require_source(source: Path, output: Path) -> None:
    if not source.exists():
        raise InputNotFoundError(f"{source} does not exist; name a manifest or a folder.")
    if source.resolve() == output.resolve():
        raise BatchError(f"{source} is input and output at once; choose another output folder.")


def _check_resume(ledger: Ledger, output: Path, options: BatchOptions) -> None:
    if not options.resume and ledger.entries():
        raise BatchError(
            f"{output} holds results of a batch; go on with it by --resume, or choose another "
            "folder."
        )


def _check_heads(heads: Sequence[Head], encoder: EncoderFacts, settings: Settings) -> None:
    for head in heads:
        require_fit(head, encoder.weights.sha256, settings.profile, encoder.n_features)


def _left_to_do(
    plan: Sequence[Item], results: dict[str, Entry], options: BatchOptions
) -> list[Item]:
    def is_done(item: Item) -> bool:
        entry = results.get(item.item_id)
        if entry is None or entry.identity != item.identity:
            return False
        has_failed = entry.state == CaseState.FAILED or entry.reason == REPORT_FAILED
        return not (options.retry_failed and has_failed)

    todo = [item for item in plan if not is_done(item)]
    return todo if options.limit is None else todo[: options.limit]


class _Batch:
    """The work on the items of one process, and what it has not written yet."""

    def __init__(
        self,
        output: Path,
        ledger: Ledger,
        computer: _Computer,
        encoder: EncoderFacts,
        settings: Settings,
        heads: Sequence[Head],
        configuration: Configuration,
    ) -> None:
        self.output = output
        self.ledger = ledger
        self.computer = computer
        self.encoder = encoder
        self.settings = settings
        self.heads = heads
        self.configuration = configuration
        self.digest = _digest(configuration, encoder, settings, heads)
        self._origin = provenance(encoder, configuration)
        self._attempts = {entry.item_id: entry.attempt for entry in ledger.entries().values()}
        self._next_part = max(ledger.parts(), default=0) + 1
        self._finished: list[tuple[Item, list[CaseOutcome], ItemOutcome]] = []
        self._n_lesions = 0
        self._failures: dict[str, list[str]] = {}
        self._earlier = attempts_of(ledger)
        self._committed_at = time.monotonic()

    def work(self, items: Sequence[Item], report: Report) -> bool:
        """Compute items and commit them; returns whether SIGTERM ended it early."""
        by_position = {item.position: item for item in items}
        writes_dicom = self.settings.sr != "none" or self.settings.key_images
        with _noting_sigterm() as terminated:
            computed, meter = self.computer.begin(
                items, keep_volumes=writes_dicom, is_stopped=lambda: bool(terminated)
            )
            for done in computed:
                item = by_position[done.position]
                outcomes = self._outcomes(item, done)
                self._finished.append((item, outcomes, done))
                n_lesions = sum(len(outcome.done) for outcome in outcomes)
                self._n_lesions += n_lesions
                meter.count(len(outcomes), n_lesions)
                report(_event(item, outcomes))
                waited_s = time.monotonic() - self._committed_at
                if self._n_lesions >= _LESIONS_PER_PART or waited_s >= _SECONDS_PER_PART:
                    self._commit(meter)
            self._commit(meter)
        return bool(terminated)

    def _outcomes(self, item: Item, done: ItemOutcome) -> list[CaseOutcome]:
        if done.failure is not None:
            failure = done.failure
            case = Case(item.item_id)
            return [CaseOutcome(case, CaseState.FAILED, failure.reason, failure.message)]
        gathered = (gather_shifts(outcome, self.settings.jitter) for outcome in done.outcomes)
        return [predict_case(outcome, self.heads) for outcome in gathered]

    def _commit(self, meter: Meter) -> None:
        """Write what is finished as one part, then say so in the ledger."""
        self._committed_at = time.monotonic()
        if not self._finished:
            return
        with meter.writing():
            files = self._write_part()
            entries = [self._entry(item, outcomes) for item, outcomes, _ in self._finished]
        facts = attempts_fact([*self._earlier, meter.attempt()])
        with meter.writing():
            self.ledger.commit(self._next_part, files, entries, **facts)
        self._next_part += 1
        self._finished, self._n_lesions = [], 0

    def _write_part(self) -> dict[str, str]:
        tables: dict[str, list] = {kind: [] for kind in KINDS}
        for item, outcomes, done in self._finished:
            self._failures[item.item_id] = self._write_dicom(outcomes)
            discard(item.folder)
            features = tabulate_features(outcomes, self._origin, self.encoder.n_features)
            tables["features"].append((item.item_id, features))
            cases = tabulate_cases(outcomes, done.verdicts, self._origin)
            tables["cases"].append((item.item_id, cases))
            if self.heads:
                predictions = tabulate_predictions(outcomes, self._origin)
                tables["predictions"].append((item.item_id, predictions))
            if done.skipped:
                tables["skipped"].append((item.item_id, tabulate_skipped(done.skipped)))
        return write_part(self.output, self._next_part, tables)

    def _write_dicom(self, outcomes: Sequence[CaseOutcome]) -> list[str]:
        """Write what leaves as DICOM; returns a sentence for everything that could not."""
        reports = write_dicom(
            self.output, outcomes, self.encoder, self.configuration, self.settings
        )
        return reports.failures if reports else []

    def _entry(self, item: Item, outcomes: Sequence[CaseOutcome]) -> Entry:
        state, reason, message = _worst(outcomes)
        failures = self._failures.pop(item.item_id, [])
        if failures and state == CaseState.DONE:
            state, reason, message = CaseState.PARTIAL.value, REPORT_FAILED, failures[0]
        return Entry(
            item_id=item.item_id,
            position=item.position,
            identity=item.identity,
            configuration=self.digest,
            state=state,
            reason=reason,
            message=message,
            n_lesions=sum(len(outcome.lesions) for outcome in outcomes),
            n_done=sum(len(outcome.done) for outcome in outcomes),
            attempt=self._attempts.get(item.item_id, 0) + 1,
            part=self._next_part,
            finished_at=utc_now(),
        )


def _worst(outcomes: Sequence[CaseOutcome]) -> tuple[str, str, str]:
    """State, reason and sentence of the case that ended worst; an item may have none."""
    for state in _WORST_FIRST:
        for outcome in outcomes:
            if outcome.state is state:
                return state.value, outcome.reason, outcome.message
    return NO_CASE, "", ""


def _digest(
    configuration: Configuration, encoder: EncoderFacts, settings: Settings, heads: Sequence[Head]
) -> str:
    """Hash everything that can change a row of the tables."""
    parts = [
        configuration.model_dump(mode="json"),
        encoder.engine,
        [head.card.model_dump(mode="json") for head in heads],
        [
            hashlib.sha256(array.tobytes()).hexdigest()
            for head in heads
            for layer in head.layers
            for array in (layer.weight, layer.bias)
        ],
        settings.jitter,
        settings.sr,
        settings.sr_features,
        settings.key_images,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _event(item: Item, outcomes: Sequence[CaseOutcome]) -> dict[str, Any]:
    state, reason, message = _worst(outcomes)
    return {
        "event": "case",
        "case_id": item.item_id,
        "state": state,
        "reason": reason,
        "message": message,
        "n_lesions": sum(len(outcome.lesions) for outcome in outcomes),
        "n_done": sum(len(outcome.done) for outcome in outcomes),
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
