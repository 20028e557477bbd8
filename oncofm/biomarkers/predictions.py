"""What heads say about lesions, and the same as rows of a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oncofm.biomarkers.card import CLASS_KINDS, HeadCard
from oncofm.biomarkers.head import Head

OUTLIER_PERCENTILE = 99.0
"""A lesion that is farther from a head's training features than this percentage of such features
is out of distribution."""

PREDICTION_COLUMNS: dict[str, type] = {
    "head": str,
    "class": str,
    "probability": float,
    "risk": float,
    "risk_group": str,
    "value": float,
    "jitter_mean": float,
    "jitter_sd": float,
    "n_jitter": int,
    "training_percentile": float,
}
"""A row per class with its probability; of a Cox head one with the risk, of a linear head one with
the value. Then, as far as they are known: the risk group, mean and SD of the same number with
shifted seeds and the number of shifts, and the percentile of the distance to the training data."""


@dataclass(frozen=True)
class Stability:
    """What a prediction is when the seed moves.

    Attributes
    ----------
    n_shifts : int
        How many shifted seeds gave features.
    mean, sd : tuple of float
        Over the shifts (SD with n - 1), for each of `HeadCard.outputs`.
    """

    n_shifts: int
    mean: tuple[float, ...]
    sd: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """What a head says about one lesion.

    Attributes
    ----------
    card : HeadCard
        Of the head.
    values : tuple of float
        Of each of `HeadCard.outputs`: the probability of each class, or the one value.
    risk_group : str or None
        ``high`` or ``low``, where the head has a threshold.
    training_percentile : float or None
        How far the features are from those that the head was trained on: the percentage of such
        features that are nearer, 0 to 100, where the head knows its training features.
    stability : Stability or None
        Where shifted seeds were asked for.
    """

    card: HeadCard
    values: tuple[float, ...]
    risk_group: str | None = None
    training_percentile: float | None = None
    stability: Stability | None = None

    @property
    def is_outlier(self) -> bool:
        """Whether the lesion is unlike what the head was trained on."""
        percentile = self.training_percentile
        return percentile is not None and percentile > OUTLIER_PERCENTILE


def predict_lesions(
    head: Head, features: np.ndarray, shifted: Sequence[np.ndarray] = ()
) -> list[Prediction]:
    """Let a head speak about lesions.

    Parameters
    ----------
    head : Head
        Made for these features.
    features : numpy.ndarray
        Shape (n, n_features), finite.
    shifted : sequence of numpy.ndarray
        Of each lesion the features with shifted seeds, shape (n_shifts, n_features); none at
        all, or an item per lesion. Fewer than two shifts give no stability.

    Returns
    -------
    list of Prediction
        One per lesion.

    Raises
    ------
    HeadMismatchError
        If the features are not finite or of another length.
    """
    predicted = head.predict(features)
    groups: Sequence[str | None] = head.risk_groups(predicted) or [None] * len(predicted)
    percentiles: Sequence[float | None] = [None] * len(predicted)
    if head.reference is not None:
        percentiles = head.reference.percentiles(features).tolist()
    stabilities = [_stability(head, of_lesion) for of_lesion in shifted] or [None] * len(predicted)
    return [
        Prediction(head.card, tuple(values), group, percentile, stability)
        for values, group, percentile, stability in zip(
            predicted.tolist(), groups, percentiles, stabilities, strict=True
        )
    ]


def _stability(head: Head, features: np.ndarray) -> Stability | None:
    if len(features) < 2:
        return None
    predicted = head.predict(features)
    mean, sd = predicted.mean(axis=0), predicted.std(axis=0, ddof=1)
    return Stability(len(features), tuple(mean.tolist()), tuple(sd.tolist()))


def prediction_rows(prediction: Prediction) -> Iterator[dict[str, Any]]:
    """Describe what a head says in rows, a row per output.

    Yields
    ------
    dict
        Keys among `PREDICTION_COLUMNS`.
    """
    card, stability = prediction.card, prediction.stability
    for index, (output, value) in enumerate(zip(card.outputs, prediction.values, strict=True)):
        row: dict[str, Any] = {"head": card.name}
        if card.kind in CLASS_KINDS:
            row |= {"class": output, "probability": value}
        else:
            row["risk" if card.kind == "cox" else "value"] = value
        row["risk_group"] = prediction.risk_group
        row["training_percentile"] = prediction.training_percentile
        if stability is not None:
            row["jitter_mean"], row["jitter_sd"] = stability.mean[index], stability.sd[index]
            row["n_jitter"] = stability.n_shifts
        yield row
