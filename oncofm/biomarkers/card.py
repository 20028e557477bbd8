"""The card of a head: what it predicts, what it was made from, how well it did, and its limits."""

from pathlib import Path
from typing import Literal, Self

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from oncofm.errors import HeadInvalidError

CARD_FILE = "head.yml"
_MAX_CARD_BYTES = 1 << 20
ANY_WEIGHTS = "any"
Kind = Literal["logistic", "one_vs_rest", "mlp", "linear", "cox"]
CLASS_KINDS: tuple[Kind, ...] = ("logistic", "one_vs_rest", "mlp")
"""Kinds that give a probability per class; the others give one value."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Part):
    """How well a head did, in one number.

    Attributes
    ----------
    statistic : str
        For example ``auc``, ``accuracy``, ``c_index``.
    value, ci_low, ci_high : float
        Exact value, and its 95 % confidence interval.
    n : int
        Number of cases it was measured on.
    data : str
        Which cases those are.
    method : str
        How the value and the interval were made.
    """

    statistic: str
    value: FiniteFloat
    ci_low: FiniteFloat
    ci_high: FiniteFloat
    n: int = Field(gt=0)
    data: str
    method: str


class TrainingData(_Part):
    """What a head was fitted to.

    Attributes
    ----------
    data : str
        Name of the data set.
    n : int
        Number of cases.
    n_groups : int or None
        Number of patients, where cases were grouped.
    counts : dict of str to int
        Cases per class; for survival, how many died (``event``) and how many did not
        (``censored``).
    settings : dict of str to float or int
        What was chosen or fixed: ``C``, ``seed``, ``n_trials``, ``cv`` or ``n_validation``; also
        ``fraction``, the share of the cases that were there.
    """

    data: str
    n: int = Field(gt=0)
    n_groups: int | None = None
    counts: dict[str, int] = {}
    settings: dict[str, int | FiniteFloat] = {}


class Threshold(_Part):
    """The value that splits the risk groups.

    Attributes
    ----------
    value : float
        Of the second class's probability, or of the one value of a linear or Cox head.
    chosen : str
        How it was chosen.
    """

    value: FiniteFloat
    chosen: str


class Calibration(_Part):
    """How scores became probabilities.

    Attributes
    ----------
    method : str
        ``platt``: slope and intercept of the score, of more than two classes one factor for all
        scores; folded into the arrays. ``isotonic``: a table of the second class's probability.
    data : str
        Name of the data set.
    n : int
        Number of cases.
    made : str
        Which cases of it those are.
    slope, intercept : float
        Of the scores.
    """

    method: Literal["platt", "isotonic"]
    data: str
    n: int = Field(gt=0)
    made: str
    slope: FiniteFloat = 1.0
    intercept: FiniteFloat = 0.0


class HeadCard(_Part):
    """What is known about a head.

    Attributes
    ----------
    name, title : str
        Name of the folder, and what it predicts.
    kind : str
        ``logistic``: one output for two classes (for the second), else one per class and softmax;
        ``one_vs_rest``: one per class, sigmoids that are divided by their sum; ``mlp``: linear
        layers with ReLU between them, the last one as in ``logistic``; ``linear``: one value;
        ``cox``: one value, the log hazard ratio.
    task : str or None
        What it was fitted for.
    classes : tuple of str
        In the order of the probabilities; none for one value.
    quantity, unit : str
        Name of the one value and its UCUM unit (``1`` is none).
    direction : str or None
        What more of the thresholded value means; see `Threshold`.
    threshold : Threshold or None
        Splits the risk groups.
    scaler : str
        ``none``: fitted to features as they are; ``folded``: fitted to standardised features, and
        the scaler is part of the arrays. Either way the head takes features as they are.
    model, profile : str
        Encoder and preprocessing whose features it was trained on.
    weights_sha256 : str
        Of the encoder it was trained on, or ``any``.
    n_features : int
        Length of a feature vector.
    training : TrainingData or None
        What it was fitted to.
    calibration : Calibration or None
        How probabilities were calibrated, if they were.
    cross_validated, validation, external : tuple of Figure
        On held-out folds of the training data; on the validation set that C was chosen on, which
        flatters; and on other data.
    intended_use, limits, licence : str
        For whoever uses it.
    """

    name: str
    title: str
    kind: Kind
    task: Literal["binary", "multiclass", "regression", "survival"] | None = None
    classes: tuple[str, ...] = ()
    quantity: str = "value"
    unit: str = "1"
    direction: Literal["higher_is_worse", "higher_is_better"] | None = None
    threshold: Threshold | None = None
    scaler: Literal["none", "folded"] = "none"
    model: str
    profile: str
    weights_sha256: str = Field(pattern=f"^({ANY_WEIGHTS}|[0-9a-f]{{64}})$")
    n_features: int = Field(gt=0)
    training: TrainingData | None = None
    calibration: Calibration | None = None
    cross_validated: tuple[Figure, ...] = ()
    validation: tuple[Figure, ...] = ()
    external: tuple[Figure, ...] = ()
    intended_use: str
    limits: str = ""
    licence: str

    def is_high_risk(self, values: np.ndarray) -> np.ndarray:
        """Split cases at the threshold.

        Parameters
        ----------
        values : numpy.ndarray
            Shape (n,): the second class's probability, or the one value.

        Returns
        -------
        numpy.ndarray
            Shape (n,) bool; a value equal to the threshold is of low risk. Of a card without a
            threshold none may be asked.
        """
        assert self.threshold is not None, f"head {self.name} has no threshold"
        above = values - self.threshold.value
        return above > 0 if self.direction == "higher_is_worse" else above < 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it predicts: the classes, or the one value."""
        return self.classes if self.kind in CLASS_KINDS else (self.quantity,)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        names = self.classes
        if self.kind in CLASS_KINDS and (len(names) < 2 or len(set(names)) < len(names)):
            raise ValueError(f"a {self.kind} head needs two or more different classes")
        if self.kind == "one_vs_rest" and len(names) == 2:
            raise ValueError("a one_vs_rest head needs three or more classes")
        if self.kind not in CLASS_KINDS and names:
            raise ValueError(f"a {self.kind} head has no classes")
        if self.threshold and not self.direction:
            raise ValueError("a threshold needs a direction, or nobody knows which side is worse")
        if self.threshold and len(names) > 2:
            raise ValueError("a threshold needs two classes or one value")
        if self.calibration and not names:
            raise ValueError("a calibration needs classes")
        if self.calibration and self.calibration.method == "isotonic" and len(names) > 2:
            raise ValueError("an isotonic calibration needs two classes")
        return self


def read_card(folder: Path) -> HeadCard:
    """Read the card of a head; its arrays are not looked at.

    Raises
    ------
    HeadInvalidError
        If it cannot be used.
    """
    try:
        with (folder / CARD_FILE).open(encoding="utf-8") as stream:
            return HeadCard(**yaml.safe_load(stream.read(_MAX_CARD_BYTES)))
    except (  # also ValidationError and text that is not UTF-8, which are ValueErrors
        OSError,
        TypeError,
        ValueError,
        RecursionError,
        yaml.YAMLError,
    ) as error:
        problem = " ".join(str(error).split())
        raise HeadInvalidError(f"Head {folder} cannot be used: {problem}.") from error
