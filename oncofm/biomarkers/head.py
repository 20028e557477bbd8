"""A head: a few numbers that turn features into a biomarker, and the card that says which.

A head is a folder with ``head.yml`` (the card) and ``head.safetensors`` (the arrays): ``weight``
and ``bias``, or ``0.weight``, ``0.bias``, ``1.weight``, ... for a head of several layers; with
``reference.mean`` and so on where the head knows its training features, and ``calibration.x`` and
``calibration.y`` where its probabilities go through a table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from oncofm.biomarkers.calibration import MonotoneTable
from oncofm.biomarkers.card import ANY_WEIGHTS, CARD_FILE, CLASS_KINDS, HeadCard, read_card
from oncofm.biomarkers.reference import ARRAYS as REFERENCE_ARRAYS
from oncofm.biomarkers.reference import Reference
from oncofm.errors import HeadInvalidError, HeadMismatchError, HeadUnknownError
from oncofm.resources import resource_dir

ARRAYS_FILE = "head.safetensors"
REFERENCE_PREFIX, TABLE_PREFIX = "reference.", "calibration."


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear map.

    Attributes
    ----------
    weight : numpy.ndarray
        Shape (n_outputs, n_inputs) float64.
    bias : numpy.ndarray
        Shape (n_outputs,) float64.
    """

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Map shape (n, n_inputs) to (n, n_outputs)."""
        return inputs @ self.weight.T + self.bias


@dataclass(frozen=True, eq=False)
class Head:
    """A head that is ready to predict.

    Attributes
    ----------
    card : HeadCard
        What it is.
    layers : tuple of Layer
        One, or for ``mlp`` several with ReLU between them. They take features as the encoder
        gives them: a scaler that belongs to the head is folded in.
    reference : Reference or None
        The features that it was fitted to, in short.
    table : MonotoneTable or None
        Calibrates the second of two probabilities.

    Raises
    ------
    HeadInvalidError
        If the arrays do not fit the card or each other, or hold numbers that are not finite.
    """

    card: HeadCard
    layers: tuple[Layer, ...]
    reference: Reference | None = None
    table: MonotoneTable | None = None

    def __post_init__(self) -> None:
        _require_shapes(self)
        if not all(
            np.isfinite(a).all() for layer in self.layers for a in (layer.weight, layer.bias)
        ):
            raise HeadInvalidError(
                f"Head {self.card.name} holds numbers that are not finite; get it anew."
            )
        if self.reference is not None and len(self.reference.mean) != self.card.n_features:
            raise HeadInvalidError(
                f"Head {self.card.name} has a reference of {len(self.reference.mean)} features; "
                f"{self.card.n_features} were expected."
            )
        calibration = self.card.calibration
        has_table = calibration is not None and calibration.method == "isotonic"
        if has_table != (self.table is not None):
            raise HeadInvalidError(
                f"Head {self.card.name} has a table of calibration but no card of it, or a card "
                "but no table; get it anew."
            )

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Compute class probabilities, or the one value of a linear or Cox head.

        Parameters
        ----------
        features : numpy.ndarray
            Shape (n, n_features).

        Returns
        -------
        numpy.ndarray
            Shape (n, k) float64; a column for each of `HeadCard.outputs`. Rows of probabilities
            sum to 1.

        Raises
        ------
        HeadMismatchError
            If the features have another length or are not all finite.
        """
        _require_usable(self.card, features)
        values = features.astype(np.float64)
        for layer in self.layers[:-1]:
            values = np.maximum(layer(values), 0)
        predicted = LINKS[self.card.kind](self.layers[-1](values))
        return predicted if self.table is None else self.table(predicted)

    def risk_groups(self, predicted: np.ndarray) -> list[str]:
        """Split cases at the card's threshold.

        Parameters
        ----------
        predicted : numpy.ndarray
            Shape (n, k): what `predict` returned. The last column is compared: the second class's
            probability, or the one value.

        Returns
        -------
        list of str
            ``high`` or ``low`` per case, empty if the card has no threshold. A value equal to
            the threshold is ``low``.
        """
        card = self.card
        if card.threshold is None:
            return []
        return ["high" if is_high else "low" for is_high in card.is_high_risk(predicted[:, -1])]


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
    card = read_card(folder)
    try:
        arrays = load_file(folder / ARRAYS_FILE)
        layers = tuple(
            Layer(_floats(arrays[f"{prefix}weight"]), _floats(arrays[f"{prefix}bias"]))
            for prefix in _prefixes(card, arrays)
        )
        reference, table = _reference(arrays), _table(arrays)
    except (OSError, TypeError, KeyError, ValueError, SafetensorError) as error:
        problem = " ".join(str(error).split())
        raise HeadInvalidError(f"Head {folder} cannot be used: {problem}.") from error
    return Head(card, layers, reference, table)


def _reference(arrays: dict[str, np.ndarray]) -> Reference | None:
    if not any(key.startswith(REFERENCE_PREFIX) for key in arrays):
        return None
    return Reference(**{name: arrays[f"{REFERENCE_PREFIX}{name}"] for name in REFERENCE_ARRAYS})


def _table(arrays: dict[str, np.ndarray]) -> MonotoneTable | None:
    if not any(key.startswith(TABLE_PREFIX) for key in arrays):
        return None
    return MonotoneTable(*(_floats(arrays[f"{TABLE_PREFIX}{axis}"]) for axis in "xy"))


def _prefixes(card: HeadCard, arrays: dict[str, np.ndarray]) -> list[str]:
    if card.kind != "mlp":
        return [""]
    n_layers = max(1, sum(key.endswith(".weight") for key in arrays))
    return [f"{number}." for number in range(n_layers)]


def _floats(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        raise TypeError(f"an array is of the type {array.dtype}, not floating point")
    return array.astype(np.float64)


def _require_shapes(head: Head) -> None:
    card, shapes = head.card, [layer.weight.shape for layer in head.layers]
    n_outputs = len(card.outputs)
    possible = {n_outputs}
    if card.kind in CLASS_KINDS and n_outputs == 2:  # one score, for the second class
        possible = {1, 2} if card.kind == "mlp" else {1}
    fits = (
        all(layer.weight.ndim == 2 for layer in head.layers)
        and all(layer.bias.shape == layer.weight.shape[:1] for layer in head.layers)
        and shapes[0][1] == card.n_features
        and all(first[0] == second[1] for first, second in pairwise(shapes))
        and shapes[-1][0] in possible
        and (card.kind == "mlp" or len(shapes) == 1)
    )
    if not fits:
        biases = [layer.bias.shape for layer in head.layers]
        raise HeadInvalidError(
            f"Head {card.name} has arrays of the shapes {shapes} and {biases}; "
            f"{min(possible)} outputs of {card.n_features} features were expected."
        )


def _require_usable(card: HeadCard, features: np.ndarray) -> None:
    if features.ndim != 2 or features.shape[1] != card.n_features:
        raise HeadMismatchError(
            f"Head {card.name} needs rows of {card.n_features} features; the shape is "
            f"{features.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise HeadMismatchError(
            f"Head {card.name} needs finite features; {len(bad)} of {len(features)} rows hold NaN "
            f"or infinity, the first is row {bad[0]} (from 0). Compute those features anew."
        )


def _softmax(scores: np.ndarray) -> np.ndarray:
    if scores.shape[1] == 1:  # one score, for the second of two classes
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _divided_sigmoids(scores: np.ndarray) -> np.ndarray:
    # In logarithms: all sigmoids of a row may be too small for a float.
    logs = -np.logaddexp(0, -scores)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _as_they_are(scores: np.ndarray) -> np.ndarray:
    return scores


LINKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logistic": _softmax,
    "one_vs_rest": _divided_sigmoids,
    "mlp": _softmax,
    "linear": _as_they_are,
    "cox": _as_they_are,
}
"""From the last layer's scores to what is predicted, for each kind of head."""


def _folder(model: str) -> Path:
    return resource_dir("models") / model / "heads"
