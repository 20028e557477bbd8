"""``oncofm batch``: a whole study, resumable."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from oncofm.cli.options import DEBUG, JSON_PROGRESS, takes_settings
from oncofm.cli.process import EXIT_INTERRUPTED, show_tracebacks
from oncofm.cli.progress import show_batch_progress
from oncofm.errors import SettingInvalidError

if TYPE_CHECKING:
    from oncofm.results.manifest import Throughput
    from oncofm.workflow.settings import Settings


_GO_ON = "go on with --resume; finished cases are in"


class _RunUnlessNamed(TyperGroup):
    """``oncofm batch FOLDER OUT`` is short for ``oncofm batch run FOLDER OUT``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *self.get_help_option_names(ctx)}
        if args and args[0] not in known:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunUnlessNamed,
    help="Compute the features of many cases; `oncofm batch FOLDER OUT` is `oncofm batch run`.",
    no_args_is_help=True,
)


@app.command()
@takes_settings
def run(
    source: Path = typer.Argument(
        ..., metavar="MANIFEST|FOLDER", help="Table with image_path per row, or folder of DICOM."
    ),
    output: Path = typer.Argument(
        ..., metavar="OUT", help="Folder for the results, on a local disk."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with what OUT holds."),
    retry_failed: bool = typer.Option(
        False, "--retry-failed", help="With --resume, also try again what failed."
    ),
    workers: int = typer.Option(2, "--workers", min=1, help="Processes that read and decode."),
    shard: str = typer.Option(
        "0/1",
        "--shard",
        help="I/N: every N-th case from the I-th on, counted from 0; auto: from the array index of "
        "Slurm or Kubernetes. Each shard needs an OUT of its own.",
    ),
    limit: int | None = typer.Option(None, "--limit", min=1, help="Stop after as many cases."),
    time_limit: float = typer.Option(
        600.0, "--time-limit", min=1.0, help="Seconds that reading one case may take."
    ),
    cluster: str = typer.Option(
        "",
        "--cluster",
        metavar="dask://HOST:PORT",
        help="Let the workers of a dask scheduler compute; they need weights and inputs under the "
        "same paths.",
    ),
    metrics: Path | None = typer.Option(
        None, "--metrics", help="File for Prometheus (node exporter's text format), kept fresh."
    ),
    json_progress: bool = JSON_PROGRESS,
    debug: bool = DEBUG,
    *,
    settings: "Settings",
) -> int:
    """Compute the features of every case of a manifest or folder.

    OUT gets features.parquet, cases.csv, predictions.csv, run.json ... when all is done. Until
    then it holds parts and a ledger: ended by whatever, the same command with --resume goes on.
    """
    from oncofm.workflow.batch.options import BatchOptions
    from oncofm.workflow.batch.run import run_batch

    if debug:
        show_tracebacks()
    if cluster and not cluster.startswith("dask://"):
        raise SettingInvalidError(f"--cluster {cluster} is not of the form dask://HOST:PORT.")
    options = BatchOptions(
        n_readers=workers,
        time_limit_s=time_limit,
        resume=resume,
        retry_failed=retry_failed,
        limit=limit,
        shard=_shard(shard),
        cluster=cluster,
    )
    with show_batch_progress(json_progress, metrics) as progress:
        try:
            result = run_batch(source, output, settings, options, progress)
        except KeyboardInterrupt:
            typer.echo(f"interrupted; {_GO_ON} {output}", err=True)
            return EXIT_INTERRUPTED
    if result.manifest is None:
        typer.echo(f"ended early; {_GO_ON} {output}", err=True)
    else:
        cases, lesions = result.manifest.summary.cases, result.manifest.summary.lesions
        typer.echo(
            f"{cases['done']} of {sum(cases.values())} cases done, {lesions['done']} of "
            f"{sum(lesions.values())} lesions\nresults in {output}",
            err=True,
        )
    return result.exit_code


@app.command()
def status(
    output: Path = typer.Argument(..., metavar="OUT", help="Output folder of a batch."),
    json_lines: bool = typer.Option(False, "--json", help="As one JSON object."),
) -> int:
    """Say how far a batch is, also while it runs."""
    import json
    from dataclasses import asdict

    from oncofm.results.report.markup import printable
    from oncofm.workflow.batch.status import batch_status

    found = batch_status(output)
    if json_lines:
        work = found.throughput and found.throughput.model_dump()
        typer.echo(json.dumps({**asdict(found), "throughput": work}))
        return 0
    typer.echo(f"{found.n_finished} of {found.n_items} items finished, {found.n_left} left")
    for state, count in found.states.items():
        typer.echo(f"  {state:<10} {count:>8}")
    typer.echo(f"{found.n_lesions_done} of {found.n_lesions} lesions done")
    for reason, count in found.reasons.items():
        typer.echo(f"  {reason:<32} {count:>8}")
    for item_id, message in found.failures:
        typer.echo(printable(f"failed: {item_id}: {message}"))
    if found.throughput is not None:
        typer.echo(_work(found.throughput))
    return 0


def _work(throughput: "Throughput") -> str:
    """Say in two lines how fast it went and what it took."""
    memory = ", ".join(f"{kind} {mib:.0f} MiB" for kind, mib in throughput.peak_memory_mib.items())
    return (
        f"{throughput.cases_per_s:.2f} cases/s, {throughput.lesions_per_s:.2f} lesions/s in "
        f"{throughput.seconds:.0f} s of work (attempts: {len(throughput.attempts)}), limited by "
        f"{throughput.limited_by}\npeak memory: {memory}"
    )


def merge(
    folders: list[Path] = typer.Argument(..., metavar="OUT...", help="Output folders of batches."),
    output: Path = typer.Option(
        ...,
        "--output",
        "-o",
        help="Folder for the tables; or a .parquet file for the features, the others beside it.",
    ),
) -> int:
    """Write the tables of several batches, such as the shards of a study, as one.

    Batches of other weights, profiles or precision are refused. Of an item that is in several
    batches the result that was computed last is taken.
    """
    from oncofm.workflow.batch.merge import merge_batches

    result = merge_batches(folders, output)
    if result.differences:
        typer.echo(f"the batches differ in {', '.join(result.differences)}", err=True)
    if result.n_duplicates:
        typer.echo(f"{result.n_duplicates} items were in several batches", err=True)
    typer.echo(f"{result.n_items} items, {result.counts.lesions['done']} lesions done", err=True)
    return result.counts.exit_code(0)


def _shard(text: str) -> tuple[int, int]:
    import re
    from contextlib import suppress

    if text == "auto":
        with suppress(KeyError, ValueError):
            text = _shard_of_array()
    form = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if form is None or int(form[1]) >= int(form[2]):
        raise SettingInvalidError(
            f"--shard {text[:40]} is not of the form I/N with I from 0 to N - 1; auto needs "
            "the variables SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, or "
            "JOB_COMPLETION_INDEX and ONCOFM_SHARDS."
        )
    return int(form[1]), int(form[2])


def _shard_of_array() -> str:
    """Read what Slurm or Kubernetes says of this task; jobs of the latter do not say how many."""
    import os

    if "ONCOFM_SHARDS" in os.environ:  # part of an array, or an indexed job
        index = os.environ.get("SLURM_ARRAY_TASK_ID") or os.environ["JOB_COMPLETION_INDEX"]
        return f"{index}/{os.environ['ONCOFM_SHARDS']}"
    first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
    count = int(os.environ["SLURM_ARRAY_TASK_COUNT"])
    if int(os.environ.get("SLURM_ARRAY_TASK_MAX", first + count - 1)) != first + count - 1:
        raise SettingInvalidError(
            "The array has gaps, so the number of shards is not known; name it in ONCOFM_SHARDS."
        )
    return f"{int(os.environ['SLURM_ARRAY_TASK_ID']) - first}/{count}"
