"""Resampling: reproducible, right on closed forms, and covering at the nominal rate."""

import time

import numpy as np
import pytest
from cohorts import cases
from scipy import stats
from sklearn.metrics import roc_auc_score

from oncofm.biomarkers import bootstrap as module
from oncofm.biomarkers.bootstrap import bootstrap, midranks, permutation_test
from oncofm.biomarkers.metrics import auc_statistic, brier_statistic
from oncofm.errors import EvaluationError


def mean_of(values):
    return lambda counts: counts @ values / counts.sum(axis=1)


def test_reproducible_and_independent_of_blocks(monkeypatch):
    labels, scores = cases(1, n=50)
    statistic = auc_statistic(labels, scores)
    first = bootstrap(statistic, 50, seed=3, n_resamples=200)
    assert first == bootstrap(statistic, 50, seed=3, n_resamples=200)
    assert first != bootstrap(statistic, 50, seed=4, n_resamples=200)
    swapped = permutation_test(auc_statistic(np.tile(labels, 2), np.tile(scores, 2)), 50, seed=3)
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", 50 * 7)
    assert first == bootstrap(statistic, 50, seed=3, n_resamples=200)
    again = permutation_test(auc_statistic(np.tile(labels, 2), np.tile(scores, 2)), 50, seed=3)
    assert again == swapped
    assert swapped.p == 1


def test_against_a_loop():
    labels, scores = cases(1, n=50, steps=10)
    estimate = bootstrap(auc_statistic(labels, scores), 50, seed=3, n_resamples=4000)
    random = np.random.default_rng(9)
    drawn = [random.integers(0, 50, 50) for _ in range(1000)]
    expected = np.array([roc_auc_score(labels[row], scores[row]) for row in drawn])
    assert estimate.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert estimate.mean == pytest.approx(expected.mean(), abs=0.005)
    low, high = np.quantile(expected, [0.025, 0.975])
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.01)


def test_mean_has_the_closed_form_spread():
    values = np.random.default_rng(0).normal(size=200)
    estimate = bootstrap(mean_of(values), 200, seed=1, n_resamples=20_000, level=0.9)
    half = stats.norm.ppf(0.95) * values.std() / np.sqrt(200)
    assert estimate.value == pytest.approx(values.mean(), abs=1e-12)
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.03)
    assert (estimate.level, estimate.n_undefined) == (0.9, 0)


def test_groups_are_drawn_whole():
    # Four copies of each case are one patient: the interval is that of the patients.
    values = np.random.default_rng(0).normal(size=50)
    alone = bootstrap(mean_of(values), 50, seed=1)
    patients = np.tile(np.array([f"p{i:02}" for i in range(50)]), 4)
    together = bootstrap(mean_of(np.tile(values, 4)), 200, seed=1, groups=patients)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


def test_undefined_resamples_are_counted():
    labels = np.array([1, 1, 1] + [0] * 20)
    scores = np.arange(23.0)
    estimate = bootstrap(auc_statistic(labels, scores), 23, seed=0)
    expected = (20 / 23) ** 23 * 1000
    assert estimate.n_undefined == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_permutation_by_enumeration():
    labels = np.array([1, 0, 1, 0, 1, 0, 0, 1])
    first = np.array([0.9, 0.2, 0.7, 0.1, 0.8, 0.4, 0.3, 0.6])
    second = np.array([0.2, 0.8, 0.3, 0.1, 0.9, 0.6, 0.5, 0.4])
    observed = roc_auc_score(labels, first) - roc_auc_score(labels, second)
    extreme = 0
    for pattern in range(256):
        swap = (pattern >> np.arange(8)) & 1 == 1
        a, b = np.where(swap, second, first), np.where(swap, first, second)
        extreme += abs(roc_auc_score(labels, a) - roc_auc_score(labels, b)) >= observed - 1e-12
    pooled = auc_statistic(np.tile(labels, 2), np.r_[first, second])
    found = permutation_test(pooled, 8, seed=0, n_permutations=20_000)
    assert found.difference == pytest.approx(observed, abs=1e-12)
    p = extreme / 256
    assert found.p == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 20_000))


def test_permutation_never_gives_zero():
    labels = np.tile([0, 1], 50)
    good = labels + np.linspace(0, 0.5, 100)
    pooled = auc_statistic(np.tile(labels, 2), np.r_[good, 1 - good])
    assert permutation_test(pooled, 100, seed=0, n_permutations=99).p == 1 / 100


def test_groups_are_swapped_whole():
    labels, first = cases(1, n=10)
    pooled = brier_statistic(np.tile(labels, 2), np.r_[first, np.full(10, 0.5)])
    # One group: every permutation swaps all or nothing.
    found = permutation_test(pooled, 10, seed=0, n_permutations=50, groups=["a"] * 10)
    assert found.p == 1


def test_midranks():
    values = np.random.default_rng(0).integers(0, 9, 40)
    np.testing.assert_array_equal(midranks(values), stats.rankdata(values))


def test_fast():
    labels, scores = cases(1, n=500)
    start = time.process_time()
    bootstrap(auc_statistic(labels, scores), 500, seed=0)
    assert time.process_time() - start < 1.5  # 0.03 s on an idle core


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"level": 1.0}, "level 1 of an interval"),
        ({"level": float("nan")}, "level nan"),
        ({"n_resamples": 0}, "0 resamples"),
        ({"groups": ["a"]}, "1 groups for 4 cases"),
        ({"groups": ["a"] * 4}, "All cases are of one group"),
    ],
)
def test_refused(options, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        bootstrap(mean_of(np.arange(4.0)), 4, seed=0, **options)


def test_refused_statistics():
    with pytest.raises(EvaluationError, match="0 permutations"):
        permutation_test(mean_of(np.arange(4.0)), 2, seed=0, n_permutations=0)
    with pytest.raises(EvaluationError, match="do not define the statistic"):
        bootstrap(lambda counts: np.full(len(counts), np.nan), 4, seed=0)
    rare = lambda counts: np.where((counts == 1).all(axis=1), 0.5, np.nan)  # noqa: E731
    with pytest.raises(EvaluationError, match="too few cases for a bootstrap"):
        bootstrap(rare, 4, seed=0)


@pytest.mark.slow
def test_interval_covers_at_the_nominal_rate():
    random = np.random.default_rng(20)
    truth = stats.norm.cdf(1 / np.sqrt(2))  # unit normals one apart
    covered = 0
    for trial in range(1000):
        labels = random.permutation(np.repeat([0, 1], 100))
        scores = random.normal(size=200) + labels
        estimate = bootstrap(auc_statistic(labels, scores), 200, seed=trial)
        covered += estimate.low <= truth <= estimate.high
    # Percentile intervals may fall short by up to one point at this size.
    assert 950 - 10 - 3 * np.sqrt(47.5) <= covered <= 950 + 3 * np.sqrt(47.5)


@pytest.mark.slow
def test_permutation_p_is_uniform_under_the_null():
    random = np.random.default_rng(21)
    values = []
    for trial in range(400):
        labels = random.permutation(np.repeat([0, 1], 40))
        shared = random.normal(size=80) + labels
        scores = np.r_[shared + random.normal(size=80), shared + random.normal(size=80)]
        pooled = auc_statistic(np.tile(labels, 2), scores)
        values.append(permutation_test(pooled, 80, seed=trial, n_permutations=499).p)
    assert stats.kstest(values, "uniform").pvalue > 0.001
    assert np.mean(np.array(values) <= 0.05) == pytest.approx(0.05, abs=3 * np.sqrt(0.0475 / 400))
