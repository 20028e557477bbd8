"""Ridge models of many features and few cases: logistic and Cox, for many penalties at once.

The solution of a ridge model lies in the space that the cases span. There the features of n
cases have n coordinates however long they are, so a model of 4096 features costs as much as one of
n; the result is the same. Features are standardised first, by the cases that are fitted to and by
no others, and the scaler is folded into the layer that comes back.

C is the weight of the loss beside half the squared length of the weights, as in scikit-learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oncofm.biomarkers.checks import missing_extra
from oncofm.biomarkers.head import Layer
from oncofm.errors import EvaluationError

_RANK_TOLERANCE = 1e-10
"""Directions with less than this share of the largest spread are rounding."""

_GRADIENT = {"newton-cholesky": 1e-10, "lbfgs": 1e-6}
"""Largest element of the mean loss's gradient at which scikit-learn stops; Newton gets there in a
step or two more, which makes the result independent of where it started."""

_SMALL_DECREASE = 1e-10
"""Share of the Cox loss; where Newton foresees less, its next step is the last: the error is
squared with every step, and a float can hardly show the decrease."""

_MAX_ITERATIONS = 10_000
_MAX_NEWTON_STEPS = 200


@dataclass(frozen=True, eq=False)
class _Reduced:
    """Standardised features in coordinates of the space that they span."""

    coordinates: np.ndarray
    """Shape (n, rank) float64."""

    axes: np.ndarray
    """Shape (rank, n_features) float64, orthonormal rows."""

    mean: np.ndarray
    scale: np.ndarray

    def layer(self, weight: np.ndarray, bias: np.ndarray) -> Layer:
        """Fold axes and scaler into weights on the coordinates: shape (k, rank) and (k,)."""
        folded = weight @ self.axes / self.scale
        return Layer(folded, bias - folded @ self.mean)


def fit_logistic(features: np.ndarray, labels: np.ndarray, cs: Sequence[float]) -> list[Layer]:
    """Fit a logistic regression for every C.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (n, n_features) float64, finite.
    labels : numpy.ndarray
        Shape (n,) int: 0 ... n_classes - 1, all of them present.
    cs : sequence of float
        Ascending, so that each fit starts from a near one.

    Returns
    -------
    list of Layer
        For features as they are; one row for two classes, else one per class.

    Raises
    ------
    MissingExtraError
        Without scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise missing_extra("Fitting a head", error) from error
    reduced = _reduce(features)
    solver = "newton-cholesky" if labels.max() == 1 else "lbfgs"
    model = LogisticRegression(
        solver=solver, warm_start=True, tol=_GRADIENT[solver], max_iter=_MAX_ITERATIONS
    )
    layers = []
    for c in cs:
        model.set_params(C=c).fit(reduced.coordinates, labels)
        layers.append(reduced.layer(model.coef_, np.asarray(model.intercept_)))
    return layers


def fit_cox(features: np.ndarray, outcomes: np.ndarray, cs: Sequence[float]) -> list[Layer]:
    """Fit a Cox regression for every C; equal event times as Breslow treats them.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (n, n_features) float64, finite.
    outcomes : numpy.ndarray
        Shape (n, 2) float64: time, and 1 for an event, else 0; at least one event.
    cs : sequence of float
        Ascending.

    Returns
    -------
    list of Layer
        One row: the log hazard ratio to a case with the mean features.

    Raises
    ------
    EvaluationError
        If a fit does not converge.
    """
    reduced = _reduce(features)
    weight = np.zeros(reduced.coordinates.shape[1])
    layers = []
    for c in cs:
        weight = _newton(_PartialLikelihood(reduced.coordinates, outcomes), weight, c)
        layers.append(reduced.layer(weight[None], np.zeros(1)))
    return layers


def _reduce(features: np.ndarray) -> _Reduced:
    mean, scale = features.mean(axis=0), features.std(axis=0)
    constant = scale <= 1e-12 * np.abs(mean)
    scale[constant] = 1.0  # such a feature tells nothing
    standardised = np.where(constant, 0.0, (features - mean) / scale)
    left, spread, axes = np.linalg.svd(standardised, full_matrices=False)
    rank = max(1, int((spread > _RANK_TOLERANCE * spread[0]).sum()))
    return _Reduced(left[:, :rank] * spread[:rank], axes[:rank], mean, scale)


class _PartialLikelihood:
    """Negative logarithm of Cox's partial likelihood, with its derivatives."""

    def __init__(self, x: np.ndarray, outcomes: np.ndarray) -> None:
        order = np.argsort(-outcomes[:, 0], kind="stable")  # the last first
        times, self._events = outcomes[order, 0], outcomes[order, 1] == 1
        self._x = x[order]
        # At risk at a case's time are all before it in this order, and those of the same time.
        self._last = np.searchsorted(-times, -times, side="right") - 1

    def value(self, weight: np.ndarray) -> float:
        scores = self._x @ weight
        at_risk = np.logaddexp.accumulate(scores)[self._last]
        return float((at_risk - scores)[self._events].sum())

    def derivatives(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient, shape (k,), and Hessian, shape (k, k)."""
        x, events = self._x, self._events
        scores = x @ weight
        at_risk = np.logaddexp.accumulate(scores)[self._last[events]]
        # Row: an event; column: a case; each case's share of the hazard then. Never above 1.
        shares = np.exp(np.minimum(scores - at_risk[:, None], 0))
        shares[np.arange(len(x)) > self._last[events][:, None]] = 0
        means = shares @ x
        expected = shares.sum(axis=0)
        gradient = x.T @ (expected - events)
        hessian = (x * expected[:, None]).T @ x - means.T @ means
        return gradient, hessian


def _newton(loss: _PartialLikelihood, weight: np.ndarray, c: float) -> np.ndarray:
    """Minimise c * loss + |weight|^2 / 2, which has one minimum."""

    def value(point: np.ndarray) -> float:
        return c * loss.value(point) + float(point @ point) / 2

    now = value(weight)
    for _ in range(_MAX_NEWTON_STEPS):
        gradient, hessian = loss.derivatives(weight)
        slope = c * gradient + weight
        step = np.linalg.solve(c * hessian + np.eye(len(weight)), slope)
        decrement = float(slope @ step)
        if not np.isfinite(decrement):
            break
        if decrement <= _SMALL_DECREASE * max(1.0, abs(now)):
            return weight - step
        size = 1.0
        while (then := value(weight - size * step)) > now - 1e-4 * size * decrement:
            size /= 2
        weight, now = weight - size * step, then
    raise EvaluationError(
        f"A Cox regression with C = {c:g} did not converge; are there features without spread?"
    )
