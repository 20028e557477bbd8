"""A model that was prepared for OpenVINO: where it lies and what it was made from.

A folder with the graph, its constants and a note. The note is JSON and names the SHA-256 of the
weights that the constants were made from, and of both files. Needs neither torch nor OpenVINO.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from oncofm.encoders.card import ModelCard
from oncofm.encoders.weights import cached_weights, sha256_of
from oncofm.errors import EngineError

XML_FILE = "model.xml"
BIN_FILE = "model.bin"
NOTE_FILE = "prepared.json"

HOW_TO_PREPARE = (
    "prepare it with `oncofm weights prepare` (and the --weights of the run, if it has any), or "
    "choose the engine torch"
)


class Note(BaseModel):
    """What a prepared model is: its ``prepared.json``.

    Attributes
    ----------
    format : int
        Of this note and of the graph's inputs and outputs.
    model : str
        Name of the folder under ``models/``.
    weights_sha256, xml_sha256, bin_sha256 : str
        Of the weights file that it was made from, of the graph, and of its constants.
    weights_bytes, weights_modified_s : int
        Size and modification time (seconds since 1970) of that weights file.
    oncofm, openvino, torch : str
        Versions that made it.
    largest_difference : float
        Largest difference to torch's features that was seen when it was made, fp32.
    smallest_cosine_bf16 : float or None
        Smallest cosine between its bf16 and torch's fp32 features; None on a CPU without bf16.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    model: str
    weights_sha256: str
    weights_bytes: int
    weights_modified_s: int
    xml_sha256: str
    bin_sha256: str
    oncofm: str
    openvino: str
    torch: str
    largest_difference: float
    smallest_cosine_bf16: float | None


@dataclass(frozen=True)
class PreparedModel:
    """A folder whose note could be read and whose graph is the one that the note names."""

    folder: Path
    note: Note

    @property
    def xml(self) -> Path:
        """The graph."""
        return self.folder / XML_FILE

    @property
    def bin(self) -> Path:
        """The graph's constants."""
        return self.folder / BIN_FILE


def prepared_folders(card: ModelCard, weights: Path) -> tuple[Path, Path]:
    """Where a model that was prepared from `weights` may lie: beside them, else in the cache."""
    name = weights.name + ".openvino"
    return weights.with_name(name), cached_weights(card).with_name(name)


def find_prepared(card: ModelCard, weights: Path) -> Path | None:
    """Find the folder of the model that was prepared from a weights file, fit or not."""
    folders = prepared_folders(card, weights)
    return next((folder for folder in folders if (folder / NOTE_FILE).is_file()), None)


def read_prepared(folder: Path, card: ModelCard) -> PreparedModel:
    """Read a prepared model's note and check its graph; the constants are left to the engine.

    Raises
    ------
    EngineError
        If the note or the graph is damaged or absent, or they are another model's.
    """
    try:
        text = (folder / NOTE_FILE).read_bytes()
        note = Note.model_validate_json(text)
        xml_sha256 = hashlib.sha256((folder / XML_FILE).read_bytes()).hexdigest()
    except OSError as error:
        raise unusable(folder, f"cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        raise unusable(folder, f"has a {NOTE_FILE} that this version does not know") from error
    if note.model != card.name:
        raise unusable(folder, f"was prepared from another model than {card.name}")
    if xml_sha256 != note.xml_sha256:
        raise unusable(folder, f"has a damaged {XML_FILE}")
    return PreparedModel(folder, note)


def sha256_of_weights(weights: Path, note: Note) -> str:
    """SHA-256 of a weights file; a file that looks untouched since the preparation is not read.

    It is not the file that runs but the prepared constants, which are hashed at every load, and
    `Note.weights_sha256` is what those were made from in any case. The file only shows whether
    the user still means the same weights: there size and time will do, as they do for ``make``.
    """
    facts = weights.stat()
    if (facts.st_size, int(facts.st_mtime)) == (note.weights_bytes, note.weights_modified_s):
        return note.weights_sha256
    return sha256_of(weights)


def unusable(folder: Path, what: str) -> EngineError:
    """Say what keeps a prepared model from being used, and what to do."""
    return EngineError(f"{folder} {what}; {HOW_TO_PREPARE}.")
