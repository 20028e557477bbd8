"""What scores mean at a threshold, and whether probabilities come true."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from oncofm.biomarkers.checks import binary_labels, finite_vector, probabilities, zero_or_one
from oncofm.errors import EvaluationError


@dataclass(frozen=True)
class OperatingPoint:
    """Decisions at a threshold.

    Attributes
    ----------
    threshold : float
        In the unit of the scores.
    true_positives, false_positives, true_negatives, false_negatives : int
        Cases.
    sensitivity, specificity, balanced_accuracy : float
        Shares, 0 to 1.
    positive_predictive_value, negative_predictive_value : float or None
        Shares; None where no case was called so.
    """

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    sensitivity: float
    specificity: float
    balanced_accuracy: float
    positive_predictive_value: float | None
    negative_predictive_value: float | None


def operating_point(labels: Any, scores: Any, threshold: float) -> OperatingPoint:
    """Count the decisions that ``score >= threshold`` makes.

    Raises
    ------
    EvaluationError
        If there is one class only, or a score or the threshold is not finite.
    """
    truth = binary_labels(labels)
    values = finite_vector(scores, "scores", len(truth))
    limit = float(finite_vector([threshold], "thresholds")[0])
    return count_decisions(truth, values >= limit, limit)


def count_decisions(labels: Any, called: np.ndarray, threshold: float) -> OperatingPoint:
    """Count decisions that were made.

    Parameters
    ----------
    labels : array_like
        Shape (n,): 0 or 1.
    called : numpy.ndarray
        Shape (n,) bool: cases called positive.
    threshold : float
        That they were made at.

    Raises
    ------
    EvaluationError
        If there is one class only, or the threshold is not finite.
    """
    truth = binary_labels(labels)
    limit = float(finite_vector([threshold], "thresholds")[0])
    tp, fp = int((called & truth).sum()), int((called & ~truth).sum())
    tn, fn = int((~called & ~truth).sum()), int((~called & truth).sum())
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    return OperatingPoint(
        threshold=limit,
        true_positives=tp,
        false_positives=fp,
        true_negatives=tn,
        false_negatives=fn,
        sensitivity=sensitivity,
        specificity=specificity,
        balanced_accuracy=(sensitivity + specificity) / 2,
        positive_predictive_value=tp / (tp + fp) if tp + fp else None,
        negative_predictive_value=tn / (tn + fn) if tn + fn else None,
    )


@dataclass(frozen=True)
class RocCurve:
    """Sensitivity against the false positive rate, from (0, 0) to (1, 1).

    Attributes
    ----------
    thresholds : tuple of float
        The distinct scores, highest first; point ``i + 1`` calls what reaches threshold ``i``.
    false_positive_rates, sensitivities : tuple of float
        One more than thresholds: the first point calls nothing.
    """

    thresholds: tuple[float, ...]
    false_positive_rates: tuple[float, ...]
    sensitivities: tuple[float, ...]


def roc_curve(labels: Any, scores: Any) -> RocCurve:
    """ROC curve with a point for every distinct score; errors as for `auc_statistic`."""
    truth = binary_labels(labels)
    thresholds, inverse = np.unique(
        finite_vector(scores, "scores", len(truth)), return_inverse=True
    )
    return RocCurve(
        thresholds=tuple(thresholds[::-1].tolist()),
        false_positive_rates=_cumulative_shares(np.bincount(inverse, ~truth)[::-1]),
        sensitivities=_cumulative_shares(np.bincount(inverse, truth)[::-1]),
    )


def youden_threshold(labels: Any, scores: Any) -> float:
    """Score with the largest sensitivity + specificity - 1; the highest one of equals.

    A threshold that is chosen on the cases it is judged on flatters: choose it on others.
    """
    curve = roc_curve(labels, scores)
    gain = np.subtract(curve.sensitivities, curve.false_positive_rates)[1:]
    # Equal gains differ in the last bit by the order of additions.
    return curve.thresholds[int(np.flatnonzero(gain >= gain.max() - 1e-12)[0])]


def _cumulative_shares(values: np.ndarray) -> tuple[float, ...]:
    return tuple(np.r_[0.0, np.cumsum(values) / values.sum()].tolist())


@dataclass(frozen=True)
class CalibrationCurve:
    """Observed against predicted, per bin of equal width over 0 to 1; empty bins are left out.

    Attributes
    ----------
    predicted, observed : tuple of float
        Mean probability, and share of class 1, per bin.
    counts : tuple of int
        Cases per bin.
    expected_error : float
        Mean absolute difference between the two, weighted by cases.
    """

    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    counts: tuple[int, ...]
    expected_error: float


def calibration_curve(labels: Any, predicted: Any, n_bins: int = 10) -> CalibrationCurve:
    """Compare probabilities with how often they came true.

    Parameters
    ----------
    labels : array_like
        Shape (n,): 0 or 1.
    predicted : array_like
        Shape (n,): probability of class 1.
    n_bins : int
        Bins of equal width; a probability on an edge belongs to the lower bin.

    Raises
    ------
    EvaluationError
        If a label is neither 0 nor 1, a probability not between 0 and 1, or there is no bin.
    """
    if n_bins < 1:
        raise EvaluationError(
            f"A calibration curve of {n_bins} bins was asked for; take 1 or more."
        )
    truth = zero_or_one(labels, "labels")
    values = probabilities(predicted, len(truth))
    bins = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], values)
    counts = np.bincount(bins, minlength=n_bins)
    filled = counts > 0
    means = np.bincount(bins, values, n_bins)[filled] / counts[filled]
    shares = np.bincount(bins, truth, n_bins)[filled] / counts[filled]
    error = float((counts[filled] * np.abs(means - shares)).sum() / len(truth))
    return CalibrationCurve(
        predicted=tuple(means.tolist()),
        observed=tuple(shares.tolist()),
        counts=tuple(counts[filled].tolist()),
        expected_error=error,
    )
