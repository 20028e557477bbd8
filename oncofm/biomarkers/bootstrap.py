"""How sure a statistic is: case resampling and paired permutation, seeded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from oncofm.biomarkers.metrics import Statistic, exact
from oncofm.errors import EvaluationError

LEVEL = 0.95
N_RESAMPLES = 1000

_BLOCK_NUMBERS = 4_000_000
"""Counts held at a time (32 MB); more cases mean smaller blocks of resamples."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap.

    Attributes
    ----------
    value : float
        Exact, on the cases as they are.
    mean : float
        Over the resamples.
    low, high : float
        Percentile interval of `level`.
    level : float
        Coverage asked for, 0 to 1.
    n_resamples, n_undefined : int
        Resamples drawn, and those among them that did not define the statistic (for example with
        one class only) and were left out.
    """

    value: float
    mean: float
    low: float
    high: float
    level: float
    n_resamples: int
    n_undefined: int


@dataclass(frozen=True)
class PermutationTest:
    """Whether two models differ, by swapping their predictions case by case.

    Attributes
    ----------
    difference : float
        Statistic of the first less that of the second.
    p : float
        Two-sided, (1 + permutations at least as extreme) / (1 + permutations).
    n_permutations : int
        Random ones, besides the observed assignment.
    """

    difference: float
    p: float
    n_permutations: int


def bootstrap(
    statistic: Statistic,
    n_cases: int,
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    groups: Any = None,
) -> Estimate:
    """Resample cases with replacement, unstratified, and take percentiles.

    Parameters
    ----------
    statistic : Statistic
        Of case counts. The difference of two statistics gives a paired comparison.
    n_cases : int
        How many cases it is about.
    seed : int
        Same seed, same cases: same resamples, whatever the statistic.
    n_resamples : int
        How many.
    level : float
        Of the interval, between 0 and 1.
    groups : array_like, optional
        Shape (n_cases,): whole groups (patients, scans) are drawn instead of cases.

    Raises
    ------
    EvaluationError
        If the statistic is undefined on the cases or on half of the resamples, or a parameter
        cannot be.
    """
    if not 0 < level < 1:
        raise EvaluationError(f"The level {level:g} of an interval must lie between 0 and 1.")
    value = _defined(exact(statistic, n_cases))
    units = _units(groups, n_cases)
    values = np.concatenate(
        [statistic(counts[:, units]) for counts in _drawn(units, n_resamples, seed)]
    )
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= n_resamples:
        raise EvaluationError(
            f"{n_resamples - len(defined)} of {n_resamples} resamples do not define the statistic; "
            "there are too few cases for a bootstrap."
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=value,
        mean=float(defined.mean()),
        low=float(low),
        high=float(high),
        level=level,
        n_resamples=n_resamples,
        n_undefined=n_resamples - len(defined),
    )


def permutation_test(
    pooled: Statistic,
    n_cases: int,
    *,
    seed: int,
    n_permutations: int = N_RESAMPLES,
    groups: Any = None,
) -> PermutationTest:
    """Test whether two models of the same cases have the same value of a statistic.

    Under the null hypothesis the two predictions of a case are exchangeable, so their scores have
    to be on one scale: rank them first (`midranks`) where the statistic is about ranks.

    Parameters
    ----------
    pooled : Statistic
        Made of the cases twice: the ``n_cases`` predictions of the first model, then those of the
        second, with the labels repeated.
    n_cases : int
        How many cases each model has.
    seed : int
        Of the swaps.
    n_permutations : int
        How many.
    groups : array_like, optional
        Shape (n_cases,): all cases of a group are swapped together.

    Raises
    ------
    EvaluationError
        If the statistic is undefined, or a parameter cannot be.
    """
    if n_permutations < 1:
        raise EvaluationError(f"{n_permutations} permutations were asked for; take 1 or more.")
    units = _units(groups, n_cases)
    observed = _defined(float(_swapped_difference(pooled, np.zeros((1, n_cases)))[0]))
    random = np.random.default_rng(seed)
    extreme = 0
    for size in _blocks(n_permutations, 2 * n_cases):
        swaps = random.integers(0, 2, (size, units.max() + 1)).astype(np.float64)[:, units]
        differences = np.abs(_swapped_difference(pooled, swaps))
        # Permutations that equal the observed assignment may differ from it in the last bits.
        extreme += int((differences >= abs(observed) - 1e-12).sum())
    return PermutationTest(
        difference=observed,
        p=(1 + extreme) / (1 + n_permutations),
        n_permutations=n_permutations,
    )


def midranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal scores sharing their mean rank: shape (n,) float64."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _swapped_difference(pooled: Statistic, swaps: np.ndarray) -> np.ndarray:
    first = np.concatenate([1 - swaps, swaps], axis=1)
    return pooled(first) - pooled(1 - first)


def _units(groups: Any, n_cases: int) -> np.ndarray:
    """Give the number of the unit that each case belongs to: shape (n_cases,) int."""
    if groups is None:
        return np.arange(n_cases)
    array = np.asarray(groups)
    if array.shape != (n_cases,):
        raise EvaluationError(f"There are {array.size} groups for {n_cases} cases; give one each.")
    return np.unique(array.astype(str), return_inverse=True)[1]


def _drawn(units: np.ndarray, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit is drawn: blocks of shape (size, n_units) float64."""
    if n_resamples < 1:
        raise EvaluationError(f"{n_resamples} resamples were asked for; take 1 or more.")
    n_units = int(units.max()) + 1
    if n_units < 2:
        raise EvaluationError("All cases are of one group; a bootstrap needs two or more.")
    random = np.random.default_rng(seed)
    for size in _blocks(n_resamples, len(units)):
        drawn = random.integers(0, n_units, (size, n_units)) + n_units * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n_units)
        yield counts.reshape(size, n_units).astype(np.float64)


def _blocks(n_rows: int, row_length: int) -> Iterator[int]:
    size = max(1, _BLOCK_NUMBERS // row_length)
    for start in range(0, n_rows, size):
        yield min(size, n_rows - start)


def _defined(value: float) -> float:
    if np.isnan(value):
        raise EvaluationError("The cases do not define the statistic; are both classes there?")
    return value
