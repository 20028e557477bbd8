"""DeLong's variance of the area under the ROC curve, and the paired test that follows from it.

DeLong, DeLong and Clarke-Pearson, Biometrics 1988; by ranks as Sun and Xu, IEEE SPL 2014.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from oncofm.biomarkers.bootstrap import LEVEL, midranks
from oncofm.biomarkers.checks import binary_labels, finite_vector
from oncofm.errors import EvaluationError


@dataclass(frozen=True)
class DeLongInterval:
    """An AUC with its standard error and Wald interval, cut at 0 and 1."""

    auc: float
    standard_error: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class DeLongTest:
    """Whether two AUCs of the same cases differ.

    Attributes
    ----------
    difference : float
        AUC of the first less that of the second.
    low, high : float
        Wald interval of the difference, of `level`.
    level : float
        Coverage asked for.
    z : float
        Difference over its standard error; infinite where that is 0 and the AUCs differ.
    p : float
        Two-sided.
    """

    difference: float
    low: float
    high: float
    level: float
    z: float
    p: float


def delong_covariance(labels: Any, *scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """AUCs of models on the same cases, and their covariance.

    Parameters
    ----------
    labels : array_like
        Shape (n,): 1 for the positive class, else 0.
    *scores : array_like
        Shape (n,) for each of the m models: higher is more positive.

    Returns
    -------
    aucs : numpy.ndarray
        Shape (m,) float64.
    covariance : numpy.ndarray
        Shape (m, m) float64.

    Raises
    ------
    EvaluationError
        If a class has fewer than two cases, or a score is not finite.
    """
    positive = binary_labels(labels)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if min(n_positive, n_negative) < 2:
        raise EvaluationError(
            f"There are {n_positive} positive and {n_negative} negative cases; DeLong's variance "
            "needs two of each."
        )
    of_positives, of_negatives = [], []
    for values in scores:
        vector = finite_vector(values, "scores", len(positive))
        ranks = midranks(vector)
        above = (ranks[positive] - midranks(vector[positive])) / n_negative
        below = 1 - (ranks[~positive] - midranks(vector[~positive])) / n_positive
        of_positives.append(above)
        of_negatives.append(below)
    aucs = np.mean(of_positives, axis=1)
    covariance = np.atleast_2d(np.cov(of_positives)) / n_positive
    return aucs, covariance + np.atleast_2d(np.cov(of_negatives)) / n_negative


def delong_interval(labels: Any, scores: Any, level: float = LEVEL) -> DeLongInterval:
    """AUC with DeLong's interval; errors as for `delong_covariance`."""
    aucs, covariance = delong_covariance(labels, scores)
    auc, error = float(aucs[0]), math.sqrt(max(0.0, covariance[0, 0]))
    margin = _normal_quantile(level) * error
    return DeLongInterval(auc, error, max(0.0, auc - margin), min(1.0, auc + margin), level)


def delong_test(labels: Any, first: Any, second: Any, level: float = LEVEL) -> DeLongTest:
    """Compare two models on the same cases; errors as for `delong_covariance`."""
    aucs, covariance = delong_covariance(labels, first, second)
    difference = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    # Models that rank alike leave a difference and a variance of rounding errors only.
    error = math.sqrt(variance) if variance > 1e-15 else 0.0
    if error:
        z = difference / error
    else:
        z = math.copysign(math.inf, difference) if abs(difference) > 1e-12 else 0.0
    margin = _normal_quantile(level) * error
    return DeLongTest(
        difference=difference,
        low=difference - margin,
        high=difference + margin,
        level=level,
        z=z,
        p=math.erfc(abs(z) / math.sqrt(2)),
    )


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise EvaluationError(f"The level {level:g} of an interval must lie between 0 and 1.")
    return NormalDist().inv_cdf((1 + level) / 2)
