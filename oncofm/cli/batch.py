"""``oncofm batch``: a whole study, resumable."""

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from oncofm.cli import run as run_options
from oncofm.cli.process import show_tracebacks
from oncofm.cli.progress import show_batch_progress
from oncofm.cli.run import Engine, Per, Precision, Profile, ReportFeatures, ReportStyle, SeedKind
from oncofm.errors import SettingInvalidError


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
    weights: Path | None = run_options.WEIGHTS,
    sha256: str | None = run_options.SHA256,
    kinds: list[SeedKind] | None = run_options.KINDS,
    labels: list[str] | None = run_options.LABELS,
    per: Per = run_options.PER,
    min_volume: float = run_options.MIN_VOLUME,
    threshold: float = run_options.THRESHOLD,
    heads: list[str] | None = run_options.HEADS,
    jitter: int = run_options.JITTER,
    sr: ReportStyle = run_options.SR,
    sr_features: ReportFeatures = run_options.SR_FEATURES,
    key_images: bool = run_options.KEY_IMAGES,
    profile: Profile = run_options.PROFILE,
    engine: Engine = run_options.ENGINE,
    device: str = run_options.DEVICE,
    precision: Precision = run_options.PRECISION,
    batch_size: int | None = run_options.BATCH_SIZE,
    json_progress: bool = run_options.JSON_PROGRESS,
    debug: bool = run_options.DEBUG,
) -> int:
    """Compute the features of every case of a manifest or folder.

    OUT gets features.parquet, cases.csv, predictions.csv and run.json when all is done. Until
    then it holds parts and a ledger: ended by whatever, the same command with --resume goes on.
    """
    from oncofm.workflow.batch.run import BatchOptions, run_batch
    from oncofm.workflow.settings import Settings

    if debug:
        show_tracebacks()
    if cluster and not cluster.startswith("dask://"):
        raise SettingInvalidError(f"--cluster {cluster} is not of the form dask://HOST:PORT.")
    settings = Settings(
        weights=weights,
        expected_sha256=sha256,
        profile=profile.value,
        seed_kinds=tuple(kind.value for kind in kinds or ()),
        labels=tuple(labels or ()),
        heads=tuple(heads or ()),
        jitter=jitter,
        sr=sr.value,
        sr_features=sr_features.value,
        key_images=key_images,
        per=per.value,
        min_volume_mm3=min_volume,
        seg_threshold=threshold,
        engine=engine.value,
        device=device,
        precision=precision.value,
        batch_size=batch_size,
    )
    options = BatchOptions(
        n_readers=workers,
        time_limit_s=time_limit,
        resume=resume,
        retry_failed=retry_failed,
        limit=limit,
        shard=_shard(shard),
        cluster=cluster,
    )
    with show_batch_progress(json_progress, metrics) as report:
        result = run_batch(source, output, settings, options, report)
    if result.manifest is None:
        typer.echo(f"ended early; go on with --resume; finished cases are in {output}", err=True)
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

    from oncofm.workflow.batch.status import batch_status

    found = batch_status(output)
    if json_lines:
        typer.echo(json.dumps(asdict(found)))
        return 0
    typer.echo(f"{found.n_finished} of {found.n_items} items finished, {found.n_left} left")
    for state, count in found.states.items():
        typer.echo(f"  {state:<10} {count:>8}")
    typer.echo(f"{found.n_lesions_done} of {found.n_lesions} lesions done")
    for reason, count in found.reasons.items():
        typer.echo(f"  {reason:<32} {count:>8}")
    for item_id, message in found.failures:
        typer.echo(f"failed: {item_id}: {message}")
    return 0


def merge(
    folders: list[Path] = typer.Argument(..., metavar="OUT...", help="Output folders of batches."),
    output: Path = typer.Option(..., "--output", "-o", help="Folder for the tables."),
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


_INDEX_VARIABLES = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("JOB_COMPLETION_INDEX", "ONCOFM_SHARDS", ""),
)
"""Index of the shard, number of shards, and the first index: of Slurm and of Kubernetes, whose
indexed jobs do not say how many they are."""


def _shard(text: str) -> tuple[int, int]:
    import os

    if text == "auto":
        for index, count, first in _INDEX_VARIABLES:
            if index in os.environ:
                start = int(os.environ.get(first, 0) or 0)
                text = f"{int(os.environ[index]) - start}/{os.environ.get(count, '')}"
                break
    number, _, n_shards = text.partition("/")
    if not (number.isdecimal() and n_shards.isdecimal() and int(number) < int(n_shards)):
        raise SettingInvalidError(
            f"--shard {text} is not of the form I/N with I from 0 to N - 1; auto needs the "
            "variables SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, or JOB_COMPLETION_INDEX "
            "and ONCOFM_SHARDS."
        )
    return int(number), int(n_shards)
