"""What heads say, as rows of a table."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from oncofm.biomarkers.card import CLASS_KINDS
from oncofm.biomarkers.head import Head

PREDICTION_COLUMNS: dict[str, type] = {
    "head": str,
    "class": str,
    "probability": float,
    "risk": float,
    "risk_group": str,
    "value": float,
}
"""A row per class with its probability; of a Cox head one with the risk and, where the head has a
threshold, the group; of a linear head one with the value."""


def prediction_rows(head: Head, features: np.ndarray) -> Iterator[list[dict[str, Any]]]:
    """Predict, and describe each case in rows.

    Parameters
    ----------
    head : Head
        Made for these features.
    features : numpy.ndarray
        Shape (n, n_features), finite.

    Yields
    ------
    list of dict
        Of each case, keys among `PREDICTION_COLUMNS`.

    Raises
    ------
    HeadMismatchError
        If the features are not finite or of another length.
    """
    predicted = head.predict(features)
    name = head.card.name
    if head.card.kind in CLASS_KINDS:
        for chances in predicted:
            yield [
                {"head": name, "class": label, "probability": float(chance)}
                for label, chance in zip(head.card.classes, chances, strict=True)
            ]
    elif head.card.kind == "cox":
        groups = head.risk_groups(predicted) or [None] * len(predicted)
        for (risk,), group in zip(predicted, groups, strict=True):
            yield [{"head": name, "risk": float(risk), "risk_group": group}]
    else:
        for (value,) in predicted:
            yield [{"head": name, "value": float(value)}]
