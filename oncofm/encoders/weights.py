"""Weights files: where they lie and which bytes they hold. Needs no torch."""

import hashlib
import os
from pathlib import Path

from oncofm.encoders.card import ModelCard, load_model_card
from oncofm.errors import WeightsChecksumError, WeightsMissingError
from oncofm.resources import resource_dir

WEIGHTS_VARIABLE = "ONCOFM_WEIGHTS"
HOME_VARIABLE = "ONCOFM_HOME"


def find_weights(model: str, explicit: Path | None) -> Path:
    """Find a model's weights file; nothing is downloaded.

    The first of these counts: `explicit`, the environment variable ``ONCOFM_WEIGHTS``, the
    cache folder, the model's own folder under ``models/``. The first two must exist if given.

    Parameters
    ----------
    model : str
        Name of the folder under ``models/``.
    explicit : pathlib.Path or None
        What the user named.

    Raises
    ------
    WeightsMissingError
        If there is no file; the sentence says how to get one.
    ModelUnknownError
        If there is no such model.
    """
    card = load_model_card(model)
    named = explicit or os.environ.get(WEIGHTS_VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            origin = "--weights" if explicit else WEIGHTS_VARIABLE
            raise WeightsMissingError(f"{path} ({origin}) is not a file; {_how_to_get(card.name)}.")
        return path
    places = (cached_weights(card), resource_dir("models") / card.name / card.file)
    for place in places:
        if place.is_file():
            return place
    raise WeightsMissingError(
        f"The weights of {model} are neither in {places[0].parent} nor in {places[1].parent}; "
        f"{_how_to_get(card.name)}."
    )


def _how_to_get(model: str) -> str:
    return f"get them with `oncofm weights fetch {model}` or name a file with `--weights FILE`"


def cached_weights(card: ModelCard) -> Path:
    """Where a fetched weights file lies, whether it is there or not.

    ``$ONCOFM_HOME``, else ``$XDG_CACHE_HOME/oncofm``, else ``~/.cache/oncofm``; in it one folder
    per model.
    """
    if home := os.environ.get(HOME_VARIABLE):
        folder = Path(home).expanduser()
    elif cache := os.environ.get("XDG_CACHE_HOME"):
        folder = Path(cache) / "oncofm"
    else:
        folder = Path.home() / ".cache" / "oncofm"
    return folder / card.name / card.file


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits. Other threads run meanwhile."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_sha256(path: Path, sha256: str) -> None:
    """Write the checksum beside the file, in the format of ``sha256sum``."""
    _sidecar(path).write_text(f"{sha256}  {path.name}\n", encoding="ascii")


def recorded_sha256(path: Path) -> str | None:
    """Read the checksum that was recorded when the file was fetched, if it was."""
    try:
        words = _sidecar(path).read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return None
    return words[0] if words else ""


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def check_sha256(path: Path, sha256: str, card: ModelCard, expected: str | None) -> None:
    """Compare a file's checksum with every one that is known for it.

    Parameters
    ----------
    path : pathlib.Path
        The file, to be named and for the checksum recorded beside it.
    sha256 : str
        What the file has.
    card : ModelCard
        Its checksum counts where it has one.
    expected : str or None
        What the user asked for.

    Raises
    ------
    WeightsChecksumError
        If one of them differs.
    """
    known = (
        ("the expected one", expected),
        (f"the one in {card.name}/model.yml", card.sha256),
        (f"the one recorded in {_sidecar(path).name}", recorded_sha256(path)),
    )
    for origin, value in known:
        if value is not None and value.strip().lower() != sha256:
            raise WeightsChecksumError(
                f"{path} has the SHA-256 {sha256}, but {origin} is {value or 'empty'}; "
                f"fetch the file again or correct the checksum."
            )
