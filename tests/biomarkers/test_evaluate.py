"""Whole evaluations: against scikit-learn and lifelines, and by hand where models differ."""

import json

import numpy as np
import pytest
from cards import head_card, risk_card, split_at
from cohorts import binary_cohort, class_cases, survival_cohort
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index
from sklearn import metrics as sk

from oncofm.biomarkers.cohort import ClassCohort, SurvivalCohort
from oncofm.biomarkers.evaluate import evaluate_classes, evaluate_survival
from oncofm.biomarkers.evaluation import (
    BinaryModel,
    MulticlassModel,
    Sampling,
    SurvivalModel,
    to_json,
)
from oncofm.errors import EvaluationError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lifelines")

SAMPLING = Sampling(n_resamples=200, n_permutations=199, seed=5)


def two_columns(scores):
    scores = np.array(scores)
    return np.stack([1 - scores, scores], axis=1)


def test_two_classes_by_hand():
    table = two_columns([0.1, 0.4, 0.35, 0.8])
    cohort = ClassCohort(("no", "yes"), np.array([0, 0, 1, 1]), {"m": table}, None, 0)
    (model,) = evaluate_classes(cohort, SAMPLING).models
    assert isinstance(model, BinaryModel)
    assert {name: estimate.value for name, estimate in model.metrics.items()} == pytest.approx(
        {
            "auc": 3 / 4,
            "average_precision": (1 + 2 / 3) / 2,
            "balanced_accuracy": (1 / 2 + 1) / 2,
            "brier": (0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4,
        },
        abs=1e-12,
    )
    # Shares of 1 and 1/2 for the two of either class: variances of 1/8, each divided by 2.
    assert model.delong is not None
    assert model.delong.standard_error == pytest.approx(np.sqrt(1 / 8), abs=1e-12)


def test_risks_by_hand():
    # Of 5 pairs, the first case wins 3 and the second loses 2.
    times, events = np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 0, 1])
    cohort = SurvivalCohort(times, events, {"m": np.array([4.0, 1, 3, 2])}, None, 0)
    (model,) = evaluate_survival(cohort, SAMPLING, {}).models
    assert isinstance(model, SurvivalModel)
    assert model.metrics["c_index"].value == pytest.approx(3 / 5, abs=1e-12)
    assert model.groups is not None
    assert model.groups.high.survival == pytest.approx((1, 1 / 2, 1 / 2), abs=1e-12)
    assert model.groups.low.survival == pytest.approx((1, 1 / 2, 0), abs=1e-12)
    # At times 1, 2, 4 one of 4, 3, 1 dies; of them 2, 1, 0 are of high risk, and 1 of those died.
    variance = 1 / 2 * 1 / 2 + 1 / 3 * 2 / 3
    assert model.groups.log_rank.chi_squared == pytest.approx((1 - 5 / 6) ** 2 / variance)


def test_binary():
    cohort, scores = binary_cohort()
    found = evaluate_classes(cohort, SAMPLING, threshold=0.4)
    assert (found.task, found.n_cases, found.n_groups, found.n_unlabelled) == ("binary", 60, 60, 3)
    assert found.outcomes == {"no": int((cohort.labels == 0).sum()), "yes": cohort.labels.sum()}
    for model in found.models:
        assert isinstance(model, BinaryModel)
        p, y = scores[model.name], cohort.labels
        expected = {
            "auc": sk.roc_auc_score(y, p),
            "average_precision": sk.average_precision_score(y, p),
            "balanced_accuracy": sk.balanced_accuracy_score(y, p >= 0.4),
            "brier": sk.brier_score_loss(y, p),
        }
        assert {name: e.value for name, e in model.metrics.items()} == pytest.approx(expected)
        assert all(e.low <= e.mean <= e.high for e in model.metrics.values())
        assert model.delong is not None
        assert model.delong.auc == pytest.approx(expected["auc"])
        given, youden = model.decisions
        assert (given.origin, given.point.threshold, youden.origin) == ("given", 0.4, "youden")
        assert given.point.balanced_accuracy == pytest.approx(expected["balanced_accuracy"])
        assert youden.point.balanced_accuracy >= given.point.balanced_accuracy
    assert [c.metric for c in found.comparisons] == list(expected)
    auc = found.comparisons[0]
    first, second = (model.metrics["auc"].value for model in found.models)
    assert auc.difference.value == pytest.approx(first - second)
    assert auc.permutation.difference == pytest.approx(first - second)
    assert auc.permutation.p == 1 / 200
    assert auc.delong is not None
    assert auc.delong.p < 1e-4
    assert all(c.delong is None for c in found.comparisons[1:])


def test_ranked_metrics_ignore_the_scale_of_a_model():
    cohort, scores = binary_cohort()
    squeezed = scores["good"] ** 9 / 100
    columns = {"good": cohort.probabilities["good"]}
    columns["squeezed"] = np.stack([1 - squeezed, squeezed], axis=1)
    found = evaluate_classes(ClassCohort(("no", "yes"), cohort.labels, columns, None, 0), SAMPLING)
    assert [c.permutation.p for c in found.comparisons[:2]] == [1, 1]
    assert found.comparisons[0].difference.high == 0
    assert found.comparisons[3].permutation.p < 0.05  # the Brier score sees the scale


def test_groups():
    groups = np.repeat(np.arange(20).astype(str), 3)
    cohort, _ = binary_cohort(groups=groups)
    found = evaluate_classes(cohort, SAMPLING)
    assert found.n_groups == 20
    alone = evaluate_classes(binary_cohort()[0], SAMPLING)
    assert found.models[0].metrics["auc"].value == alone.models[0].metrics["auc"].value
    assert found.models[0].metrics["auc"].low != alone.models[0].metrics["auc"].low


def test_multiclass():
    labels, scores = class_cases(2)
    other = class_cases(3)[1]
    cohort = ClassCohort(tuple("abcd"), labels, {"m": scores, "o": other}, None, 0)
    found = evaluate_classes(cohort, SAMPLING)
    model = found.models[0]
    assert isinstance(model, MulticlassModel)
    expected = {
        "auc": sk.roc_auc_score(labels, scores, multi_class="ovr"),
        "average_precision": sk.average_precision_score(np.eye(4)[labels], scores),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, scores.argmax(axis=1)),
        "brier": ((scores - np.eye(4)[labels]) ** 2).sum(axis=1).mean(),
    }
    assert {name: e.value for name, e in model.metrics.items()} == pytest.approx(expected)
    assert model.class_metrics["c"]["auc"].value == pytest.approx(
        sk.roc_auc_score(labels == 2, scores[:, 2])
    )
    assert [c.permutation.p for c in found.comparisons] == [1 / 200] * 4


def test_survival():
    cohort = survival_cohort()
    found = evaluate_survival(cohort, SAMPLING, {"good": 0.5}, horizon=3)
    n_events = int(cohort.events.sum())
    assert found.outcomes == {"event": n_events, "censored": 80 - n_events}
    good, bad = found.models
    assert isinstance(good, SurvivalModel)
    assert isinstance(bad, SurvivalModel)
    expected = concordance_index(cohort.times, -cohort.risks["good"], cohort.events)
    assert good.metrics["c_index"].value == pytest.approx(expected)
    assert good.groups is not None
    assert bad.groups is not None
    assert (good.groups.cutoff, good.groups.origin) == (0.5, "given")
    assert (bad.groups.cutoff, bad.groups.origin) == (np.median(cohort.risks["bad"]), "median")
    high = cohort.risks["good"] >= 0.5
    times, events = np.minimum(cohort.times, 3), cohort.events * (cohort.times <= 3)
    judge = logrank_test(times[high], times[~high], events[high], events[~high])
    assert good.groups.log_rank.p == pytest.approx(judge.p_value, abs=1e-9)
    assert good.groups.high.at_risk[0] == high.sum()
    assert good.groups.hazard_ratio is not None
    assert good.groups.hazard_ratio.value > 1
    assert (found.comparisons[0].metric, good.notes) == ("c_index", ())


def test_what_few_cases_do_not_define_is_noted():
    times, events = np.arange(1.0, 9), np.array([1.0] * 4 + [0] * 4)
    cohort = SurvivalCohort(times, events, {"m": -times}, None, 0)
    model = evaluate_survival(cohort, SAMPLING, {}).models[0]
    assert isinstance(model, SurvivalModel)
    assert model.groups is not None
    assert model.groups.hazard_ratio is None
    assert "without bound" in model.notes[0]
    model = evaluate_survival(cohort, SAMPLING, {"m": 5}).models[0]
    assert isinstance(model, SurvivalModel)
    assert model.groups is None
    assert "All 8 risk groups are 0" in model.notes[0]
    labels = np.array([1] + [0] * 9)
    scores = np.stack([1 - labels, labels], axis=1)
    few = ClassCohort(("no", "yes"), labels, {"m": scores, "o": scores}, None, 0)
    evaluation = evaluate_classes(few, Sampling(n_resamples=50, seed=1))
    model = evaluation.models[0]
    assert isinstance(model, BinaryModel)
    assert model.delong is None
    assert "needs two of each" in model.notes[0]
    assert evaluation.comparisons[0].delong is None


SCORES = [0.1, 0.4, 0.4, 0.8]
"""Of which two are at the threshold of the cards below."""


@pytest.mark.parametrize(
    ("direction", "counts"),
    [
        ("higher_is_worse", (1, 0, 2, 1)),  # the two at the threshold are of low risk: no
        ("higher_is_better", (2, 1, 1, 0)),  # they are of low risk: yes
    ],
)
def test_threshold_of_a_card(direction, counts):
    table = two_columns(SCORES)
    cohort = ClassCohort(("no", "yes"), np.array([0, 0, 1, 1]), {"m": table, "o": table}, None, 0)
    card = head_card("m", **split_at(0.4, direction))
    with_card, without = evaluate_classes(cohort, SAMPLING, cards=[card]).models
    assert isinstance(with_card, BinaryModel)
    assert isinstance(without, BinaryModel)
    assert [decision.origin for decision in with_card.decisions] == ["given", "card", "youden"]
    assert [decision.origin for decision in without.decisions] == ["given", "youden"]
    point = with_card.decisions[1].point
    found = (
        point.true_positives,
        point.false_positives,
        point.true_negatives,
        point.false_negatives,
    )
    assert (point.threshold, found) == (0.4, counts)


def test_a_given_threshold_wins_over_a_card():
    cards = [head_card("good", **split_at(0.4))]
    cohort = binary_cohort()[0]
    assert evaluate_classes(cohort, SAMPLING, 0.3, cards) == evaluate_classes(cohort, SAMPLING, 0.3)
    assert evaluate_classes(cohort, SAMPLING) == evaluate_classes(cohort, SAMPLING, 0.5)


def test_groups_of_a_card():
    cohort = survival_cohort()
    limit = float(np.sort(cohort.risks["good"])[30])  # a risk that occurs: of low risk
    cards = [risk_card(name, **split_at(limit)) for name in ("good", "bad")]
    good, bad = evaluate_survival(cohort, SAMPLING, {"bad": 0.25}, cards=cards).models
    assert isinstance(good, SurvivalModel)
    assert isinstance(bad, SurvivalModel)
    assert good.groups is not None
    assert bad.groups is not None
    assert (good.groups.cutoff, good.groups.origin) == (limit, "card")
    assert (good.groups.low.at_risk[0], good.groups.high.at_risk[0]) == (31, 49)
    assert (bad.groups.cutoff, bad.groups.origin) == (0.25, "given")


def test_cards_of_other_heads_are_refused():
    with pytest.raises(EvaluationError, match="have no head 'other'"):
        evaluate_classes(binary_cohort()[0], SAMPLING, cards=[head_card("other")])
    with pytest.raises(EvaluationError, match="but the predictions are risks"):
        evaluate_survival(survival_cohort(), SAMPLING, {}, cards=[head_card("good")])


def test_json():
    found = evaluate_classes(binary_cohort()[0], SAMPLING)
    text = to_json(found)
    assert text == to_json(evaluate_classes(binary_cohort()[0], SAMPLING))
    parsed = json.loads(text, parse_constant=pytest.fail)
    assert parsed["models"][0]["metrics"]["auc"]["value"] == found.models[0].metrics["auc"].value
    assert parsed["sampling"] == {
        "n_resamples": 200,
        "n_permutations": 199,
        "seed": 5,
        "level": 0.95,
    }
    labels = np.array([0, 0, 1, 1])
    up = np.array([0.1, 0.2, 0.8, 0.9])
    tables = {"up": np.stack([1 - up, up], axis=1), "down": np.stack([up, 1 - up], axis=1)}
    opposite = evaluate_classes(ClassCohort(("n", "y"), labels, tables, None, 0), SAMPLING)
    parsed = json.loads(to_json(opposite), parse_constant=pytest.fail)
    assert parsed["comparisons"][0]["delong"]["z"] is None  # infinite


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c, p: (np.zeros(60, int), p), "All 60 labels are 0"),
        (lambda c, p: (c.labels, p * 2), "between 0 and 1"),
        (lambda c, p: (c.labels, p[:5]), "5 probabilities for 60 cases"),
        (lambda c, p: (c.labels, p / 2), "do not sum to 1"),
        (lambda c, p: (c.labels, np.where(p > 0.9, np.nan, p)), "missing or not finite"),
    ],
)
def test_refused(change, sentence):
    cohort, _ = binary_cohort()
    labels, table = change(cohort, cohort.probabilities["good"])
    with pytest.raises(EvaluationError, match=sentence):
        evaluate_classes(ClassCohort(("n", "y"), labels, {"m": table}, None, 0), SAMPLING)


def test_refused_threshold():
    with pytest.raises(EvaluationError, match="thresholds are missing or not finite"):
        evaluate_classes(binary_cohort()[0], SAMPLING, float("nan"))
