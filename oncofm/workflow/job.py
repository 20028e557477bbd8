"""The main job: a folder of images in, tables and a manifest out.

What reads images and writes tables is imported inside the functions: the encoder starts to load
first, because most of its loading needs no Python and so runs beside those imports.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncofm.results.files import prepare_output_folder
from oncofm.workflow.settings import MODEL, Settings
from oncofm.workflow.timing import Timing

if TYPE_CHECKING:
    from oncofm.biomarkers.head import Head
    from oncofm.encoders.encoder import Encoder
    from oncofm.results.manifest import RunManifest
    from oncofm.workflow.case import CaseOutcome, InputVerdict
    from oncofm.workflow.gather import Worklist

Report = Callable[[dict[str, Any]], None]
"""Takes progress events."""


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

    manifest: "RunManifest"
    outcomes: "tuple[CaseOutcome, ...]"
    verdicts: "tuple[InputVerdict, ...]"


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
        Folder for ``features.parquet``, ``features.csv``, ``cases.csv``, ``run.json``, what the
        settings ask for and, if something was no DICOM, ``skipped.csv``. Files of these names are
        replaced.
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
    heads = _prepare(output, settings)
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as loader:
        # Reading 0.7 GB of weights overlaps with the other imports and reading the headers.
        load_encoder = start_loading(loader, settings, timing)
        return _run(inputs, output, settings, heads, load_encoder, timing, seeds, report)


def run_job_with(
    load_encoder: "Callable[[], Encoder]", inputs: Sequence[Path], output: Path, settings: Settings
) -> JobResult:
    """Do what `run_job` does with an encoder that stays loaded between jobs.

    Parameters
    ----------
    load_encoder : callable
        Gives the encoder, made as the settings say.
    inputs, output, settings
        As for `run_job`.
    """
    heads = _prepare(output, settings)
    return _run(inputs, output, settings, heads, load_encoder, Timing(), None, lambda event: None)


def _prepare(output: Path, settings: Settings) -> "tuple[Head, ...]":
    """Find what can be wrong before anything is loaded."""
    prepare_output_folder(output)
    if settings.revises is not None:
        from oncofm.workflow.write import check_predecessors

        check_predecessors(output, settings)
    return load_heads(settings)


def _run(
    inputs: Sequence[Path],
    output: Path,
    settings: Settings,
    heads: "Sequence[Head]",
    load_encoder: "Callable[[], Encoder]",
    timing: Timing,
    seeds: Path | None,
    report: Report,
) -> JobResult:
    with timing.part("import"):
        import pyarrow.csv
        import pyarrow.parquet  # noqa: F401 - writing them would wait for that after the encoder

        from oncofm.workflow.gather import gather
        from oncofm.workflow.survey import survey_inputs
        from oncofm.workflow.write import check_free_space, write_results
    with timing.part("discover"):
        worklist = gather(survey_inputs(inputs, seeds), settings)
    check_free_space(output, worklist, settings)
    outcomes = encode(worklist, load_encoder, settings, timing, report, heads)
    manifest = write_results(output, worklist, outcomes, load_encoder(), settings, timing, heads)
    report({"event": "end", **manifest.summary.model_dump()})
    return JobResult(manifest, tuple(outcomes), worklist.verdicts)


def load_heads(settings: Settings) -> "tuple[Head, ...]":
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
) -> "Callable[[], Encoder]":
    """Start to load the encoder in the background; what is missing is said at once.

    What it imports is imported before this returns: two threads that import take turns, and the
    encoder would be ready later.

    Raises
    ------
    WeightsMissingError
        If there is no weights file, before anything heavy is imported.
    """
    # numpy's algebra is idle here, but its threads would spin for a while after each start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from oncofm.encoders.weights import find_weights

    path = None
    if settings.random_seed is None:
        path = find_weights(MODEL, settings.weights)
    with timing.part("import_engine"):
        from oncofm.encoders.load import import_engine

        import_engine(MODEL, path, device=settings.device, engine=settings.engine)

    def load() -> "Encoder":
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
                engine=settings.engine,
            )

    return loader.submit(load).result


def encode(
    worklist: "Worklist",
    load_encoder: "Callable[[], Encoder]",
    settings: Settings,
    timing: Timing,
    report: Report,
    heads: "Sequence[Head]" = (),
) -> "list[CaseOutcome]":
    """Compute the features of every lesion of a worklist, and what heads say about them.

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
        What is predicted from the features.

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
        from oncofm.biomarkers.head import require_fit

        encoder = load_encoder()
        for head in heads:
            require_fit(head, encoder.weights.sha256, settings.profile, encoder.n_features)
    n_lesions = sum(len(case.seeds) for case in worklist.cases)
    report({"event": "start", "n_cases": len(worklist.cases), "n_lesions": n_lesions})
    outcomes = []
    with timing.part("sample_and_encode"):
        for outcome in _run_cases(worklist, load_encoder, settings):
            outcomes.append(_with_predictions(outcome, heads))
            report(_case_event(outcome))
    with timing.part("wait_for_encoder"):
        load_encoder()
    return outcomes


def _with_predictions(outcome: "CaseOutcome", heads: "Sequence[Head]") -> "CaseOutcome":
    if not heads:
        return outcome
    from oncofm.workflow.predict import predict_case

    return predict_case(outcome, heads)


def _run_cases(
    worklist: "Worklist", load_encoder: "Callable[[], Encoder]", settings: Settings
) -> "Iterator[CaseOutcome]":
    from oncofm.imaging.patch import PatchSpec
    from oncofm.workflow.jitter import run_cases_shifted
    from oncofm.workflow.run import run_cases

    spec = PatchSpec(profile=settings.profile)
    if settings.jitter == 0:
        return run_cases(worklist.cases, load_encoder, spec)
    return run_cases_shifted(worklist.cases, load_encoder, spec, settings.jitter)


def _case_event(outcome: "CaseOutcome") -> dict[str, Any]:
    return {
        "event": "case",
        "case_id": outcome.case.case_id,
        "state": outcome.state.value,
        "reason": outcome.reason,
        "message": outcome.message,
        "n_lesions": len(outcome.lesions),
        "n_done": len(outcome.done),
    }
