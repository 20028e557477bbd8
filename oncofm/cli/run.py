"""``oncofm run``: images in, features out."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from oncofm.cli.progress import show_progress

if TYPE_CHECKING:
    from oncofm.workflow.job import JobResult


class Per(StrEnum):
    """What gets a seed of its own."""

    segment = "segment"
    component = "component"


class Profile(StrEnum):
    """How a patch is made from the volume."""

    mhub = "mhub"
    paper = "paper"


class Precision(StrEnum):
    """Arithmetic of the encoder."""

    fp32 = "fp32"
    bf16 = "bf16"


WEIGHTS = typer.Option(
    None, "--weights", help="Weights file. Default: $ONCOFM_WEIGHTS, then where `oncofm weights "
    "fetch` put them.",
)  # fmt: skip
SHA256 = typer.Option(None, "--sha256", help="SHA-256 that the weights file must have.")
PROFILE = typer.Option(Profile.mhub, "--profile", help="Preprocessing profile.")
DEVICE = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N.")
PRECISION = typer.Option(Precision.fp32, "--precision", help="Arithmetic of the encoder.")
BATCH_SIZE = typer.Option(None, "--batch-size", min=1, help="Patches per pass of the network.")
JSON_PROGRESS = typer.Option(False, "--json-progress", help="Report progress as JSON lines.")
DEBUG = typer.Option(False, "--debug", help="Show tracebacks of failed lesions.")


def run(
    inputs: list[Path] = typer.Argument(
        ..., metavar="INPUT", help="Folders or zip archives of DICOM, or volume files."
    ),
    output: Path = typer.Argument(..., metavar="OUTPUT", help="Folder for the results."),
    weights: Path | None = WEIGHTS,
    sha256: str | None = SHA256,
    seeds: Path | None = typer.Option(
        None,
        "--seeds",
        help="Seed table (CSV, JSON lines) or label mask (NIfTI, NRRD, MHA) instead of the "
        "DICOM SEGs in INPUT.",
    ),
    per: Per = typer.Option(Per.segment, "--per", help="One seed per segment or component."),
    min_volume: float = typer.Option(
        0.0, "--min-volume", min=0.0, help="Smallest component in mm3 (with --per component)."
    ),
    threshold: float = typer.Option(
        0.5, "--threshold", min=0.001, max=1.0, help="Fraction that counts in a FRACTIONAL SEG."
    ),
    profile: Profile = PROFILE,
    device: str = DEVICE,
    precision: Precision = PRECISION,
    batch_size: int | None = BATCH_SIZE,
    json_progress: bool = JSON_PROGRESS,
    debug: bool = DEBUG,
) -> int:
    """Compute the features of every lesion in INPUT.

    INPUT holds CT series and the DICOM SEGs that mark the lesions, in any folder layout. OUTPUT
    gets features.parquet and features.csv (a row per lesion), cases.csv (a state and a reason
    for everything that was seen) and run.json.
    """
    from oncofm.workflow.job import run_job
    from oncofm.workflow.settings import Settings

    show_tracebacks(debug)
    settings = Settings(
        weights=weights,
        expected_sha256=sha256,
        profile=profile.value,
        per=per.value,
        min_volume_mm3=min_volume,
        seg_threshold=threshold,
        device=device,
        precision=precision.value,
        batch_size=batch_size,
    )
    with show_progress(json_progress) as report:
        result = run_job(inputs, output, settings, seeds=seeds, report=report)
    print_summary(result, output)
    return result.manifest.summary.exit_code


def show_tracebacks(debug: bool) -> None:
    """Let failures of ours show where they happened."""
    import logging

    if debug:
        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
        logging.getLogger("oncofm").setLevel(logging.DEBUG)


def print_summary(result: "JobResult", output: Path) -> None:
    """Say on standard error what is done and, in full, what is not."""
    for outcome in result.outcomes:
        if outcome.message:
            typer.echo(f"{outcome.state.value}: {outcome.message}", err=True)
    for verdict in result.verdicts:
        if verdict.level == "file":
            typer.echo(f"rejected: {verdict.error}", err=True)
    if not result.outcomes:
        typer.echo("The input holds no CT volume and no DICOM SEG; see cases.csv.", err=True)
    cases, lesions = result.manifest.summary.cases, result.manifest.summary.lesions
    typer.echo(
        f"{cases['done']} of {sum(cases.values())} cases done, {lesions['done']} of "
        f"{sum(lesions.values())} lesions; results in {output}",
        err=True,
    )
