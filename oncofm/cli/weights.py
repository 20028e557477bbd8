"""``oncofm weights``: fetch, verify, prepare and list the weights of the models."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from oncofm.encoders.card import ModelCard

app = typer.Typer(
    help="Fetch, verify, prepare and list the weights of the models. Only `fetch` downloads "
    "anything.",
    no_args_is_help=True,
)

_DEFAULT_MODEL = "fmcib"
SHA256 = typer.Option(None, "--sha256", help="SHA-256 that the file must have.")


@app.command()
def fetch(
    model: str = typer.Argument(_DEFAULT_MODEL, help="Name of the model."),
    url: str | None = typer.Option(
        None, "--url", help="Another address than the published one, for a mirror."
    ),
    sha256: str | None = SHA256,
    to: Path | None = typer.Option(
        None, "--to", help="Folder for the file (default: the cache, where a run looks)."
    ),
) -> None:
    """Download a model's weights; an interrupted download goes on where it stopped.

    The file is checked, and its SHA-256 recorded beside it: later loads compare it.
    """
    from oncofm.encoders.card import load_model_card
    from oncofm.encoders.download import download
    from oncofm.encoders.weights import cached_weights, record_sha256, sha256_of
    from oncofm.errors import WeightsChecksumError, WeightsInvalidError

    card = load_model_card(model)
    target = cached_weights(card) if to is None else to / card.file
    if target.is_file():
        try:
            _verify(target, card, sha256)
        except (WeightsChecksumError, WeightsInvalidError) as error:
            typer.echo(f"Fetching again: {error}", err=True)
        else:
            typer.echo(f"{target} is already there and valid.")
            return
    with _progress(card.file) as report:
        download(
            url or card.url,
            target,
            verify=lambda part: _verify(part, card, sha256),
            progress=report,
        )
    checksum = sha256_of(target)
    record_sha256(target, checksum)
    typer.echo(f"{target}\nSHA-256 {checksum}\nLicence {card.licence}. {card.licence_note}")
    typer.echo("Runs on a CPU start sooner after `oncofm weights prepare`.")


@app.command()
def verify(
    file: Path | None = typer.Argument(None, help="Weights file (default: where a run looks)."),
    model: str = typer.Option(_DEFAULT_MODEL, "--model", help="Model that the file is for."),
    sha256: str | None = SHA256,
) -> None:
    """Check that a weights file holds exactly a model's tensors, and its SHA-256 where known."""
    from oncofm.encoders.card import load_model_card
    from oncofm.encoders.weights import find_weights

    path = find_weights(model, file)
    checksum = _verify(path, load_model_card(model), sha256)
    typer.echo(f"{path} is valid.\nSHA-256 {checksum}")


@app.command()
def prepare(
    model: str = typer.Argument(_DEFAULT_MODEL, help="Name of the model."),
    weights: Path | None = typer.Option(
        None, "--weights", help="Weights file (default: where a run looks)."
    ),
    sha256: str | None = SHA256,
) -> None:
    """Make a model ready for OpenVINO, which runs it on a CPU without loading torch.

    The prepared model is compared with torch and stored beside the weights, or in the cache if
    they lie in a folder that cannot be written. It serves every precision. Runs on a CPU use it
    from then on; after a change of the weights they say that it does not fit.
    """
    from oncofm.encoders.card import load_model_card
    from oncofm.encoders.weights import find_weights

    card = load_model_card(model)
    path = find_weights(model, weights)
    from oncofm.encoders.threads import prepare_threads

    prepare_threads()
    from oncofm.encoders.prepare import prepare as prepare_model

    prepared = prepare_model(card, path, sha256)
    note = prepared.note
    typer.echo(f"{prepared.folder}\nLargest difference to torch {note.largest_difference:.1e}")
    if note.smallest_cosine_bf16 is not None:
        typer.echo(f"Smallest cosine in bf16 {note.smallest_cosine_bf16:.5f}")


@app.command("list")
def list_models() -> None:
    """Show the known models: where their weights are, size, SHA-256, licence."""
    from oncofm.encoders.card import load_model_card, model_names
    from oncofm.encoders.prepared import find_prepared
    from oncofm.encoders.weights import find_weights, recorded_sha256, sha256_of
    from oncofm.errors import WeightsMissingError

    for name in model_names():
        card = load_model_card(name)
        typer.echo(f"{name}: {card.title}")
        try:
            path = find_weights(name, None)
        except WeightsMissingError:
            typer.echo(f"  file     not found; about {card.size:,} bytes to fetch")
        else:
            typer.echo(f"  file     {path}")
            typer.echo(f"  size     {path.stat().st_size:,} bytes")
            typer.echo(f"  sha256   {recorded_sha256(path) or sha256_of(path)}")
            typer.echo(f"  prepared {find_prepared(card, path) or 'no'}")
        typer.echo(f"  licence  {card.licence}. {card.licence_note}")


def _verify(path: Path, card: "ModelCard", expected_sha256: str | None) -> str:
    """Load strictly and compare checksums; the file's SHA-256 is returned."""
    from oncofm.encoders.checkpoint import read_checkpoint
    from oncofm.encoders.fmcib import expected_tensors
    from oncofm.encoders.weights import check_sha256, sha256_of

    checksum = sha256_of(path)
    check_sha256(path, checksum, card, expected_sha256)
    read_checkpoint(path, expected_tensors())
    return checksum


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
