"""Options that several commands share, and one place where they become `Settings`."""

import inspect
from collections.abc import Callable
from enum import Enum, StrEnum
from functools import wraps
from pathlib import Path
from typing import Any

import typer


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
    tf32 = "tf32"
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
PRECISION = typer.Option(
    Precision.fp32, "--precision", help="Arithmetic of the encoder; tf32 takes a GPU."
)
BATCH_SIZE = typer.Option(
    None,
    "--batch-size",
    min=1,
    help="Patches per pass of the network. Default: 8 on a CPU; on a GPU what its memory holds, up "
    "to 256.",
)
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
REPORT = typer.Option(False, "--report", help="A page to read, report.html beside the tables.")
JSON_PROGRESS = typer.Option(False, "--json-progress", help="Report progress as JSON lines.")
DEBUG = typer.Option(False, "--debug", help="Show tracebacks of failed lesions.")

_OF_SETTINGS: dict[str, tuple[Any, Any]] = {
    "weights": (Path | None, WEIGHTS),
    "expected_sha256": (str | None, SHA256),
    "seed_kinds": (list[SeedKind] | None, KINDS),
    "labels": (list[str] | None, LABELS),
    "per": (Per, PER),
    "min_volume_mm3": (float, MIN_VOLUME),
    "seg_threshold": (float, THRESHOLD),
    "heads": (list[str] | None, HEADS),
    "jitter": (int, JITTER),
    "sr": (ReportStyle, SR),
    "sr_features": (ReportFeatures, SR_FEATURES),
    "key_images": (bool, KEY_IMAGES),
    "report": (bool, REPORT),
    "profile": (Profile, PROFILE),
    "engine": (Engine, ENGINE),
    "device": (str, DEVICE),
    "precision": (Precision, PRECISION),
    "batch_size": (int | None, BATCH_SIZE),
}
"""Attribute of `oncofm.workflow.settings.Settings` -> type and option."""


def takes_settings(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command all options about the features; it gets them as its argument `settings`."""
    own = inspect.signature(command).parameters.values()
    parameters = [parameter for parameter in own if parameter.name != "settings"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=keyword) for parameter in parameters] + [
        inspect.Parameter(name, keyword, default=option, annotation=kind)
        for name, (kind, option) in _OF_SETTINGS.items()
    ]

    @wraps(command)
    def with_settings(**arguments: Any) -> int:
        from oncofm.workflow.settings import Settings

        chosen = {name: arguments.pop(name) for name in _OF_SETTINGS}
        given = {name: _plain(value) for name, value in chosen.items() if value is not None}
        return command(**arguments, settings=Settings(**given))

    # Typer looks at these to see what there is to parse.
    with_settings.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    with_settings.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_settings


def _plain(value: Any) -> Any:
    """Take a value out of its option's type."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return value.value if isinstance(value, Enum) else value
