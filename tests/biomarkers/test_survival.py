"""Survival statistics against lifelines and by hand."""

import numpy as np
import pandas as pd
import pytest
from cohorts import survival_cases
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index as lifelines_concordance

from oncofm.biomarkers.cox import hazard_ratio
from oncofm.biomarkers.survival import (
    censor,
    concordance_index,
    concordance_statistic,
    kaplan_meier,
    log_rank,
)
from oncofm.errors import EvaluationError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lifelines")


def test_by_hand():
    times, events = [1, 2, 2, 3], [1, 1, 0, 1]
    curve = kaplan_meier(times, events)
    assert curve.times == (0, 1, 2, 3)
    assert curve.survival == pytest.approx((1, 3 / 4, 1 / 2, 0))
    assert curve.at_risk == (4, 4, 3, 1)
    assert (curve.events, curve.censored) == ((0, 1, 1, 1), (0, 0, 1, 0))
    assert curve.median == 2
    assert (curve.low[0], curve.low[-1], curve.high[-1]) == (1, None, None)
    # Pairs: 1 before 2, 2', 3; 2 before 2' (censored then) and 3: risks say yes, no, yes, no, half.
    assert concordance_index(times, events, [5, 4, 6, 4]) == pytest.approx(2.5 / 5)


def test_no_median():
    assert kaplan_meier([1, 2, 3], [1, 0, 0]).median is None
    assert kaplan_meier([1, 2, 3], [0, 0, 0]).survival == (1, 1, 1, 1)


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(3))
def test_kaplan_meier(seed, decimals):
    times, events, _ = survival_cases(seed, decimals=decimals)
    judge = KaplanMeierFitter().fit(times, events)
    curve = kaplan_meier(times, events)
    np.testing.assert_array_equal(curve.times, judge.survival_function_.index)
    np.testing.assert_allclose(curve.survival, judge.survival_function_.iloc[:, 0], atol=1e-12)
    known = np.array([low is not None for low in curve.low])
    limits = judge.confidence_interval_.to_numpy()[known]
    np.testing.assert_allclose(np.array(curve.low, float)[known], limits[:, 0], atol=1e-9)
    np.testing.assert_allclose(np.array(curve.high, float)[known], limits[:, 1], atol=1e-9)
    assert curve.median == judge.median_survival_time_
    np.testing.assert_array_equal(curve.at_risk, judge.event_table["at_risk"])


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(3))
def test_concordance(seed, decimals):
    times, events, groups = survival_cases(seed, decimals=decimals)
    risks = np.round(np.random.default_rng(seed).normal(size=80) + groups, 1)
    expected = lifelines_concordance(times, -risks, events)
    assert concordance_index(times, events, risks) == pytest.approx(expected, abs=1e-12)
    drawn = np.random.default_rng(1).integers(0, 80, (10, 80))
    counts = np.array([np.bincount(row, minlength=80) for row in drawn], dtype=float)
    expected = [lifelines_concordance(times[row], -risks[row], events[row]) for row in drawn]
    found = concordance_statistic(times, events, risks)(counts)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_concordance_in_blocks(monkeypatch):
    times, events, groups = survival_cases(1)
    whole = concordance_index(times, events, groups)
    monkeypatch.setattr("oncofm.biomarkers.survival._ROWS_AT_A_TIME", 7)
    assert concordance_index(times, events, groups) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(3))
def test_log_rank_and_hazard_ratio(seed, decimals):
    times, events, groups = survival_cases(seed, decimals=decimals)
    in_second = groups == 1
    judge = logrank_test(times[in_second], times[~in_second], events[in_second], events[~in_second])
    found = log_rank(times, events, groups)
    assert found.chi_squared == pytest.approx(judge.test_statistic, abs=1e-9)
    assert found.p == pytest.approx(judge.p_value, abs=1e-12)
    score = np.random.default_rng(seed).normal(size=80) * 30 + 200 + 10 * groups
    for covariate in (groups, score):
        table = pd.DataFrame({"t": times, "e": events, "x": covariate})
        fitter = CoxPHFitter().fit(table, "t", "e", fit_options={"precision": 1e-12})
        expected = fitter.summary.loc["x"]
        ratio = hazard_ratio(times, events, covariate)
        assert ratio.coefficient == pytest.approx(expected["coef"], abs=1e-7)
        assert ratio.standard_error == pytest.approx(expected["se(coef)"], abs=1e-7)
        assert ratio.value == pytest.approx(expected["exp(coef)"], abs=1e-6)
        assert ratio.low == pytest.approx(expected["exp(coef) lower 95%"], abs=1e-6)
        assert ratio.high == pytest.approx(expected["exp(coef) upper 95%"], abs=1e-6)
        assert ratio.p == pytest.approx(expected["p"], abs=1e-6)


def test_censor():
    times, events = censor([1, 5, 6, 7], [1, 1, 1, 0], 5)
    assert times.tolist() == [1, 5, 5, 5]
    assert events.tolist() == [True, True, False, False]


@pytest.mark.parametrize("scale", [1e-8, 1, 1e8, 1e200])
def test_ratio_of_any_unit(scale):
    times, events, groups = survival_cases(4)
    ratio = hazard_ratio(times, events, groups)
    scaled = hazard_ratio(times * min(scale, 1e8), events, groups * scale)
    assert scaled.coefficient * scale == pytest.approx(ratio.coefficient, rel=1e-9)


def test_groups_without_overlap():
    with pytest.raises(EvaluationError, match="without bound"):
        hazard_ratio([1, 2, 3, 4], [1, 1, 1, 1], [1, 1, 0, 0])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: concordance_index([1, 2], [0, 0], [1, 2]), "None of 2 cases has an event"),
        (lambda: concordance_index([1, -2], [1, 0], [1, 2]), "time -2 of case 2 is negative"),
        (lambda: concordance_index([1, 2], [1, 0], [1, np.nan]), "risks are missing"),
        (lambda: concordance_index([1, 2], [1], [1, 2]), "1 events for 2 cases"),
        (lambda: concordance_index([2, 2], [1, 1], [1, 2]), "No two cases can be ordered"),
        (lambda: censor([3, 4], [1, 1], 2), "None of 2 cases has an event"),
        (lambda: censor([3, 4], [1, 1], float("nan")), "horizon nan must be above 0"),
        (lambda: log_rank([3, 4], [1, 1], [1, 1]), "All 2 risk groups are 1"),
        (lambda: log_rank([3, 4], [0, 1], [1, 0]), "never at risk at the same time"),
        (lambda: log_rank([3, 4], [1, 1], [1]), "1 risk groups for 2 cases"),
        (lambda: hazard_ratio([3, 4], [1, 1], [1, 1]), "same value of the covariate"),
        (lambda: hazard_ratio([3, 4, 5], [1, 1, 1], [0.1] * 3), "same value of the covariate"),
        (lambda: hazard_ratio([1, 2, 3, 4], [1, 1, 0, 0], [1, 1, 0, 0]), "without bound"),
        (lambda: hazard_ratio([1, 2, 3, 4], [1, 1, 0, 0], [0, 1, 0, 1], 0), "level 0"),
        (lambda: kaplan_meier([1, 2], [1, 1], 1), "level 1"),
        (lambda: kaplan_meier([], []), "no survival times"),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        call()
