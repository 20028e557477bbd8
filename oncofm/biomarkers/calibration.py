"""Calibration: from the scores of a head to probabilities that come true as often as they say.

What maps the scores is fitted to scores of held-out cases; scores of the cases that the head was
fitted to are far too sure.

Platt (Advances in Large Margin Classifiers, 1999): slope and intercept of the score of the second
class. Of more classes, one factor for all scores (Guo et al., ICML 2017). Both keep the order of
the cases, and both see targets that are a little less than sure, as Platt has them, so that they
stay finite where the classes do not overlap. Isotonic regression: any rising function, which may
make cases equal.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from oncofm.biomarkers.checks import missing_extra
from oncofm.errors import EvaluationError

CalibrationMethod = Literal["none", "platt", "isotonic"]

_MIN_SLOPE = 1e-3
"""Per standard deviation of the scores: where they tell nothing, all probabilities are nearly the
same, but the order of the cases stays."""

_MAX_NEWTON_STEPS = 100
_SMALL_DECREASE = 1e-16
"""Of the mean loss; then the step that Newton has just foreseen no longer matters."""


@dataclass(frozen=True, eq=False)
class MonotoneTable:
    """Knots of a rising function of a probability, straight between them, flat beyond.

    Attributes
    ----------
    x, y : numpy.ndarray
        Shape (n_knots,) float64, 0 to 1: x ascends, y does not descend.

    Raises
    ------
    ValueError
        If the knots are none.
    """

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        if self.x.ndim != 1 or self.x.shape != self.y.shape or not len(self.x):
            raise ValueError(
                f"the calibration has knots of the shapes {self.x.shape} and {self.y.shape}"
            )
        for values in (self.x, self.y):
            if not ((values >= 0) & (values <= 1)).all():
                raise ValueError("the calibration holds values that are no probabilities")
        if (np.diff(self.x) <= 0).any() or (np.diff(self.y) < 0).any():
            raise ValueError("the calibration does not ascend")

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Map probabilities of two classes: shape (n, 2) to (n, 2) float64."""
        second = np.interp(probabilities[:, 1], self.x, self.y)
        return np.column_stack([1 - second, second])


@dataclass(frozen=True, eq=False)
class Calibrator:
    """What is done to the scores of a head, then to its probabilities.

    Attributes
    ----------
    slope, intercept : float
        Of the scores; the slope is above 0.
    table : MonotoneTable or None
        Of the second class's probability.
    """

    slope: float = 1.0
    intercept: float = 0.0
    table: MonotoneTable | None = None


def method_for(task: str, asked: CalibrationMethod | None) -> CalibrationMethod:
    """Choose how to calibrate: as asked, else Platt where there are probabilities.

    Raises
    ------
    EvaluationError
        If the task cannot be calibrated that way.
    """
    if asked is None:
        return "none" if task == "survival" else "platt"
    if task == "survival" and asked != "none":
        raise EvaluationError(
            f"A survival head has no probabilities for the calibration {asked}; take none."
        )
    if task == "multiclass" and asked == "isotonic":
        raise EvaluationError(
            "Isotonic calibration is for two classes; take platt or none for more."
        )
    return asked


def fit_calibrator(method: CalibrationMethod, scores: np.ndarray, target: np.ndarray) -> Calibrator:
    """Fit a calibration to held-out cases.

    Parameters
    ----------
    method : str
        As `method_for` gives it.
    scores : numpy.ndarray
        Shape (n, 1) for two classes, else (n, n_classes).
    target : numpy.ndarray
        Shape (n,) int: number of the class.

    Raises
    ------
    MissingExtraError
        Without scikit-learn, for ``isotonic``.
    """
    if method == "none":
        return Calibrator()
    if method == "isotonic":
        return Calibrator(table=_isotonic(scores[:, 0], target))
    if scores.shape[1] > 1:
        return _common_factor(scores, target)
    return _platt(scores[:, 0], target)


def _platt(scores: np.ndarray, target: np.ndarray) -> Calibrator:
    mean, scale = float(scores.mean()), float(scores.std()) or 1.0
    standardised = (scores - mean) / scale
    design = np.zeros((len(scores), 2, 2))
    design[:, 1] = np.column_stack([standardised, np.ones(len(scores))])
    targets = _soft_targets(target, 2)
    slope, intercept = 0.0, 0.0
    if scores.std() > 0:
        slope, intercept = _newton(design, targets)
    if slope < _MIN_SLOPE:
        share = targets[:, 1].mean()
        slope, intercept = _MIN_SLOPE, np.log(share / (1 - share))
    return Calibrator(float(slope / scale), float(intercept - slope * mean / scale))


def _common_factor(scores: np.ndarray, target: np.ndarray) -> Calibrator:
    centred = scores - scores.mean(axis=1, keepdims=True)
    scale = float(centred.std()) or 1.0
    targets = _soft_targets(target, scores.shape[1])
    (factor,) = _newton(centred[:, :, None] / scale, targets) if centred.any() else (0.0,)
    return Calibrator(max(float(factor), _MIN_SLOPE) / scale)


def _isotonic(scores: np.ndarray, target: np.ndarray) -> MonotoneTable:
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise missing_extra("Calibrating a head", error) from error
    probabilities = np.exp(-np.logaddexp(0, -scores))
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    model.fit(probabilities, target)
    return MonotoneTable(np.asarray(model.X_thresholds_), np.asarray(model.y_thresholds_))


def _soft_targets(target: np.ndarray, n_classes: int) -> np.ndarray:
    """Class k of n_k cases: (n_k + 1) / (n_k + 2), and the rest shared out to the others."""
    doubt = 1 / (np.bincount(target, minlength=n_classes)[target] + 2)
    targets = np.repeat(doubt[:, None] / (n_classes - 1), n_classes, axis=1)
    targets[np.arange(len(target)), target] = 1 - doubt
    return targets


def _newton(design: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Minimise the cross-entropy of softmax(design @ w): (n, k, p) and (n, k) to (p,)."""

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        scores = design @ weight
        logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        return float(-(targets * logs).sum(axis=1).mean()), np.exp(logs)

    n, _, n_weights = design.shape
    weight = np.zeros(n_weights)
    now, shares = loss(weight)
    for _ in range(_MAX_NEWTON_STEPS):
        slope = np.einsum("nk,nkp->p", shares - targets, design) / n
        means = np.einsum("nk,nkp->np", shares, design)
        squares = np.einsum("nk,nkp,nkq->pq", shares, design, design)
        step = np.linalg.solve((squares - means.T @ means) / n, slope)
        decrement = float(slope @ step)
        size = 1.0
        while (then := loss(weight - size * step))[0] > now - 1e-4 * size * decrement + 1e-15:
            size /= 2
        weight, (now, shares) = weight - size * step, then
        if decrement < _SMALL_DECREASE:
            break
    return weight
