"""Learning curves: which heads are on one, and in what order."""

import numpy as np
import pytest
from cards import head_card, risk_card, trained_on
from cohorts import binary_cohort, survival_cohort

from oncofm.biomarkers.cohort import ClassCohort
from oncofm.biomarkers.evaluate import evaluate_classes, evaluate_survival
from oncofm.biomarkers.evaluation import Sampling
from oncofm.biomarkers.learning_curve import CurvePoint, learning_curves

SAMPLING = Sampling(n_resamples=50, n_permutations=20, seed=1)


def cohort_of(names):
    """Heads that are the better the later their name comes."""
    cohort, scores = binary_cohort()
    tables = {}
    for number, name in enumerate(names):
        p = np.clip(scores["bad"] + 0.2 * number * (cohort.labels - 0.5), 0, 1)
        tables[name] = np.stack([1 - p, p], axis=1)
    return ClassCohort(cohort.classes, cohort.labels, tables, None, 0)


def test_points_are_the_heads_by_size():
    cards = [
        head_card("c", **trained_on(400, fraction=1)),
        head_card("a", **trained_on(40, fraction=0.1)),
        head_card("b", **trained_on(100)),
    ]
    evaluation = evaluate_classes(cohort_of("abc"), SAMPLING, cards=cards)
    (curve,) = evaluation.learning_curve
    assert (curve.title, curve.model, curve.kind) == ("A test", "fmcib", "logistic")
    assert list(curve.statistics) == ["auc", "average_precision", "balanced_accuracy", "brier"]
    for statistic, points in curve.statistics.items():
        assert [point.n for point in points] == [40, 100, 400]
        assert [point.fraction for point in points] == [0.1, None, 1]
        for point, model in zip(points, evaluation.models, strict=True):
            estimate = model.metrics[statistic]
            expected = (model.name, estimate.value, estimate.low, estimate.high)
            assert (point.head, point.value, point.low, point.high) == expected
    values = [point.value for point in curve.statistics["auc"]]
    assert values == sorted(values)


def test_risks():
    cards = [risk_card("good", **trained_on(40)), risk_card("bad", **trained_on(9))]
    evaluation = evaluate_survival(survival_cohort(), SAMPLING, {}, cards=cards)
    (curve,) = evaluation.learning_curve
    first, second = curve.statistics["c_index"]
    assert isinstance(first, CurvePoint)
    assert (first.head, first.n, second.head, second.n) == ("bad", 9, "good", 40)


@pytest.mark.parametrize(
    "cards",
    [
        [],
        [head_card("a", **trained_on(40)), head_card("b", **trained_on(40))],
        [head_card("a", **trained_on(40)), head_card("b")],
        [head_card("a", **trained_on(40)), head_card("b", title="Other", **trained_on(80))],
        [head_card("a", **trained_on(40)), head_card("b", model="other", **trained_on(80))],
        [head_card("a", **trained_on(40)), head_card("b", kind="mlp", **trained_on(80))],
    ],
)
def test_no_curve(cards):
    assert evaluate_classes(cohort_of("ab"), SAMPLING, cards=cards).learning_curve == ()


def test_a_curve_for_each_thing_and_repeated_sizes():
    cards = {
        name: head_card(name, title=title, **trained_on(n))
        for name, title, n in (("a", "T", 9), ("b", "U", 9), ("c", "U", 5), ("d", "T", 9))
    }
    metrics = {
        model.name: model.metrics for model in evaluate_classes(cohort_of("abcde"), SAMPLING).models
    }
    cards["e"] = head_card("e", title="T", **trained_on(3))
    first, second = learning_curves(metrics, cards)
    assert [(point.head, point.n) for point in first.statistics["auc"]] == [
        ("e", 3),
        ("a", 9),
        ("d", 9),
    ]
    assert [point.head for point in second.statistics["auc"]] == ["c", "b"]
