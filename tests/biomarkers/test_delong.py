"""DeLong against the structural components written out, pair by pair."""

import numpy as np
import pytest
from cohorts import cases
from scipy import stats
from sklearn.metrics import roc_auc_score

from oncofm.biomarkers.bootstrap import bootstrap
from oncofm.biomarkers.delong import delong_covariance, delong_interval, delong_test
from oncofm.biomarkers.metrics import auc_statistic
from oncofm.errors import EvaluationError


def components(labels, scores):
    positives, negatives = scores[labels == 1], scores[labels == 0]
    kernel = np.array([[(x > y) + 0.5 * (x == y) for y in negatives] for x in positives])
    return kernel.mean(axis=1), kernel.mean(axis=0)


@pytest.mark.parametrize("steps", [None, 6])
@pytest.mark.parametrize("seed", range(4))
def test_covariance(seed, steps):
    labels, first = cases(seed, steps=steps)
    second = np.round(first + np.random.default_rng(seed).normal(size=60) * 0.3, 1)
    aucs, covariance = delong_covariance(labels, first, second)
    v10, v01 = zip(*(components(labels, scores) for scores in (first, second)), strict=True)
    expected = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    np.testing.assert_allclose(covariance, expected, atol=1e-14)
    np.testing.assert_allclose(
        aucs, [roc_auc_score(labels, first), roc_auc_score(labels, second)], atol=1e-14
    )
    found = delong_test(labels, first, second)
    z = (aucs[0] - aucs[1]) / np.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
    assert found.z == pytest.approx(z, abs=1e-9)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=1e-9)
    interval = delong_interval(labels, first)
    error = np.sqrt(expected[0, 0])
    assert interval.standard_error == pytest.approx(error, abs=1e-12)
    assert interval.low == pytest.approx(interval.auc - stats.norm.ppf(0.975) * error, abs=1e-9)


def test_agrees_with_the_bootstrap():
    labels, scores = cases(5, n=400)
    interval = delong_interval(labels, scores)
    estimate = bootstrap(auc_statistic(labels, scores), 400, seed=0, n_resamples=4000)
    assert (interval.low, interval.high) == pytest.approx((estimate.low, estimate.high), abs=0.01)


def test_equal_and_opposite_models():
    labels = np.array([0, 0, 1, 1])
    same = delong_test(labels, [1.0, 2, 3, 4], [10.0, 20, 30, 40])
    assert (same.difference, same.z, same.p) == (0, 0, 1)
    opposite = delong_test(labels, [1.0, 2, 3, 4], [4.0, 3, 2, 1])
    assert (opposite.difference, opposite.z, opposite.p) == (1, np.inf, 0)
    perfect = delong_interval(labels, [1.0, 2, 3, 4])
    assert (perfect.auc, perfect.low, perfect.high) == (1, 1, 1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: delong_interval([1, 0, 0], [1, 2, 3]), "1 positive and 2 negative"),
        (lambda: delong_test([1, 1, 0, 0], [1, 2, 3, 4], [1, 2, 3, np.nan]), "not finite"),
        (lambda: delong_interval([1, 1, 0, 0], [1, 2, 3, 4], 2), "level 2"),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        call()
