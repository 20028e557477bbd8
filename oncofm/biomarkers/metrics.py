"""How well scores agree with labels: exact values, and the same statistics of resampled cases.

A statistic of resampled cases is a function of counts: how often each case was drawn. Sorting
is done once when the statistic is made, so a thousand resamples cost a few matrix operations,
and the exact value is the statistic of drawing every case once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from oncofm.biomarkers.checks import (
    binary_labels,
    class_indices,
    finite_matrix,
    finite_vector,
    probabilities,
    zero_or_one,
)
from oncofm.errors import EvaluationError

Statistic = Callable[[np.ndarray], np.ndarray]
"""From counts, shape (n_resamples, n) float64, to values, shape (n_resamples,) float64; NaN where
a resample does not define the value, for example with one class only."""


def exact(statistic: Statistic, n_cases: int) -> float:
    """Value of a statistic on the cases as they are."""
    return float(statistic(np.ones((1, n_cases)))[0])


# --- statistics of case counts -------------------------------------------------------------


def auc_statistic(labels: Any, scores: Any) -> Statistic:
    """Area under the ROC curve; ties count one half.

    Parameters
    ----------
    labels : array_like
        Shape (n,): 1 for the positive class, else 0.
    scores : array_like
        Shape (n,): higher is more positive.

    Raises
    ------
    EvaluationError
        If there is one class only, or a score that is not finite.
    """
    positive, order, starts = _by_score(labels, scores)

    def statistic(counts: np.ndarray) -> np.ndarray:
        positives, negatives = _group_sums(counts, positive, order, starts)
        below = np.cumsum(negatives, axis=1) - negatives
        wins = (positives * (below + 0.5 * negatives)).sum(axis=1)
        return _ratio(wins, positives.sum(axis=1) * negatives.sum(axis=1))

    return statistic


def average_precision_statistic(labels: Any, scores: Any) -> Statistic:
    """Average precision: the step-wise sum of precision times gain in recall over thresholds.

    Parameters and errors as for `auc_statistic`. Cases of one score enter together.
    """
    positive, order, starts = _by_score(labels, scores)

    def statistic(counts: np.ndarray) -> np.ndarray:
        positives, negatives = _group_sums(counts, positive, order, starts)
        found = _from_the_top(positives)
        called = found + _from_the_top(negatives)
        # A group that was not drawn adds no recall; only its 0 / 0 has to be avoided.
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        defined = negatives.sum(axis=1) > 0
        values = _ratio((positives * precision).sum(axis=1), positives.sum(axis=1))
        return np.where(defined, values, np.nan)

    return statistic


def balanced_accuracy_statistic(labels: Any, predicted: Any, n_classes: int = 2) -> Statistic:
    """Mean over the classes of the share of their cases that were recognised.

    Parameters
    ----------
    labels, predicted : array_like
        Shape (n,): class numbers 0 ... n_classes - 1.
    n_classes : int
        Classes without cases do not count; a resample that lost a class that is there counts
        as undefined.

    Raises
    ------
    EvaluationError
        If there is one class only, or a number that is no class.
    """
    truth = class_indices(labels, n_classes)
    called = finite_vector(predicted, "predicted classes", len(truth))
    present = np.unique(truth)
    members = (truth[:, None] == present).astype(np.float64)
    hits = members * (called == truth)[:, None]

    def statistic(counts: np.ndarray) -> np.ndarray:
        return _ratio(counts @ hits, counts @ members).mean(axis=1)

    return statistic


def brier_statistic(labels: Any, predicted: Any) -> Statistic:
    """Mean squared difference between the probability of class 1 and the label.

    Parameters
    ----------
    labels : array_like
        Shape (n,): 0 or 1.
    predicted : array_like
        Shape (n,): probability of class 1.

    Raises
    ------
    EvaluationError
        If a label is neither 0 nor 1, or a probability not between 0 and 1.
    """
    truth = zero_or_one(labels, "labels")
    return _mean_statistic((probabilities(predicted, len(truth)) - truth) ** 2)


def multiclass_brier_statistic(labels: Any, predicted: Any) -> Statistic:
    """Mean over the cases of the squared differences summed over the classes, 0 to 2.

    Parameters
    ----------
    labels : array_like
        Shape (n,): class numbers.
    predicted : array_like
        Shape (n, n_classes): probabilities.
    """
    table = finite_matrix(predicted, "probabilities")
    n_classes = table.shape[1]
    truth = class_indices(labels, n_classes)
    table = probabilities(table, len(truth), n_classes)
    return _mean_statistic(((table - np.eye(n_classes)[truth]) ** 2).sum(axis=1))


def macro_statistic(
    labels: Any, scores: Any, of_one_class: Callable[[Any, Any], Statistic]
) -> Statistic:
    """Unweighted mean over the classes of a binary statistic, each class against the rest.

    Parameters
    ----------
    labels : array_like
        Shape (n,): class numbers.
    scores : array_like
        Shape (n, n_classes): higher is more of that class.
    of_one_class : callable
        `auc_statistic` or `average_precision_statistic`.

    Raises
    ------
    EvaluationError
        If a class has no case.
    """
    table = finite_matrix(scores, "scores")
    n_classes = table.shape[1]
    truth = class_indices(labels, n_classes)
    if len(table) != len(truth):
        raise EvaluationError(f"There are {len(table)} scores for {len(truth)} cases.")
    absent = sorted(set(range(n_classes)) - set(truth.tolist()))
    if absent:
        raise EvaluationError(
            f"Class {absent[0]} of {n_classes} has no case; a mean over all classes needs some "
            "of each."
        )
    parts = [of_one_class(truth == index, table[:, index]) for index in range(n_classes)]
    return lambda counts: np.mean([part(counts) for part in parts], axis=0)


def _mean_statistic(per_case: np.ndarray) -> Statistic:
    return lambda counts: _ratio(counts @ per_case, counts.sum(axis=1))


def _by_score(labels: Any, scores: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order of the cases by score, and where each group of equal scores starts in it."""
    positive = binary_labels(labels)
    values = finite_vector(scores, "scores", len(positive))
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return positive[order].astype(np.float64), order, starts


def _group_sums(
    counts: np.ndarray, positive: np.ndarray, order: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative cases per group of equal scores, lowest first: (n_resamples, k)."""
    ordered = counts[:, order]
    positives = np.add.reduceat(ordered * positive, starts, axis=1)
    return positives, np.add.reduceat(ordered, starts, axis=1) - positives


def _from_the_top(values: np.ndarray) -> np.ndarray:
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, NaN where there is nothing to divide by."""
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0
    )


# --- exact values --------------------------------------------------------------------------


def roc_auc(labels: Any, scores: Any) -> float:
    """Area under the ROC curve, ties one half; see `auc_statistic`."""
    statistic = auc_statistic(labels, scores)
    return exact(statistic, len(labels))


def average_precision(labels: Any, scores: Any) -> float:
    """Average precision, step-wise sum; see `average_precision_statistic`."""
    statistic = average_precision_statistic(labels, scores)
    return exact(statistic, len(labels))


def balanced_accuracy(labels: Any, predicted: Any, n_classes: int = 2) -> float:
    """Mean recall over the classes; see `balanced_accuracy_statistic`."""
    statistic = balanced_accuracy_statistic(labels, predicted, n_classes)
    return exact(statistic, len(labels))


def brier_score(labels: Any, predicted: Any) -> float:
    """Mean squared error of the probability of class 1; see `brier_statistic`."""
    statistic = brier_statistic(labels, predicted)
    return exact(statistic, len(labels))
