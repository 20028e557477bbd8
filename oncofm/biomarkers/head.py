"""A head: a few numbers that turn features into a biomarker, and the card that says which.

A head is a folder with ``head.yml`` (the card) and ``head.safetensors`` (the arrays).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from oncofm.errors import HeadInvalidError, HeadMismatchError, HeadUnknownError
from oncofm.resources import resource_dir

CARD_FILE, ARRAYS_FILE = "head.yml", "head.safetensors"
ANY_WEIGHTS = "any"


class HeadCard(BaseModel):
    """What is known about a head.

    Attributes
    ----------
    name, title : str
        Name of the folder, and what it predicts.
    kind : str
        ``logistic``: one output per class but the first for two classes, else one per class.
    classes : tuple of str
        In the order of the probabilities.
    model, profile : str
        Encoder and preprocessing whose features it was trained on.
    weights_sha256 : str
        Of the encoder it was trained on, or ``any``.
    n_features : int
        Length of a feature vector.
    intended_use, licence : str
        For whoever uses it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    kind: Literal["logistic"]
    classes: tuple[str, ...]
    model: str
    profile: str
    weights_sha256: str
    n_features: int
    intended_use: str
    licence: str


@dataclass(frozen=True, eq=False)
class Head:
    """A head that is ready to predict.

    Attributes
    ----------
    card : HeadCard
        What it is.
    weight : numpy.ndarray
        Shape (n_outputs, n_features) float64, for features as the encoder gives them: a scaler
        that belongs to the head is folded in.
    bias : numpy.ndarray
        Shape (n_outputs,) float64.
    """

    card: HeadCard
    weight: np.ndarray
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Compute class probabilities.

        Parameters
        ----------
        features : numpy.ndarray
            Shape (n, n_features).

        Returns
        -------
        numpy.ndarray
            Shape (n, n_classes) float64; rows sum to 1.
        """
        scores = features.astype(np.float64) @ self.weight.T + self.bias
        if len(self.card.classes) == 2:  # one score, for the second class
            scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def head_names(model: str) -> list[str]:
    """Names of the heads that come with a model, sorted."""
    return sorted(path.parent.name for path in _folder(model).glob(f"*/{CARD_FILE}"))


def load_head(name: str, model: str) -> Head:
    """Load a head by name, or by the path of its folder.

    Parameters
    ----------
    name : str
        A folder under ``models/<model>/heads/``, or a path that holds a slash.
    model : str
        The encoder that it is for.

    Raises
    ------
    HeadUnknownError
        If there is none of that name, with those that there are.
    HeadInvalidError
        If its card or arrays cannot be used.
    HeadMismatchError
        If it is for another encoder.
    """
    folder = Path(name) if "/" in name else _folder(model) / name
    if not (folder / CARD_FILE).is_file():
        known = ", ".join(head_names(model)) or "none"
        raise HeadUnknownError(
            f"There is no head {name!r}; model {model} comes with {known}. Name one of those or "
            f"a folder that holds {CARD_FILE}, as a path."
        )
    head = _read(folder)
    if head.card.model != model:
        raise HeadMismatchError(f"Head {name} is for the model {head.card.model}, not {model}.")
    return head


def require_fit(head: Head, weights_sha256: str, profile: str, n_features: int) -> None:
    """Refuse features that a head was not made for.

    Raises
    ------
    HeadMismatchError
        With what differs.
    """
    card = head.card
    pairs = {
        "the preprocessing profile": (card.profile, profile),
        "the length of the features": (card.n_features, n_features),
    }
    if card.weights_sha256 != ANY_WEIGHTS:
        pairs["the SHA-256 of the weights"] = (card.weights_sha256, weights_sha256)
    for what, (expected, found) in pairs.items():
        if expected != found:
            raise HeadMismatchError(
                f"Head {card.name} needs another value of {what}: {expected}, not {found}."
            )


def _read(folder: Path) -> Head:
    try:
        card = HeadCard(**yaml.safe_load((folder / CARD_FILE).read_text(encoding="utf-8")))
        arrays = load_file(folder / ARRAYS_FILE)
        weight = arrays["weight"].astype(np.float64)
        bias = arrays["bias"].astype(np.float64)
    except (
        OSError,
        TypeError,
        KeyError,
        yaml.YAMLError,
        ValidationError,
        SafetensorError,
    ) as error:
        problem = " ".join(str(error).split())
        raise HeadInvalidError(f"Head {folder} cannot be used: {problem}.") from error
    n_outputs = 1 if len(card.classes) == 2 else len(card.classes)
    if weight.shape != (n_outputs, card.n_features) or bias.shape != (n_outputs,):
        raise HeadInvalidError(
            f"Head {folder} has arrays of the shapes {weight.shape} and {bias.shape}; "
            f"{n_outputs} outputs of {card.n_features} features were expected."
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise HeadInvalidError(f"Head {folder} holds numbers that are not finite.")
    return Head(card, weight, bias)


def _folder(model: str) -> Path:
    return resource_dir("models") / model / "heads"
