"""The statistics of a model by name, with intervals, and models against each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from oncofm.biomarkers.bootstrap import (
    Estimate,
    PermutationTest,
    bootstrap,
    midranks,
    permutation_test,
)
from oncofm.biomarkers.checks import finite_vector
from oncofm.biomarkers.delong import DeLongTest, delong_test
from oncofm.biomarkers.evaluation import Comparison, Sampling
from oncofm.biomarkers.metrics import (
    Statistic,
    auc_statistic,
    average_precision_statistic,
    balanced_accuracy_statistic,
    brier_statistic,
    macro_statistic,
    multiclass_brier_statistic,
)


@dataclass(frozen=True)
class StatisticMaker:
    """Makes a statistic of labels and scores; `ranked` if only the order of scores matters."""

    make: Callable[[Any, Any], Statistic]
    ranked: bool


def binary_statistics(threshold: float) -> dict[str, StatisticMaker]:
    """Statistics of two classes; scores are probabilities of the second.

    Raises
    ------
    EvaluationError
        If the threshold, from which on a case is called positive, is not finite.
    """
    limit = float(finite_vector([threshold], "thresholds")[0])

    def balanced(labels: Any, scores: np.ndarray) -> Statistic:
        return balanced_accuracy_statistic(labels, scores >= limit)

    return {
        "auc": StatisticMaker(auc_statistic, ranked=True),
        "average_precision": StatisticMaker(average_precision_statistic, ranked=True),
        "balanced_accuracy": StatisticMaker(balanced, ranked=False),
        "brier": StatisticMaker(brier_statistic, ranked=False),
    }


def _macro(of_one_class: Callable[[Any, Any], Statistic]) -> StatisticMaker:
    return StatisticMaker(
        lambda labels, scores: macro_statistic(labels, scores, of_one_class), True
    )


def _most_probable(labels: Any, scores: np.ndarray) -> Statistic:
    return balanced_accuracy_statistic(labels, scores.argmax(axis=1), scores.shape[1])


MULTICLASS_STATISTICS: dict[str, StatisticMaker] = {
    "auc": _macro(auc_statistic),
    "average_precision": _macro(average_precision_statistic),
    "balanced_accuracy": StatisticMaker(_most_probable, ranked=False),
    "brier": StatisticMaker(multiclass_brier_statistic, ranked=False),
}
"""Of three or more classes; scores have a column for each."""


def estimates(
    labels: np.ndarray,
    scores: np.ndarray,
    makers: Mapping[str, StatisticMaker],
    sampling: Sampling,
    groups: np.ndarray | None,
) -> dict[str, Estimate]:
    """Compute the statistics of one model with their intervals, by name.

    Parameters
    ----------
    labels : numpy.ndarray
        Shape (n,): what the makers take.
    scores : numpy.ndarray
        Shape (n,) or (n, n_classes).
    makers : mapping of str to StatisticMaker
        By name.
    sampling : Sampling
        Of the intervals.
    groups : numpy.ndarray or None
        Shape (n,): what is resampled as a whole.

    Raises
    ------
    EvaluationError
        If a statistic is undefined.
    """
    return {
        name: _bootstrap(maker.make(labels, scores), len(labels), sampling, groups)
        for name, maker in makers.items()
    }


def _bootstrap(
    statistic: Statistic, n_cases: int, sampling: Sampling, groups: np.ndarray | None
) -> Estimate:
    return bootstrap(
        statistic,
        n_cases,
        seed=sampling.seed,
        n_resamples=sampling.n_resamples,
        level=sampling.level,
        groups=groups,
    )


def compare(
    labels: np.ndarray,
    scores: Mapping[str, np.ndarray],
    makers: Mapping[str, StatisticMaker],
    sampling: Sampling,
    groups: np.ndarray | None,
    delong: tuple[str, ...] = (),
) -> tuple[Comparison, ...]:
    """Compare every two models in every statistic.

    Parameters
    ----------
    labels, makers, sampling, groups
        As of `estimates`.
    scores : mapping of str to numpy.ndarray
        Of each model.
    delong : tuple of str
        Statistics that DeLong's test is about.

    Raises
    ------
    EvaluationError
        If a statistic is undefined.
    """
    return tuple(
        Comparison(
            first=first,
            second=second,
            metric=metric,
            difference=_difference(labels, scores[first], scores[second], maker, sampling, groups),
            permutation=_permutation(
                labels, scores[first], scores[second], maker, sampling, groups
            ),
            delong=_delong(labels, scores[first], scores[second], sampling.level)
            if metric in delong
            else None,
        )
        for first, second in combinations(scores, 2)
        for metric, maker in makers.items()
    )


def _difference(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    maker: StatisticMaker,
    sampling: Sampling,
    groups: np.ndarray | None,
) -> Estimate:
    of_first, of_second = maker.make(labels, first), maker.make(labels, second)
    return _bootstrap(
        lambda counts: of_first(counts) - of_second(counts), len(labels), sampling, groups
    )


def _permutation(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    maker: StatisticMaker,
    sampling: Sampling,
    groups: np.ndarray | None,
) -> PermutationTest:
    if maker.ranked:
        first, second = _ranked(first), _ranked(second)
    return permutation_test(
        maker.make(np.concatenate([labels, labels]), np.concatenate([first, second])),
        len(labels),
        seed=sampling.seed,
        n_permutations=sampling.n_permutations,
        groups=groups,
    )


def _delong(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, level: float
) -> DeLongTest | None:
    """Test, or None with fewer than two cases of a class: each model's notes say so."""
    if min(np.bincount(labels)) < 2:
        return None
    return delong_test(labels, first, second, level)


def _ranked(scores: np.ndarray) -> np.ndarray:
    return np.apply_along_axis(midranks, 0, scores)
