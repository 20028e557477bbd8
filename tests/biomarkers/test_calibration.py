"""Calibrated heads against scikit-learn's, and what must not happen to the order of cases."""

import sys
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from oncofm.biomarkers.calibration import fit_calibrator, method_for
from oncofm.biomarkers.card import HeadCard
from oncofm.biomarkers.fit import fit_head
from oncofm.biomarkers.head import load_head
from oncofm.biomarkers.save_head import save_head
from oncofm.errors import EvaluationError, MissingExtraError

FACTS = {
    "name": "test",
    "title": "A test",
    "model": "fmcib",
    "profile": "mhub",
    "weights_sha256": "any",
    "intended_use": "tests",
    "licence": "Apache-2.0",
    "data": "random numbers",
}


def scored(n=200, seed=0, slope=3.0, offset=-1.0):
    """Scores that are too sure by `slope`, and classes."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    return (truth - offset) * slope, (rng.random(n) < expit(truth)).astype(int)


def cases(n=150, d=20, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    return rng.normal(size=(n, d)) + 0.4 * labels[:, None] * rng.normal(size=d), labels


def weighted_logistic(scores, labels):
    """Platt's targets are cases of both classes with weights."""
    n = np.bincount(labels)
    sure = (n[labels] + 1) / (n[labels] + 2)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)
    return model.fit(
        np.concatenate([scores, scores])[:, None],
        np.concatenate([labels, 1 - labels]),
        sample_weight=np.concatenate([sure, 1 - sure]),
    )


@pytest.mark.parametrize("seed", range(4))
def test_platt_is_a_logistic_regression_of_his_targets(seed):
    scores, labels = scored(seed=seed)
    found = fit_calibrator("platt", scores[:, None], labels)
    oracle = weighted_logistic(scores, labels)
    assert found.slope == pytest.approx(oracle.coef_[0, 0], abs=1e-6)
    assert found.intercept == pytest.approx(oracle.intercept_[0], abs=1e-6)


def test_platt_where_the_classes_do_not_overlap():
    labels = np.arange(40) // 20
    found = fit_calibrator("platt", np.linspace(-3, 3, 40)[:, None], labels)
    oracle = weighted_logistic(np.linspace(-3, 3, 40), labels)
    assert found.slope == pytest.approx(oracle.coef_[0, 0], rel=1e-5)


@pytest.mark.parametrize("scores", [np.arange(60.0), np.zeros(60), np.arange(60.0) % 2])
def test_scores_that_tell_nothing_or_the_opposite_keep_their_order(scores):
    labels = (np.arange(60) < 45).astype(int)
    found = fit_calibrator("platt", scores[:, None], labels)
    assert found.slope > 0
    said = expit(found.slope * scores + found.intercept)
    np.testing.assert_allclose(said, 46 / 47 * 0.75 + 1 / 17 * 0.25, atol=2e-3)


def test_more_classes_have_one_factor():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    scores = rng.normal(size=(300, 4)) * 3 + 2 * np.eye(4)[labels] + 7
    n = np.bincount(labels)
    targets = np.where(
        np.eye(4)[labels] == 1,
        ((n + 1) / (n + 2))[labels][:, None],
        (1 / (n + 2) / 3)[labels][:, None],
    )
    oracle: Any = minimize_scalar(
        lambda factor: -(targets * log_softmax(factor * scores, axis=1)).sum(),
        bounds=(0, 5),
        options={"xatol": 1e-10},
    )
    found = fit_calibrator("platt", scores, labels)
    assert found.slope == pytest.approx(oracle.x, abs=1e-6)
    assert found.intercept == 0


def test_more_classes_that_the_scores_get_wrong_keep_their_order():
    labels = np.arange(60) % 3
    found = fit_calibrator("platt", -5 * np.eye(3)[labels], labels)
    assert 0 < found.slope < 0.01
    assert fit_calibrator("platt", np.ones((60, 3)), labels).slope > 0


def test_isotonic():
    scores, labels = scored()
    table = fit_calibrator("isotonic", scores[:, None], labels).table
    assert table is not None
    oracle = IsotonicRegression(out_of_bounds="clip").fit(expit(scores), labels)
    new = np.random.default_rng(5).random(100)
    found = table(np.column_stack([1 - new, new]))
    np.testing.assert_allclose(found[:, 1], oracle.predict(new), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1)


# --- in a head -----------------------------------------------------------------------------


def fitted(method, n_classes=2, n_trials=1, **options: Any):
    features, labels = cases(n_classes=n_classes)
    task = "binary" if n_classes == 2 else "multiclass"
    return fit_head(
        *(features, labels, FACTS),
        task=task,
        cv=5,
        n_trials=n_trials,
        calibration=method,
        **options,
    )


def oracle_cv(method, c):
    features, labels = cases()
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10)
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    options: dict[str, Any] = {"method": method, "cv": folds, "ensemble": False}
    return CalibratedClassifierCV(model, **options).fit(features, labels)


def test_a_platt_head_is_scikit_learns():
    """As near as its solver comes; the fit itself is judged above."""
    head = fitted("platt").head
    assert head.card.training is not None
    oracle = oracle_cv("sigmoid", head.card.training.settings["C"])
    new = cases(seed=3)[0]
    np.testing.assert_allclose(head.predict(new), oracle.predict_proba(new), atol=1e-4)
    assert head.table is None


def test_an_isotonic_head_is_scikit_learns():
    """At the scores that it was fitted to; between them ours is straight in the probability."""
    result = fitted("isotonic")
    assert result.head.card.training is not None
    c = result.head.card.training.settings["C"]
    plain = fitted("none").held_out[:, 1]
    oracle: Any = oracle_cv("isotonic", c).calibrated_classifiers_
    oracle = oracle[0].calibrators[0]
    scores = np.log(plain / (1 - plain))
    assert result.head.table is not None
    said = result.head.table(np.column_stack([1 - plain, plain]))[:, 1]
    np.testing.assert_allclose(said, oracle.predict(scores), atol=1e-6)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_saved_head_is_the_same(tmp_path, method):
    head = fitted(method).head
    save_head(head, tmp_path / "head")
    loaded = load_head(str(tmp_path / "head"), "fmcib")
    features = cases(seed=3)[0]
    np.testing.assert_array_equal(loaded.predict(features), head.predict(features))
    assert loaded.card == head.card


def test_the_card_says_how():
    card: HeadCard = fitted("platt").head.card
    assert card.calibration is not None
    assert (card.calibration.method, card.calibration.n) == ("platt", 150)
    assert card.calibration.data == "random numbers"
    assert "held-out cases (5-fold" in card.calibration.made
    method = card.cross_validated[1].method
    assert "nested 5-fold cross-validation, calibrated within the training folds" in method
    assert "calibrated" not in fitted("none").head.card.cross_validated[1].method


def test_platt_unfolds_to_the_plain_head():
    plain, found = fitted("none").head, fitted("platt").head
    calibration = found.card.calibration
    assert calibration is not None
    np.testing.assert_allclose(found.layers[0].weight, calibration.slope * plain.layers[0].weight)
    features = cases(seed=3)[0]
    scores = calibration.slope * plain.layers[0](features)[:, 0] + calibration.intercept
    np.testing.assert_allclose(found.predict(features)[:, 1], expit(scores), atol=1e-12)


def test_a_multiclass_head():
    plain, found = fitted("none", 3), fitted("platt", 3)
    features = cases(seed=3)[0]
    assert found.head.card.calibration is not None
    scores = found.head.card.calibration.slope * plain.head.layers[0](features)
    np.testing.assert_allclose(found.head.predict(features), softmax(scores, axis=1), atol=1e-12)
    assert found.head.card.cross_validated[0] == plain.head.card.cross_validated[0]


def test_platt_does_not_change_the_auc():
    plain, found = fitted("none", n_trials=4), fitted("platt", n_trials=4)
    assert found.head.card.cross_validated[0] == plain.head.card.cross_validated[0]
    assert found.head.card.cross_validated[1] != plain.head.card.cross_validated[1]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_what_is_held_out_is_not_calibrated_on(method):
    """Swapped labels in a fold change no prediction for that fold."""
    features, labels = cases()
    options: dict[str, Any] = {"task": "binary", "cv": 5, "n_trials": 3, "calibration": method}
    before = fit_head(features, labels, FACTS, **options)
    fold = np.flatnonzero(before.folds == 0)
    swapped = labels.copy()
    first = fold[:-1][np.diff(fold) == 1][-1]  # neighbours: the folds stay as they are
    second = first + 1
    swapped[[first, second]] = swapped[[second, first]]
    after = fit_head(features, swapped, FACTS, **options)
    np.testing.assert_array_equal(after.folds, before.folds)
    np.testing.assert_array_equal(after.held_out[fold], before.held_out[fold])
    others = before.folds != 0
    assert (after.held_out[others] != before.held_out[others]).any()


def test_calibration_mends_a_head_that_is_too_sure():
    """Many features, few cases, hardly a penalty."""
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 2
    features = rng.normal(size=(160, 200)) + 0.12 * labels[:, None]
    options: dict[str, Any] = {"task": "binary", "cv": 4, "n_trials": 1, "seed": 5}
    briers = {}
    for method in ("none", "platt"):
        result = fit_head(features, labels, FACTS, calibration=method, **options)
        briers[method] = result.head.card.cross_validated[1].value
        expected = brier_score_loss(labels, result.held_out[:, 1])
        assert briers[method] == pytest.approx(expected, abs=1e-12)
    assert briers["platt"] < briers["none"]


def test_methods():
    assert (method_for("binary", None), method_for("multiclass", None)) == ("platt", "platt")
    assert (method_for("survival", None), method_for("binary", "none")) == ("none", "none")
    with pytest.raises(EvaluationError, match="no probabilities for the calibration isotonic"):
        method_for("survival", "isotonic")
    with pytest.raises(EvaluationError, match="Isotonic calibration is for two classes"):
        method_for("multiclass", "isotonic")


def test_isotonic_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    scores, labels = scored()
    with pytest.raises(MissingExtraError, match="Calibrating a head needs the package"):
        fit_calibrator("isotonic", scores[:, None], labels)
