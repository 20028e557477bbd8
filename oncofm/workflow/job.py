"""The main job: a folder of images in, tables and a manifest out."""

import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncofm.biomarkers.head import Head, require_fit
from oncofm.encoders.encoder import Encoder
from oncofm.errors import OutputNotWritableError
from oncofm.imaging.patch import PatchSpec
from oncofm.results.files import prepare_output_folder
from oncofm.results.manifest import (
    Configuration,
    Inputs,
    Reports,
    RunManifest,
    Summary,
    describe_model,
    describe_software,
    provenance,
    utc_now,
    write_manifest,
)
from oncofm.results.table import ResultTable, table_from_rows, write_table
from oncofm.workflow.case import CaseOutcome, CaseState, InputVerdict
from oncofm.workflow.gather import Worklist, gather
from oncofm.workflow.run import run_cases
from oncofm.workflow.settings import MODEL, Settings
from oncofm.workflow.survey import survey_inputs
from oncofm.workflow.tabulate import tabulate_cases, tabulate_features, tabulate_predictions

EXIT_DONE, EXIT_USAGE, EXIT_SOME_NOT_DONE, EXIT_NONE_DONE = 0, 1, 2, 3

_BYTES_PER_LESION = 160_000
"""Upper bound of what one lesion adds to the tables: 4096 features as text, twice in an MHub
workflow, and as binary."""
_BYTES_PER_RUN = 2_000_000

REPORTS = "sr"
"""Folder of structured reports below the output."""

Report = Callable[[dict[str, Any]], None]


@dataclass
class Timing:
    """How long a run and its parts take, in seconds."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the run."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Attributes
    ----------
    manifest : RunManifest
        As in ``run.json``; ``summary.exit_code`` is the promised exit code.
    outcomes : tuple of CaseOutcome
        Every case.
    verdicts : tuple of InputVerdict
        Everything that was seen and is no case.
    """

    manifest: RunManifest
    outcomes: tuple[CaseOutcome, ...]
    verdicts: tuple[InputVerdict, ...]


def run_job(
    inputs: Sequence[Path],
    output: Path,
    settings: Settings,
    *,
    seeds: Path | None = None,
    report: Report = lambda event: None,
) -> JobResult:
    """Find the cases in the inputs, compute their features, write every output.

    Parameters
    ----------
    inputs : sequence of pathlib.Path
        Folders, zip archives or files. Never changed.
    output : pathlib.Path
        Folder for ``features.parquet``, ``features.csv``, ``cases.csv``, ``run.json`` and, if
        something was no DICOM, ``skipped.csv``. Files of these names are replaced.
    settings : Settings
        What the user chose.
    seeds : pathlib.Path or None
        Seed table, label mask, point file or DICOM object; without it the SEG, RTSTRUCT and SR
        objects among the inputs say where lesions are.
    report : callable
        Takes progress events.

    Returns
    -------
    JobResult
        What was written, in memory.

    Raises
    ------
    SetupError
        Before or instead of any result: missing input, weights, device, unwritable output.
    """
    timing = Timing()
    prepare_output_folder(output)
    heads = load_heads(settings)
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as loader:
        # Importing torch and reading 0.7 GB of weights overlaps with reading the headers.
        load_encoder = start_loading(loader, settings, timing)
        with timing.part("discover"):
            worklist = gather(survey_inputs(inputs, seeds), settings)
        check_free_space(output, worklist)
        outcomes = encode(worklist, load_encoder, settings, timing, report, heads)
        encoder = load_encoder()
    manifest = write_results(output, worklist, outcomes, encoder, settings, timing, heads)
    report({"event": "end", **manifest.summary.model_dump()})
    return JobResult(manifest, tuple(outcomes), worklist.verdicts)


def encode(
    worklist: Worklist,
    load_encoder: Callable[[], Encoder],
    settings: Settings,
    timing: Timing,
    report: Report,
    heads: Sequence[Head] = (),
) -> list[CaseOutcome]:
    """Compute the features of every lesion of a worklist.

    Parameters
    ----------
    worklist : Worklist
        What there is to do.
    load_encoder : callable
        From `start_loading`; waited for even if no lesion can be computed, so that missing
        weights or a wrong device are never overlooked.
    settings : Settings
        What the user chose.
    timing : Timing
        Takes the seconds.
    report : callable
        Takes progress events.
    heads : sequence of Head
        That the features are for.

    Returns
    -------
    list of CaseOutcome
        One per case.

    Raises
    ------
    HeadMismatchError
        Before the work, if a head was not made for these features.
    """
    if heads:
        encoder = load_encoder()
        for head in heads:
            require_fit(head, encoder.weights.sha256, settings.profile, encoder.n_features)
    n_lesions = sum(len(case.seeds) for case in worklist.cases)
    report({"event": "start", "n_cases": len(worklist.cases), "n_lesions": n_lesions})
    outcomes = []
    with timing.part("sample_and_encode"):
        for outcome in run_cases(worklist.cases, load_encoder, PatchSpec(profile=settings.profile)):
            outcomes.append(outcome)
            report(_case_event(outcome))
    with timing.part("wait_for_encoder"):
        load_encoder()
    return outcomes


def write_results(
    output: Path,
    worklist: Worklist,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder,
    settings: Settings,
    timing: Timing,
    heads: Sequence[Head] = (),
) -> RunManifest:
    """Write the tables and the manifest of a run.

    Parameters
    ----------
    output : pathlib.Path
        Folder that exists and can be written.
    worklist, outcomes : Worklist, sequence of CaseOutcome
        What was to be done, and how it ended.
    encoder : Encoder
        What the features were computed with.
    settings : Settings
        What the user chose.
    timing : Timing
        Time per step; that of writing is added.
    heads : sequence of Head
        What is predicted from the features.

    Returns
    -------
    RunManifest
        As in ``run.json``, which is written last: where it is, everything is.

    Raises
    ------
    OutputNotWritableError
        If a file cannot be written.
    """
    configuration = configure(encoder, settings)
    with timing.part("write"):
        _write_tables(output, worklist, outcomes, encoder, configuration)
        _write_predictions(output, outcomes, encoder, configuration, heads)
    reports = None
    for old in (output / REPORTS).glob("*-*.dcm"):
        old.unlink()  # of an earlier run, as for predictions
    if settings.sr != "none":
        from oncofm.workflow.reports import write_reports

        with timing.part("write_reports"):
            reports = write_reports(output / REPORTS, outcomes, configuration, heads, settings.sr)
    seconds = timing.seconds | {"total": round(time.perf_counter() - timing.started, 3)}
    manifest = _describe_run(worklist, outcomes, encoder, configuration, seconds, reports)
    write_manifest(manifest, output / "run.json")
    return manifest


def load_heads(settings: Settings) -> tuple[Head, ...]:
    """Load the heads that the user named.

    Raises
    ------
    SetupError
        If one does not exist, cannot be used, or is for another model.
    """
    if not settings.heads:
        return ()
    from oncofm.biomarkers.head import load_head

    return tuple(load_head(name, MODEL) for name in settings.heads)


def start_loading(
    loader: ThreadPoolExecutor, settings: Settings, timing: Timing
) -> Callable[[], Encoder]:
    """Start to load the encoder in the background; what is missing is said at once.

    Raises
    ------
    WeightsMissingError
        If there is no weights file, before anything heavy is imported.
    """
    from oncofm.encoders.weights import find_weights

    path = None
    if settings.random_seed is None:
        path = find_weights(MODEL, settings.weights)

    def load() -> Encoder:
        with timing.part("load_encoder"):
            from oncofm.encoders import load_encoder

            return load_encoder(
                MODEL,
                path,
                device=settings.device,
                precision=settings.precision,
                batch_size=settings.batch_size,
                expected_sha256=settings.expected_sha256,
                random_seed=settings.random_seed,
            )

    return loader.submit(load).result


def configure(encoder: Encoder, settings: Settings) -> Configuration:
    """Gather what identifies a configuration: everything that can change a feature."""
    return Configuration(
        model=encoder.weights.model,
        weights_sha256=encoder.weights.sha256,
        profile=settings.profile,
        precision=encoder.precision,
        seed_kinds=settings.seed_kinds,
        labels=settings.labels,
        per=settings.per,
        min_volume_mm3=settings.min_volume_mm3,
        seg_threshold=settings.seg_threshold,
    )


def exit_code(states: Sequence[CaseState], n_broken: int = 0) -> int:
    """0 if every case is done and no file or report failed, 3 if no case is done, else 2."""
    if not states or not any(state in (CaseState.DONE, CaseState.PARTIAL) for state in states):
        return EXIT_NONE_DONE
    all_done = not n_broken and all(state is CaseState.DONE for state in states)
    return EXIT_DONE if all_done else EXIT_SOME_NOT_DONE


def check_free_space(output: Path, worklist: Worklist) -> None:
    """Make sure that the tables will fit.

    Raises
    ------
    OutputNotWritableError
        If they might not.
    """
    n_lesions = sum(len(case.seeds) for case in worklist.cases)
    needed = _BYTES_PER_RUN + n_lesions * _BYTES_PER_LESION
    free = shutil.disk_usage(output).free
    if free < needed:
        raise OutputNotWritableError(
            f"Output folder {output} has {free / 1e6:.1f} MB free, and the tables of "
            f"{n_lesions} lesions need up to {needed / 1e6:.1f} MB; free space first."
        )


def _write_tables(
    output: Path,
    worklist: Worklist,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder,
    configuration: Configuration,
) -> None:
    origin = provenance(encoder, configuration)
    features = tabulate_features(outcomes, origin, encoder.n_features)
    write_table(features, output / "features.parquet")
    write_table(features, output / "features.csv")
    write_table(tabulate_cases(outcomes, worklist.verdicts, origin), output / "cases.csv")
    skipped = output / "skipped.csv"
    if worklist.skipped:
        rows = [{"file": file.name, "reason": file.reason} for file in worklist.skipped]
        write_table(ResultTable(table_from_rows(rows, {"file": str, "reason": str})), skipped)
    else:
        skipped.unlink(missing_ok=True)


def _write_predictions(
    output: Path,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder,
    configuration: Configuration,
    heads: Sequence[Head],
) -> None:
    target = output / "predictions.csv"
    if heads:
        origin = provenance(encoder, configuration)
        write_table(tabulate_predictions(outcomes, heads, origin), target)
    else:
        target.unlink(missing_ok=True)  # an older one would look like a result of this run


def _describe_run(
    worklist: Worklist,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder,
    configuration: Configuration,
    seconds: dict[str, float],
    reports: Reports | None,
) -> RunManifest:
    lesions = [lesion for outcome in outcomes for lesion in outcome.lesions]
    n_broken = sum(1 for verdict in worklist.verdicts if verdict.level == "file")
    states = [outcome.state for outcome in outcomes]
    seg_uids = {lesion.seed.source.sop_instance_uid for lesion in lesions} - {""}
    return RunManifest(
        software=describe_software(),
        model=describe_model(encoder),
        configuration=configuration,
        configuration_hash=configuration.digest(),
        inputs=Inputs(
            series_uids=sorted({outcome.case.series_uid for outcome in outcomes} - {""}),
            segmentation_uids=sorted(seg_uids),
            n_files_skipped=len(worklist.skipped),
        ),
        summary=Summary(
            cases=_count(outcome.state for outcome in outcomes),
            lesions=_count(lesion.state for lesion in lesions),
            left_out=dict(Counter(verdict.error.code for verdict in worklist.verdicts)),
            exit_code=exit_code(states, n_broken + (len(reports.failures) if reports else 0)),
        ),
        reports=reports,
        seconds=seconds,
        peak_memory_mib=round(peak_memory_mib(), 1),
        finished_at=utc_now(),
    )


def peak_memory_mib() -> float:
    """Largest resident set of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux that starts at what the parent had when it forked.
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        found = next((line for line in lines if line.startswith("VmHWM:")), None)
        if found is not None:
            return int(found.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _count(states: Iterator[CaseState]) -> dict[str, int]:
    counted = Counter(states)
    return {state.value: counted[state] for state in CaseState}


def _case_event(outcome: CaseOutcome) -> dict[str, Any]:
    return {
        "event": "case",
        "case_id": outcome.case.case_id,
        "state": outcome.state.value,
        "reason": outcome.reason,
        "message": outcome.message,
        "n_lesions": len(outcome.lesions),
        "n_done": len(outcome.done),
    }
