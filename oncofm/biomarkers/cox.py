"""Cox's proportional hazards model with one covariate."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from oncofm.biomarkers.bootstrap import LEVEL
from oncofm.biomarkers.checks import finite_vector
from oncofm.biomarkers.survival import survival_times
from oncofm.errors import EvaluationError

_MAX_STEPS = 50
_SMALL_STEP = 1e-11
_FLAT = 1e-10
"""Curvature per event, for a standardised covariate, that is rounding error only."""
_STEEP = 600
"""Log hazard beyond which weights underflow."""


@dataclass(frozen=True)
class HazardRatio:
    """Hazard ratio of one unit of a covariate, from Cox's model with Efron's ties.

    Attributes
    ----------
    value, low, high : float
        Ratio with its Wald interval.
    level : float
        Of the interval.
    coefficient, standard_error : float
        Of the log hazard ratio.
    p : float
        Two-sided, Wald.
    """

    value: float
    low: float
    high: float
    level: float
    coefficient: float
    standard_error: float
    p: float


def hazard_ratio(times: Any, events: Any, covariate: Any, level: float = LEVEL) -> HazardRatio:
    """Fit Cox's model with one covariate: a risk group (0 and 1), or a score.

    Parameters
    ----------
    times, events, covariate : array_like
        Shape (n,).
    level : float
        Of the interval, between 0 and 1.

    Raises
    ------
    EvaluationError
        As `survival_times`, also if the covariate is constant or its ratio is without bound, for
        example because one group has no events.
    """
    if not 0 < level < 1:
        raise EvaluationError(f"The level {level:g} of an interval must lie between 0 and 1.")
    spans, came = survival_times(times, events)
    values = finite_vector(covariate, "values of the covariate", len(spans))
    if values.min() == values.max():
        raise EvaluationError("All cases have the same value of the covariate; there is no ratio.")
    size = float(np.abs(values).max())  # first, so that no value is too large to be squared
    values = values / size
    spread = float(values.std())
    scaled, error = _fit_cox(spans, came, (values - values.mean()) / spread)
    coefficient, error = scaled / spread / size, error / spread / size
    margin = NormalDist().inv_cdf((1 + level) / 2) * error
    return HazardRatio(
        value=_exp(coefficient),
        low=_exp(coefficient - margin),
        high=_exp(coefficient + margin),
        level=level,
        coefficient=coefficient,
        standard_error=error,
        p=math.erfc(abs(coefficient) / error / math.sqrt(2)),
    )


def _fit_cox(spans: np.ndarray, came: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Coefficient and standard error for a standardised covariate, by Newton's method."""
    order = np.argsort(-spans, kind="stable")
    spans, came, x = spans[order], came[order], x[order]
    beta = 0.0
    likelihood, slope, curvature = _partial_likelihood(beta, spans, came, x)
    for _ in range(_MAX_STEPS):
        if curvature < _FLAT * came.sum() or abs(beta) * np.abs(x).max() > _STEEP:
            break
        step = slope / curvature
        if abs(step) < _SMALL_STEP:
            return beta, 1 / math.sqrt(curvature)
        step = math.copysign(min(abs(step), 5.0), step)
        tried = _partial_likelihood(beta + step, spans, came, x)
        while tried[0] < likelihood - 1e-9 * abs(likelihood) and abs(step) > _SMALL_STEP:
            step /= 2
            tried = _partial_likelihood(beta + step, spans, came, x)
        beta += step
        likelihood, slope, curvature = tried
    raise EvaluationError(
        "The hazard ratio is without bound: the covariate separates the cases with events from "
        "the others (a group without events?)."
    )


def _partial_likelihood(
    beta: float, spans: np.ndarray, came: np.ndarray, x: np.ndarray
) -> tuple[float, float, float]:
    """Efron's log partial likelihood, its slope and its negative curvature; latest time first."""
    shift = (beta * x).max()
    weights = np.exp(beta * x - shift)
    moments = weights * np.stack([np.ones_like(x), x, x * x])
    starts = np.flatnonzero(np.r_[True, spans[1:] != spans[:-1]])
    last = np.r_[starts[1:], len(spans)] - 1
    group = np.repeat(np.arange(len(starts)), last - starts + 1)
    n_tied = np.bincount(group, came)
    tied = np.stack([np.bincount(group, came * row) for row in moments])
    at_risk = np.cumsum(moments, axis=1)[:, last]
    # Of d tied events, the l-th (from 0) leaves l / d of all of them out of the risk set.
    of_event = group[came]
    first_of_group = np.r_[0, np.cumsum(n_tied)[:-1]]
    share = (np.arange(len(of_event)) - first_of_group[of_event]) / n_tied[of_event]
    zeroth, first, second = at_risk[:, of_event] - share * tied[:, of_event]
    means = first / zeroth
    likelihood = (beta * x - shift)[came].sum() - np.log(zeroth).sum()
    slope = x[came].sum() - means.sum()
    return float(likelihood), float(slope), float((second / zeroth - means**2).sum())


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
