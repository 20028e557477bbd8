"""``oncofm doctor``: what this machine offers and what is missing."""

import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import typer

import oncofm

_PACKAGES = (
    "torch",
    "numpy",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "python-gdcm",
    "SimpleITK",
    "highdicom",
    "pandas",
    "pyarrow",
    "safetensors",
    "monai",
)
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def doctor(
    output: Path = typer.Option(
        Path(), "--output", "-o", help="Folder whose write access is checked."
    ),
) -> None:
    """Show versions, device, weights, write access, CPU flags and threads.

    Exits with 1 if something that every run needs is missing.
    """
    problems: list[str] = []
    _section("Versions", _versions(problems))
    _section("Compute", _compute(problems))
    _section("Decoders", _decoders(problems))
    _section("Weights", _weights(problems))
    _section("Write access", _write_access(output, problems))
    if problems:
        typer.echo("\nNot ready: " + " ".join(problems))
        raise typer.Exit(1)
    typer.echo("\nReady.")


def _section(title: str, lines: list[tuple[str, str]]) -> None:
    typer.echo(title)
    for name, value in lines:
        typer.echo(f"  {name:<20} {value}")


def _versions(problems: list[str]) -> list[tuple[str, str]]:
    lines = [("oncofm", oncofm.__version__), ("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            lines.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            lines.append((name, "MISSING"))
            problems.append(f"Package {name} is missing; install oncofm again.")
    return lines


def _compute(problems: list[str]) -> list[tuple[str, str]]:
    try:
        import torch
    except ImportError:
        problems.append("torch cannot be imported; install oncofm again.")
        return [("torch", "cannot be imported")]
    n_cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    lines = [("CPUs usable", str(n_cpus))]
    lines.append(("torch threads", str(torch.get_num_threads())))
    lines.append(("CPU flags", " ".join(_cpu_flags()) or "none of " + " ".join(_CPU_FLAGS)))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = f"{properties.total_memory / 2**30:.0f} GiB"
            lines.append((f"cuda:{index}", f"{properties.name}, {memory}"))
    else:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
        lines.append(("cuda", f"none (torch is a {build})"))
    lines.append(("openvino", _openvino()))
    return lines


def _openvino() -> str:
    from oncofm.encoders.openvino_engine import import_openvino
    from oncofm.errors import EngineError

    try:
        return import_openvino().__version__
    except EngineError:
        return "not installed (torch runs)"


def _decoders(problems: list[str]) -> list[tuple[str, str]]:
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    syntaxes = (
        uid.RLELossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.JPEGExtended12Bit,
    )
    lines = []
    for syntax in syntaxes:
        plugins = ", ".join(get_decoder(syntax).available_plugins)
        lines.append((syntax.name[:40], plugins or "NONE"))
        if not plugins:
            problems.append(f"No decoder for {syntax.name}; install oncofm again.")
    return lines


def _weights(problems: list[str]) -> list[tuple[str, str]]:
    from oncofm.encoders.card import load_model_card
    from oncofm.encoders.prepared import find_prepared
    from oncofm.encoders.weights import find_weights
    from oncofm.errors import WeightsMissingError

    try:
        path = find_weights("fmcib", None)
    except WeightsMissingError as error:
        problems.append(str(error))
        return [("fmcib", "MISSING")]
    prepared = find_prepared(load_model_card("fmcib"), path)
    return [
        ("fmcib", f"{path} ({path.stat().st_size:,} bytes)"),
        ("for OpenVINO", str(prepared or "not prepared (oncofm weights prepare)")),
    ]


def _write_access(folder: Path, problems: list[str]) -> list[tuple[str, str]]:
    lines = []
    for name, place in (("output", folder), ("temporary files", Path(tempfile.gettempdir()))):
        try:
            with tempfile.NamedTemporaryFile(dir=place):
                lines.append((name, f"{place.resolve()}: yes"))
        except OSError as error:
            lines.append((name, f"{place.resolve()}: NO ({error.strerror})"))
            problems.append(f"{place.resolve()} cannot be written.")
    return lines


def _cpu_flags() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return []
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return [flag for flag in _CPU_FLAGS if flag in flags]
