"""A run in the words of its manifest: configuration, counts, exit code."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from oncofm.biomarkers.head import Head
from oncofm.encoders.encoder import Encoder, EncoderFacts
from oncofm.results.manifest import (
    Configuration,
    Inputs,
    Reports,
    RunManifest,
    Summary,
    Throughput,
    describe_model,
    describe_software,
    utc_now,
)
from oncofm.workflow.case import CaseOutcome, CaseState
from oncofm.workflow.gather import Worklist
from oncofm.workflow.settings import Settings
from oncofm.workflow.timing import peak_memory_mib

EXIT_DONE, EXIT_USAGE, EXIT_SOME_NOT_DONE, EXIT_NONE_DONE = 0, 1, 2, 3


def configure(encoder: Encoder | EncoderFacts, settings: Settings) -> Configuration:
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


def describe_run(
    worklist: Worklist,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder | EncoderFacts,
    configuration: Configuration,
    seconds: dict[str, float],
    reports: Reports | None,
    heads: Sequence[Head],
) -> RunManifest:
    """Describe a run for ``run.json``; `seconds` are those of its parts."""
    lesions = [lesion for outcome in outcomes for lesion in outcome.lesions]
    n_broken = sum(1 for verdict in worklist.verdicts if verdict.level == "file")
    states = [outcome.state for outcome in outcomes]
    memory_mib = round(peak_memory_mib(), 1)
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
        heads=[head.card.name for head in heads],
        reports=reports,
        seconds=seconds,
        peak_memory_mib=memory_mib,
        throughput=_throughput(outcomes, seconds["total"], memory_mib),
        finished_at=utc_now(),
    )


def _throughput(outcomes: Sequence[CaseOutcome], seconds: float, memory_mib: float) -> Throughput:
    n_lesions = sum(len(outcome.done) for outcome in outcomes)
    now = utc_now()
    began = datetime.fromisoformat(now) - timedelta(seconds=round(seconds))
    return Throughput(
        n_cases=len(outcomes),
        n_lesions=n_lesions,
        seconds=seconds,
        cases_per_s=rate(len(outcomes), seconds),
        lesions_per_s=rate(n_lesions, seconds),
        started_at=began.isoformat(),
        ended_at=now,
        n_workers=1,
        peak_memory_mib={"main": memory_mib},
    )


def rate(n: int, seconds: float) -> float:
    """Say how many a second."""
    return round(n / seconds, 4) if seconds > 0 else 0.0


def _count(states: Iterable[CaseState]) -> dict[str, int]:
    counted = Counter(states)
    return {state.value: counted[state] for state in CaseState}
