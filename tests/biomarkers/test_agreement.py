"""ICC(3,1) against the published example and an analysis of variance written out."""

import sys

import numpy as np
import pytest
from scipy import stats

from oncofm.biomarkers.agreement import intraclass_correlation
from oncofm.errors import EvaluationError, MissingExtraError

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)
"""Six targets, four judges: table 2 of the paper."""


def anova(table):
    """Sums of squares by loops: mean squares of targets, occasions and error."""
    n, k = table.shape
    mean = table.sum() / (n * k)
    targets = sum(k * (row.sum() / k - mean) ** 2 for row in table)
    occasions = sum(n * (column.sum() / n - mean) ** 2 for column in table.T)
    total = sum((value - mean) ** 2 for value in table.ravel())
    error = total - targets - occasions
    return targets / (n - 1), occasions / (k - 1), error / ((n - 1) * (k - 1))


def test_published_example():
    found = intraclass_correlation(SHROUT_FLEISS)
    assert round(found.value, 2) == 0.71
    # Table 3 of the paper, to its two digits.
    assert round(found.mean_square_targets, 2) == 11.24
    assert round(found.mean_square_occasions, 2) == 32.49
    assert round(found.mean_square_error, 2) == 1.02
    assert (round(found.low, 2), round(found.high, 2)) == (0.34, 0.95)
    assert (found.n_targets, found.n_occasions) == (6, 4)
    # What pingouin 0.7.0 gives for it.
    assert found.value == pytest.approx(0.7148407148407154, abs=1e-12)
    assert found.f == pytest.approx(11.027247956403299, abs=1e-9)
    assert found.p == pytest.approx(0.000134566516484335, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((0.34246477, 0.94585826), abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_occasions", [2, 5])
def test_analysis_of_variance(seed, n_occasions):
    random = np.random.default_rng(seed)
    table = random.normal(size=(30, 1)) + 0.3 * random.normal(size=(30, n_occasions))
    targets, occasions, error = anova(table)
    found = intraclass_correlation(table, level=0.9)
    expected = (targets - error) / (targets + (n_occasions - 1) * error)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.mean_square_occasions == pytest.approx(occasions, abs=1e-9)
    df = (29, 29 * (n_occasions - 1))
    assert found.p == pytest.approx(stats.f.sf(targets / error, *df), abs=1e-9)
    # The limits are the correlations at which the F that was seen is a 5 % surprise.
    for limit, quantile in ((found.low, 0.95), (found.high, 0.05)):
        ratio = (1 + (n_occasions - 1) * limit) / (1 - limit)
        assert targets / error / ratio == pytest.approx(stats.f.ppf(quantile, *df), rel=1e-9)


def test_perfect_agreement_up_to_a_shift():
    values = np.array([0.1, 0.7, 0.3])
    found = intraclass_correlation(np.stack([values, values + 0.2], axis=1))
    assert (found.value, found.low, found.high, found.p) == (1, 1, 1, 0)


def test_opposite_measurements():
    values = np.array([1.0, 2, 3])
    assert intraclass_correlation(np.stack([values, -values], axis=1)).value == pytest.approx(-1)


@pytest.mark.parametrize(
    ("table", "level", "sentence"),
    [
        ([[1, 2]], 0.95, "there are 1 with 2"),
        ([[1], [2]], 0.95, "there are 2 with 1"),
        ([[1, 2], [3, np.nan]], 0.95, "1 of 2 measurements are missing or not finite"),
        ([[0.1, 0.1], [0.1, 0.1]], 0.95, "same measurements"),
        ([[1, 2], [3, 5]], 0, "level 0"),
        ([1, 2], 0.95, "give one row per case"),
    ],
)
def test_refused(table, level, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        intraclass_correlation(table, level)


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r"install oncofm\[biomarkers\]"):
        intraclass_correlation(SHROUT_FLEISS)
