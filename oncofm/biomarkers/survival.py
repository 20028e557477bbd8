"""Survival: agreement of risk with time, curves of groups, and how much the groups differ.

A case is a time and whether the event came then (1) or observation ended (0). Times are in any
one unit; risks are higher where the event is expected earlier.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from oncofm.biomarkers.bootstrap import LEVEL
from oncofm.biomarkers.checks import binary_labels, finite_vector, zero_or_one
from oncofm.biomarkers.metrics import Statistic, exact
from oncofm.errors import EvaluationError

_ROWS_AT_A_TIME = 512


def survival_times(times: Any, events: Any) -> tuple[np.ndarray, np.ndarray]:
    """Insist on times that are not negative and on events that are 0 or 1, one of them 1.

    Returns
    -------
    times : numpy.ndarray
        Shape (n,) float64.
    events : numpy.ndarray
        Shape (n,) bool.

    Raises
    ------
    EvaluationError
        If a value cannot be, or there is no event.
    """
    spans = finite_vector(times, "survival times")
    came = zero_or_one(finite_vector(events, "events", len(spans)), "events")
    if spans.min() < 0:
        raise EvaluationError(
            f"Survival time {spans.min():g} of case {int(spans.argmin()) + 1} is negative; "
            "correct the table."
        )
    if not came.any():
        raise EvaluationError(f"None of {len(spans)} cases has an event; nothing can be compared.")
    return spans, came


def censor(times: Any, events: Any, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """End the observation at a horizon; an event at the horizon itself still counts.

    Parameters
    ----------
    times, events : array_like
        Shape (n,).
    horizon : float
        In the unit of the times, above 0; the published curves end at 5 years.

    Returns
    -------
    times, events : numpy.ndarray
        Shape (n,) float64 and bool.

    Raises
    ------
    EvaluationError
        As `survival_times`, also if no event is left.
    """
    if not horizon > 0:
        raise EvaluationError(f"The horizon {horizon:g} must be above 0.")
    spans, came = survival_times(times, events)
    return survival_times(np.minimum(spans, horizon), came & (spans <= horizon))


# --- concordance ---------------------------------------------------------------------------


def concordance_statistic(times: Any, events: Any, risks: Any) -> Statistic:
    """Harrell's C: how often, of two cases, the one with the earlier event has the higher risk.

    Pairs count where one case had the event before the other's time, or at the same time as
    the other was censored. Equal risks count one half.

    Parameters
    ----------
    times, events, risks : array_like
        Shape (n,).

    Raises
    ------
    EvaluationError
        As `survival_times`, also if a risk is not finite.
    """
    spans, came = survival_times(times, events)
    risk = finite_vector(risks, "risks", len(spans))
    with_event = np.flatnonzero(came)

    def statistic(counts: np.ndarray) -> np.ndarray:
        wins, pairs = np.zeros(len(counts)), np.zeros(len(counts))
        for start in range(0, len(with_event), _ROWS_AT_A_TIME):
            rows = with_event[start : start + _ROWS_AT_A_TIME]
            earlier = _earlier(spans, came, rows)
            higher = np.where(risk[rows, None] == risk, 0.5, risk[rows, None] > risk)
            concordant = earlier * higher
            wins += (counts[:, rows] * (counts @ concordant.T)).sum(axis=1)
            pairs += (counts[:, rows] * (counts @ earlier.T)).sum(axis=1)
        return np.divide(wins, pairs, out=np.full_like(wins, np.nan), where=pairs > 0)

    return statistic


def concordance_index(times: Any, events: Any, risks: Any) -> float:
    """Harrell's C; see `concordance_statistic`.

    Raises
    ------
    EvaluationError
        Also if no two cases can be ordered.
    """
    statistic = concordance_statistic(times, events, risks)
    value = exact(statistic, len(times))
    if math.isnan(value):
        raise EvaluationError("No two cases can be ordered by their survival times.")
    return value


def _earlier(spans: np.ndarray, came: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether the event of case ``rows[i]`` was before case j ended: (len(rows), n) float64."""
    before = spans[rows, None] < spans
    return (before | ((spans[rows, None] == spans) & ~came)).astype(np.float64)


# --- curves --------------------------------------------------------------------------------


@dataclass(frozen=True)
class KaplanMeier:
    """A survival curve: a step down at each time with events.

    Attributes
    ----------
    times : tuple of float
        0, then every distinct time.
    survival : tuple of float
        Share without the event after that time.
    low, high : tuple of float or None
        Log-log (exponential Greenwood) interval; None once the curve is at 0.
    level : float
        Of the interval.
    at_risk, events, censored : tuple of int
        Cases just before that time, and what happened to them at it.
    median : float or None
        First time at which the share is one half or less.
    """

    times: tuple[float, ...]
    survival: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    level: float
    at_risk: tuple[int, ...]
    events: tuple[int, ...]
    censored: tuple[int, ...]
    median: float | None


def kaplan_meier(times: Any, events: Any, level: float = LEVEL) -> KaplanMeier:
    """Estimate a survival curve.

    Parameters
    ----------
    times, events : array_like
        Shape (n,); a group may be without events.
    level : float
        Of the pointwise interval, between 0 and 1.
    """
    if not 0 < level < 1:
        raise EvaluationError(f"The level {level:g} of an interval must lie between 0 and 1.")
    spans = finite_vector(times, "survival times")
    came = zero_or_one(finite_vector(events, "events", len(spans)), "events")
    distinct, inverse = np.unique(np.r_[0.0, spans], return_inverse=True)
    deaths = np.bincount(inverse[1:], came, len(distinct))
    ended = np.bincount(inverse[1:], minlength=len(distinct))
    at_risk = np.cumsum(ended[::-1])[::-1]
    survival = np.cumprod(1 - deaths / at_risk)
    low, high = _log_log_interval(survival, deaths, at_risk, level)
    halved = np.flatnonzero(survival <= 0.5 + 1e-12)
    return KaplanMeier(
        times=tuple(distinct.tolist()),
        survival=tuple(survival.tolist()),
        low=low,
        high=high,
        level=level,
        at_risk=tuple(at_risk.tolist()),
        events=tuple(deaths.astype(int).tolist()),
        censored=tuple((ended - deaths).astype(int).tolist()),
        median=float(distinct[halved[0]]) if len(halved) else None,
    )


def _log_log_interval(
    survival: np.ndarray, deaths: np.ndarray, at_risk: np.ndarray, level: float
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    width = NormalDist().inv_cdf((1 + level) / 2)
    low: list[float | None] = []
    high: list[float | None] = []
    greenwood = 0.0
    for share, d, n in zip(survival.tolist(), deaths.tolist(), at_risk.tolist(), strict=True):
        if d == n or share <= 0:  # at 0 the log of the curve has no variance
            low.append(None)
            high.append(None)
            continue
        greenwood += d / (n * (n - d))
        if share == 1:
            low.append(1.0)
            high.append(1.0)
            continue
        margin = width * math.sqrt(greenwood) / abs(math.log(share))
        low.append(share ** math.exp(margin))
        high.append(share ** math.exp(-margin))
    return tuple(low), tuple(high)


# --- groups --------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogRank:
    """Log-rank test of two groups: chi-squared with one degree of freedom."""

    chi_squared: float
    p: float


def log_rank(times: Any, events: Any, groups: Any) -> LogRank:
    """Test whether two groups have the same survival.

    Parameters
    ----------
    times, events, groups : array_like
        Shape (n,); groups are 0 and 1.

    Raises
    ------
    EvaluationError
        As `survival_times`, also if one group is empty or the groups never overlap in time.
    """
    spans, came = survival_times(times, events)
    second = binary_labels(finite_vector(groups, "risk groups", len(spans)), "risk groups")
    moments, inverse = np.unique(spans, return_inverse=True)
    size = len(moments)
    deaths = np.bincount(inverse, came, size)
    at_risk = np.cumsum(np.bincount(inverse, minlength=size)[::-1])[::-1].astype(float)
    at_risk_second = np.cumsum(np.bincount(inverse, second, size)[::-1])[::-1]
    share = at_risk_second / at_risk
    excess = (came & second).sum() - (deaths * share).sum()
    remaining = np.maximum(at_risk - 1, 1)  # alone at risk: the variance is 0, whatever divides it
    variance = (deaths * share * (1 - share) * (at_risk - deaths) / remaining).sum()
    if variance <= 0:
        raise EvaluationError("The two groups are never at risk at the same time as an event.")
    chi_squared = float(excess**2 / variance)
    return LogRank(chi_squared, math.erfc(math.sqrt(chi_squared / 2)))
