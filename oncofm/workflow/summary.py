"""The last words of a run: what is done and, in full, what is not."""

from collections.abc import Iterator

from oncofm.workflow.job import JobResult


def summarise(result: JobResult) -> Iterator[str]:
    """Say how a run ended, a sentence for everything that is not done.

    Parameters
    ----------
    result : JobResult
        The run.

    Yields
    ------
    str
        Lines; the last one counts.
    """
    for outcome in result.outcomes:
        if outcome.message:
            yield f"{outcome.state.value}: {outcome.message}"
    for verdict in result.verdicts:
        if verdict.level == "file":
            yield f"rejected: {verdict.error}"
    if result.manifest.reports is not None:
        yield from (f"failed: {failure}" for failure in result.manifest.reports.failures)
    if not result.outcomes:
        yield "The input holds no CT volume and nothing that marks lesions; see cases.csv."
    cases, lesions = result.manifest.summary.cases, result.manifest.summary.lesions
    yield (
        f"{cases['done']} of {sum(cases.values())} cases done, {lesions['done']} of "
        f"{sum(lesions.values())} lesions"
    )
