"""How often bootstrap intervals hold the truth, where the truth is known in closed form.

`test_bootstrap` has the AUC of independent cases; here are cases in patients, and risks.
"""

from statistics import NormalDist

import numpy as np
import pytest

from oncofm.biomarkers.bootstrap import bootstrap
from oncofm.biomarkers.metrics import auc_statistic, brier_statistic
from oncofm.biomarkers.survival import concordance_statistic

N_TRIALS, N_RESAMPLES = 600, 300
SLACK = 3 * np.sqrt(0.95 * 0.05 / N_TRIALS)
"""Three standard errors of a share of trials, of an interval that covers as it says."""
SHORT = 0.015
"""Percentile intervals fall short by about this much at these sizes."""

pytestmark = pytest.mark.slow


def assert_nominal(n_covered: int) -> None:
    assert 0.95 - SHORT - SLACK <= n_covered / N_TRIALS <= 0.95 + SLACK


def test_whole_patients():
    """Three lesions of a patient share a label and half of the variance of their score."""
    random = np.random.default_rng(1)
    truth = NormalDist().cdf(1 / np.sqrt(2))  # unit normals one apart
    n_patients, per_patient = 100, 3
    patients = np.repeat(np.arange(n_patients), per_patient)
    whole = alone = 0
    for trial in range(N_TRIALS):
        labels = random.permutation(np.repeat([0, 1], n_patients // 2))[patients]
        shared, own = random.normal(size=n_patients)[patients], random.normal(size=len(patients))
        statistic = auc_statistic(labels, labels * 1.0 + (shared + own) / np.sqrt(2))
        for_patients, for_lesions = (
            bootstrap(statistic, len(labels), seed=trial, n_resamples=N_RESAMPLES, groups=groups)
            for groups in (patients, None)
        )
        whole += for_patients.low <= truth <= for_patients.high
        alone += for_lesions.low <= truth <= for_lesions.high
    assert_nominal(whole)
    assert alone < 0.9 * N_TRIALS  # lesions of a patient are no independent cases


def test_risks():
    """Exponential times of rate exp(risk), all observed: C is the mean of a logistic function."""
    random = np.random.default_rng(2)
    # Of two cases, the one with the higher risk dies first with the probability
    # 1 / (1 + exp(-difference)); the difference is normal with variance 2.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    truth = (weights / (1 + np.exp(-np.abs(nodes) * np.sqrt(2)))).sum() / weights.sum()
    covered = 0
    for trial in range(N_TRIALS):
        risks = random.normal(size=100)
        times = random.exponential(np.exp(-risks))
        statistic = concordance_statistic(times, np.ones(100), risks)
        estimate = bootstrap(statistic, 100, seed=trial, n_resamples=N_RESAMPLES)
        covered += estimate.low <= truth <= estimate.high
    assert_nominal(covered)


def test_brier():
    """Probabilities that come true, uniform over 0 to 1: the score is the mean of p (1 - p)."""
    random = np.random.default_rng(3)
    covered = 0
    for trial in range(N_TRIALS):
        chances = random.random(100)
        statistic = brier_statistic((random.random(100) < chances).astype(int), chances)
        estimate = bootstrap(statistic, 100, seed=trial, n_resamples=N_RESAMPLES)
        covered += estimate.low <= 1 / 6 <= estimate.high
    assert_nominal(covered)
