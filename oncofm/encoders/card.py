"""What is known about a model: its ``models/<name>/model.yml``."""

from dataclasses import dataclass

import yaml

from oncofm.errors import ModelUnknownError
from oncofm.resources import resource_dir


@dataclass(frozen=True)
class ModelCard:
    """The facts of one ``model.yml``.

    Attributes
    ----------
    name, title : str
        Name of the folder, and the model's full name.
    file, url : str
        Name of the weights file and where it is published.
    size : int
        Bytes of that file, for the user's information.
    sha256 : str or None
        SHA-256 that the file must have; None where none is known.
    licence, licence_note : str
        SPDX identifier of the weights, and what it means for the user.
    profile : str
        Preprocessing that goes with the model.
    n_features : int
        Length of a feature vector.
    patch_size : tuple of int
        Voxels of a patch (z, y, x).
    citation : str
        How to cite the model.
    """

    name: str
    title: str
    file: str
    url: str
    size: int
    sha256: str | None
    licence: str
    licence_note: str
    profile: str
    n_features: int
    patch_size: tuple[int, int, int]
    citation: str


def model_names() -> list[str]:
    """Names of the models that are described under ``models/``, sorted."""
    return sorted(path.parent.name for path in resource_dir("models").glob("*/model.yml"))


def load_model_card(name: str) -> ModelCard:
    """Read a model's ``model.yml``.

    Raises
    ------
    ModelUnknownError
        If there is none of that name.
    """
    known = model_names()
    if name not in known:
        raise ModelUnknownError(f"Model {name} is unknown; known are: {', '.join(known)}.")
    text = (resource_dir("models") / name / "model.yml").read_text(encoding="utf-8")
    facts = yaml.safe_load(text)
    return ModelCard(**facts | {"patch_size": tuple(facts["patch_size"])})
