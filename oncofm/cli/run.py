"""``oncofm run``: images in, features out."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from oncofm.cli.process import show_tracebacks
from oncofm.cli.progress import show_progress

if TYPE_CHECKING:
    from oncofm.workflow.job import JobResult
    from oncofm.workflow.settings import Settings


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


class Engine(StrEnum):
    """What runs the network."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"


class ReportStyle(StrEnum):
    """How a structured report says where a lesion is."""

    none = "none"
    auto = "auto"
    segment = "segment"
    point = "point"
    both = "both"


class ReportFeatures(StrEnum):
    """How many features structured reports hold."""

    none = "none"
    full = "full"


class SeedKind(StrEnum):
    """What says where the lesions are."""

    seg = "seg"
    rtstruct = "rtstruct"
    sr = "sr"
    points = "points"


SEEDS = typer.Option(
    None,
    "--seeds",
    help="Seed table (CSV, JSON lines, Parquet), points (JSON, 3D Slicer markups), label mask "
    "(NIfTI, NRRD, MHA) or DICOM SEG, RTSTRUCT or SR that lists the lesions.",
)
KINDS = typer.Option(
    None,
    "--from",
    help="Annotations in INPUT that count (may be repeated). Default: for each volume the first "
    "of SEG, RTSTRUCT and SR that it has.",
)
LABELS = typer.Option(
    None, "--label", help="Pattern of the segments, ROIs or points to use (may be repeated)."
)
PER = typer.Option(Per.segment, "--per", help="One seed per segment or component.")
MIN_VOLUME = typer.Option(
    0.0, "--min-volume", min=0.0, help="Smaller segments or components (mm3) give no seed."
)
THRESHOLD = typer.Option(
    0.5, "--threshold", min=0.001, max=1.0, help="Fraction that counts in a FRACTIONAL SEG."
)
WEIGHTS = typer.Option(
    None, "--weights", help="Weights file. Default: $ONCOFM_WEIGHTS, then where `oncofm weights "
    "fetch` put them.",
)  # fmt: skip
SHA256 = typer.Option(None, "--sha256", help="SHA-256 that the weights file must have.")
PROFILE = typer.Option(Profile.mhub, "--profile", help="Preprocessing profile.")
ENGINE = typer.Option(
    Engine.auto,
    "--engine",
    help="What runs the network; auto: OpenVINO on a CPU where `oncofm weights prepare` has made a "
    "model of these weights, else torch.",
)
DEVICE = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N.")
PRECISION = typer.Option(Precision.fp32, "--precision", help="Arithmetic of the encoder.")
BATCH_SIZE = typer.Option(None, "--batch-size", min=1, help="Patches per pass of the network.")
HEADS = typer.Option(
    None,
    "--head",
    metavar="NAME",
    help="Biomarker to predict: name of a head, or path of its folder (may be repeated).",
)
JITTER = typer.Option(
    0,
    "--jitter",
    min=0,
    help="With --head: mean and SD of each prediction over that many seeds, shifted by a normal "
    "distribution of 4 mm SD.",
)
SR = typer.Option(
    ReportStyle.none,
    "--sr",
    help="DICOM structured report of every CT series, in OUTPUT/sr: groups that refer to segments, "
    "or points. auto: segments where every lesion is one of one SEG.",
)
SR_FEATURES = typer.Option(
    ReportFeatures.none, "--sr-features", help="full: one more SR per lesion, with all features."
)
KEY_IMAGES = typer.Option(
    False, "--key-images", help="A DICOM picture of every lesion, in OUTPUT/key_images."
)
JSON_PROGRESS = typer.Option(False, "--json-progress", help="Report progress as JSON lines.")
DEBUG = typer.Option(False, "--debug", help="Show tracebacks of failed lesions.")


def run(
    inputs: list[Path] = typer.Argument(
        ..., metavar="INPUT", help="Folders or zip archives of DICOM, or volume files."
    ),
    output: Path = typer.Argument(..., metavar="OUTPUT", help="Folder for the results."),
    weights: Path | None = WEIGHTS,
    sha256: str | None = SHA256,
    workflow: str | None = typer.Option(
        None, "--workflow", help="Run an MHub workflow of that name (or file) instead."
    ),
    seeds: Path | None = SEEDS,
    kinds: list[SeedKind] | None = KINDS,
    labels: list[str] | None = LABELS,
    per: Per = PER,
    min_volume: float = MIN_VOLUME,
    threshold: float = THRESHOLD,
    heads: list[str] | None = HEADS,
    jitter: int = JITTER,
    sr: ReportStyle = SR,
    sr_features: ReportFeatures = SR_FEATURES,
    revises: Path | None = typer.Option(
        None, "--sr-revises", help="SR of an earlier run, or folder of them, that new ones revise."
    ),
    key_images: bool = KEY_IMAGES,
    report: bool = typer.Option(False, "--report", help="A page to read, OUTPUT/report.html."),
    profile: Profile = PROFILE,
    engine: Engine = ENGINE,
    device: str = DEVICE,
    precision: Precision = PRECISION,
    batch_size: int | None = BATCH_SIZE,
    json_progress: bool = JSON_PROGRESS,
    debug: bool = DEBUG,
) -> int:
    """Compute the features of every lesion in INPUT.

    INPUT holds CT series and the DICOM SEG, RTSTRUCT or SR objects that mark the lesions, in any
    folder layout. OUTPUT gets features.parquet and features.csv (a row per lesion), cases.csv (a
    state and a reason for everything that was seen) and run.json.
    """
    from oncofm.workflow.job import run_job
    from oncofm.workflow.settings import Settings

    if debug:
        show_tracebacks()
    settings = Settings(
        weights=weights,
        expected_sha256=sha256,
        profile=profile.value,
        seed_kinds=tuple(kind.value for kind in kinds or ()),
        labels=tuple(labels or ()),
        heads=tuple(heads or ()),
        sr=sr.value,
        sr_features=sr_features.value,
        revises=revises,
        key_images=key_images,
        report=report,
        jitter=jitter,
        per=per.value,
        min_volume_mm3=min_volume,
        seg_threshold=threshold,
        engine=engine.value,
        device=device,
        precision=precision.value,
        batch_size=batch_size,
    )
    if workflow is not None:
        return run_named_workflow(workflow, inputs, output, settings, seeds, json_progress)
    with show_progress(json_progress) as progress:
        result = run_job(inputs, output, settings, seeds=seeds, report=progress)
    print_summary(result, output)
    return result.manifest.summary.exit_code


def run_named_workflow(
    name: str,
    inputs: list[Path],
    output: Path,
    settings: "Settings",
    seeds: Path | None,
    json_progress: bool,
) -> int:
    """Run an MHub workflow on a folder, as the image does."""
    from oncofm.errors import SettingInvalidError
    from oncofm.workflow.mhub.models import (
        choose_model,
        choose_workflow,
        find_models,
        read_workflow,
    )
    from oncofm.workflow.mhub.overrides import overrides_of
    from oncofm.workflow.mhub.run import run_workflow

    if seeds is not None or len(inputs) != 1:
        raise SettingInvalidError("A workflow takes one INPUT and no --seeds.")
    model = choose_model(find_models(), None)
    is_file = name.endswith((".yml", ".yaml"))
    workflow = read_workflow(Path(name) if is_file else choose_workflow(model, name))
    places = {"source_dir": inputs[0].resolve(), "output_dir": output.resolve()}
    with show_progress(json_progress) as report:
        return run_workflow(workflow, model, overrides_of(settings), places=places, report=report)


def print_summary(result: "JobResult", output: Path) -> None:
    """Say on standard error what is done and, in full, what is not."""
    from oncofm.workflow.summary import summarise

    for line in summarise(result):
        typer.echo(line, err=True)
    typer.echo(f"results in {output}", err=True)
