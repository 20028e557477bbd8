"""Thresholds and calibration against scikit-learn and by hand."""

import numpy as np
import pytest
from cohorts import cases
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve as sk_calibration_curve

from oncofm.biomarkers.decisions import (
    calibration_curve,
    operating_point,
    roc_curve,
    youden_threshold,
)
from oncofm.errors import EvaluationError


def test_operating_point_by_hand():
    point = operating_point([1, 1, 1, 0, 0], [0.9, 0.5, 0.2, 0.5, 0.1], 0.5)
    counts = (point.true_positives, point.false_positives)
    assert counts == (2, 1)
    assert (point.true_negatives, point.false_negatives) == (1, 1)
    assert point.sensitivity == 2 / 3
    assert point.specificity == 1 / 2
    assert point.balanced_accuracy == pytest.approx(7 / 12)
    assert point.positive_predictive_value == 2 / 3
    assert point.negative_predictive_value == 1 / 2
    assert operating_point([1, 0], [0.4, 0.3], 0.9).positive_predictive_value is None
    assert operating_point([1, 0], [0.4, 0.3], 0.0).negative_predictive_value is None


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("seed", range(4))
def test_roc_curve_and_youden(seed, steps):
    labels, scores = cases(seed, steps=steps)
    false_rates, true_rates, thresholds = sk.roc_curve(labels, scores, drop_intermediate=False)
    curve = roc_curve(labels, scores)
    np.testing.assert_allclose(curve.false_positive_rates, false_rates, atol=1e-12)
    np.testing.assert_allclose(curve.sensitivities, true_rates, atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds, thresholds[1:])
    best = youden_threshold(labels, scores)
    point = operating_point(labels, scores, best)
    assert point.sensitivity + point.specificity == pytest.approx(
        (true_rates - false_rates).max() + 1
    )


def test_youden_takes_the_highest_of_equals():
    assert youden_threshold([1, 0, 1, 0], [4, 3, 2, 1]) == 4


@pytest.mark.parametrize("n_bins", [1, 5, 10])
@pytest.mark.parametrize("steps", [None, 10])
def test_calibration_curve(steps, n_bins):
    labels, scores = cases(7, n=200, steps=steps)
    observed, predicted = sk_calibration_curve(labels, scores, n_bins=n_bins)
    curve = calibration_curve(labels, scores, n_bins)
    np.testing.assert_allclose(curve.observed, observed, atol=1e-12)
    np.testing.assert_allclose(curve.predicted, predicted, atol=1e-12)
    assert sum(curve.counts) == 200
    weights = np.array(curve.counts) / 200
    assert curve.expected_error == pytest.approx((weights * np.abs(observed - predicted)).sum())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: calibration_curve([0, 1], [0.1, 0.2], 0), "0 bins"),
        (lambda: calibration_curve([0, 1], [0.1, -0.2]), "between 0 and 1"),
        (lambda: operating_point([0, 1], [0.1, 0.2], float("nan")), "thresholds are missing"),
        (lambda: youden_threshold([0, 0], [0.1, 0.2]), "both classes"),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        call()
