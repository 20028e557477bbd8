"""Metrics against scikit-learn and hand-made tables, on cases and on resampled cases."""

import numpy as np
import pytest
from cohorts import cases, class_cases
from sklearn import metrics as sk

from oncofm.biomarkers.metrics import (
    auc_statistic,
    average_precision,
    average_precision_statistic,
    balanced_accuracy,
    balanced_accuracy_statistic,
    brier_score,
    brier_statistic,
    exact,
    macro_statistic,
    multiclass_brier_statistic,
    roc_auc,
)
from oncofm.errors import EvaluationError

CLOSE = {"rtol": 0, "atol": 1e-12}


def test_by_hand():
    # Pairs (positive, negative): .8>.6, .8>.1, .6=.6, .6>.1 -> 3.5 of 4.
    labels, scores = [1, 1, 0, 0], [0.8, 0.6, 0.6, 0.1]
    assert roc_auc(labels, scores) == 3.5 / 4
    # Recall 1/2 at precision 1, then recall 1 at precision 2/3.
    assert average_precision(labels, scores) == pytest.approx(1 / 2 + 1 / 3, abs=1e-15)
    assert balanced_accuracy([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx((2 / 3 + 1) / 2)
    assert brier_score([1, 0], [0.9, 0.5]) == pytest.approx((0.01 + 0.25) / 2)


@pytest.mark.parametrize("steps", [None, 20, 4, 1])
@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_binary(seed, steps):
    labels, scores = cases(seed, steps=steps)
    np.testing.assert_allclose(roc_auc(labels, scores), sk.roc_auc_score(labels, scores), **CLOSE)
    np.testing.assert_allclose(
        average_precision(labels, scores), sk.average_precision_score(labels, scores), **CLOSE
    )
    np.testing.assert_allclose(
        brier_score(labels, scores), sk.brier_score_loss(labels, scores), **CLOSE
    )
    called = (scores > 0.5).astype(int)
    np.testing.assert_allclose(
        balanced_accuracy(labels, called), sk.balanced_accuracy_score(labels, called), **CLOSE
    )


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_multiclass(seed):
    labels, scores = class_cases(seed)
    n = len(labels)
    np.testing.assert_allclose(
        exact(macro_statistic(labels, scores, auc_statistic), n),
        sk.roc_auc_score(labels, scores, multi_class="ovr", average="macro"),
        **CLOSE,
    )
    np.testing.assert_allclose(
        exact(macro_statistic(labels, scores, average_precision_statistic), n),
        sk.average_precision_score(np.eye(4)[labels], scores, average="macro"),
        **CLOSE,
    )
    np.testing.assert_allclose(
        exact(multiclass_brier_statistic(labels, scores), n),
        sk.brier_score_loss(
            labels, scores, labels=range(4)
        ),  # by default not halved for three or more classes
        **CLOSE,
    )
    called = scores.argmax(axis=1)
    np.testing.assert_allclose(
        balanced_accuracy(labels, called, 4), sk.balanced_accuracy_score(labels, called), **CLOSE
    )


@pytest.mark.parametrize(
    ("make", "judge"),
    [
        (auc_statistic, sk.roc_auc_score),
        (average_precision_statistic, sk.average_precision_score),
        (brier_statistic, sk.brier_score_loss),
    ],
)
def test_counts_are_repeated_cases(make, judge):
    labels, scores = cases(11, n=25, steps=8)
    random = np.random.default_rng(2)
    drawn = random.integers(0, 25, (40, 25))
    counts = np.array([np.bincount(row, minlength=25) for row in drawn], dtype=float)
    expected = [judge(labels[row], scores[row]) for row in drawn]
    np.testing.assert_allclose(make(labels, scores)(counts), expected, **CLOSE)


def test_counts_of_balanced_accuracy():
    labels, scores = class_cases(3, n=40)
    called = scores[:, ::-1].argmax(axis=1)
    drawn = np.random.default_rng(4).integers(0, 40, (30, 40))
    counts = np.array([np.bincount(row, minlength=40) for row in drawn], dtype=float)
    expected = [sk.balanced_accuracy_score(labels[row], called[row]) for row in drawn]
    found = balanced_accuracy_statistic(labels, called, 4)(counts)
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("make", [auc_statistic, average_precision_statistic])
def test_resample_of_one_class_is_undefined(make):
    counts = np.array([[3.0, 0, 0], [0, 2, 1], [1, 1, 1]])
    found = make([1, 0, 0], [3.0, 2, 1])(counts)
    assert np.isnan(found).tolist() == [True, True, False]
    assert np.isnan(balanced_accuracy_statistic([1, 0, 0], [1, 0, 0])(counts)[:2]).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: roc_auc([0, 1], [0.1, np.nan]), "1 of 2 scores are missing or not finite"),
        (lambda: roc_auc([0, 1], [0.1, np.inf]), "the first in case 2"),
        (lambda: roc_auc([0, 1], [None, 1]), "missing or not finite"),
        (lambda: roc_auc([0, 1], ["a", "b"]), "The scores are not all numbers"),
        (lambda: roc_auc([0, 1], [[1], [2]]), "have the shape"),
        (lambda: roc_auc([1, 1], [0.1, 0.2]), "All 2 labels are 1; cases of both classes"),
        (lambda: roc_auc([0, 2], [0.1, 0.2]), "other than 0 and 1"),
        (lambda: roc_auc([], []), "There are no labels"),
        (lambda: roc_auc([0, 1], [0.1]), "There are 1 scores for 2 cases"),
        (lambda: brier_score([0, 1], [0.1, 1.2]), "from 0.1 to 1.2"),
        (lambda: balanced_accuracy([0, 5], [0, 1]), "class numbers 0 to 1"),
        (lambda: balanced_accuracy([1, 1], [0, 1]), "All 2 labels are 1; cases of two classes"),
        (
            lambda: multiclass_brier_statistic([0, 1], [[0.5, 0.6], [0.5, 0.5]]),
            "do not sum to 1",
        ),
        (lambda: multiclass_brier_statistic([0, 1], [0.5, 0.6]), "give one row per case"),
        (lambda: macro_statistic([0, 1], np.eye(2)[[0]], auc_statistic), "1 scores for 2"),
        (lambda: macro_statistic([0, 1], np.eye(3)[:2], auc_statistic), "Class 2 of 3 has no"),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        call()
