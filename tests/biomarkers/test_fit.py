"""Fitted heads against scikit-learn and lifelines; no leakage; the same bytes twice."""

import builtins
from typing import Any

import numpy as np
import pytest
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from pandas import DataFrame
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

from oncofm.biomarkers.fit import fit_head, fit_head_validated
from oncofm.biomarkers.head import load_head
from oncofm.biomarkers.ridge import fit_cox, fit_logistic
from oncofm.biomarkers.save_head import save_head
from oncofm.biomarkers.training_cases import TrainingCases, take_fraction
from oncofm.errors import EvaluationError, HeadInvalidError, HeadMismatchError, MissingExtraError

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
CS = [1e-4, 1e-2, 1.0, 30.0]


def cases(n=120, d=30, n_classes=2, effect=0.6, seed=0):
    """Features that are far from standardised, and classes that shift some of them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    features = rng.normal(size=(n, d)) + effect * labels[:, None] * rng.normal(size=d)
    return (features * rng.uniform(0.1, 9, d) + rng.normal(size=d) * 9).astype(np.float32), labels


def survivors(n=120, d=30, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d))
    times = rng.exponential(np.exp(-features[:, :3].sum(axis=1)))
    return features.astype(np.float32), np.column_stack([times, rng.random(n) < 0.7])


def quick(features, labels, task, **changes):
    options: dict[str, Any] = {"cv": 4, "n_trials": 8} | changes
    return fit_head(features, labels, FACTS, task=task, **options)


@pytest.mark.parametrize("d", [20, 300])
def test_a_folded_scaler_is_scaler_and_model(d):
    features, labels = cases(d=d)
    x = features.astype(float)
    scaler = StandardScaler().fit(x)
    for c, layer in zip(CS, fit_logistic(x, labels, CS), strict=True):
        model = LogisticRegression(C=c, tol=1e-12, max_iter=999, solver="newton-cholesky")
        scores = model.fit(scaler.transform(x), labels).decision_function(scaler.transform(x))
        np.testing.assert_allclose(layer(x)[:, 0], scores, rtol=1e-9, atol=2e-8)


@pytest.mark.parametrize("d", [20, 130])
def test_three_classes(d):
    """As near as the solver comes: its tolerance is on the gradient."""
    features, labels = cases(d=d, n_classes=3)
    x = features.astype(float)
    scaler = StandardScaler().fit(x)
    for c, layer in zip(CS, fit_logistic(x, labels, CS), strict=True):
        model = LogisticRegression(C=c, tol=1e-12, max_iter=999, solver="newton-cholesky")
        expected = model.fit(scaler.transform(x), labels).predict_proba(scaler.transform(x))
        np.testing.assert_allclose(softmax(layer(x), axis=1), expected, atol=1e-4)


def test_the_fold_itself_is_exact():
    """The same weights, with a scaler before them or within them."""
    x = cases(d=200)[0].astype(float)
    scaler = StandardScaler().fit(x)
    (layer,) = fit_logistic(x, cases(d=200)[1], [0.1])
    mean, scale = (np.asarray(part) for part in (scaler.mean_, scaler.scale_))
    weight = layer.weight * scale
    bias = layer.bias + layer.weight @ mean
    np.testing.assert_allclose(layer(x), scaler.transform(x) @ weight.T + bias, atol=1e-9)


def test_a_folded_scaler_with_a_feature_that_never_changes():
    features, labels = cases()
    features[:, 3] = 5.4321
    (layer,) = fit_logistic(features.astype(float), labels, [1.0])
    assert abs(layer.weight[0, 3]) < 1e-12


@pytest.mark.parametrize("penalizer", [0.01, 0.3, 3.0])
def test_cox_against_lifelines(penalizer):
    features, outcomes = survivors(d=8)
    x = StandardScaler().fit_transform(features.astype(float))
    # lifelines scales by the SD of n - 1, and takes the mean of the loss.
    frame = DataFrame(x).assign(time=outcomes[:, 0], event=outcomes[:, 1])
    oracle = CoxPHFitter(penalizer=penalizer)
    oracle.fit(frame, "time", "event", fit_options={"precision": 1e-12})
    c = (len(x) - 1) / (penalizer * len(x) ** 2)
    (layer,) = fit_cox(features.astype(float), outcomes, [c])
    scores = layer(features.astype(float))[:, 0]
    np.testing.assert_allclose(scores, x @ oracle.params_.to_numpy(), rtol=1e-6, atol=1e-6)


def test_cox_is_a_minimum():
    """With ties, more features than cases, and penalties from none to much."""
    features, outcomes = survivors(n=60, d=90)
    outcomes[:, 0] = np.ceil(outcomes[:, 0] * 4)
    x = StandardScaler().fit_transform(features.astype(float))

    def loss(weight, c):
        scores = x @ weight
        terms = [
            np.log(np.exp(scores[outcomes[:, 0] >= time]).sum()) - score
            for (time, event), score in zip(outcomes, scores, strict=True)
            if event
        ]
        return c * np.sum(terms) + weight @ weight / 2

    cs = [1e-6, 1e-3, 1.0, 1e3]
    for c, layer in zip(cs, fit_cox(features.astype(float), outcomes, cs), strict=True):
        weight = layer.weight[0] * features.astype(float).std(axis=0)
        lowest = loss(weight, c)
        rng = np.random.default_rng(1)
        for _ in range(20):
            assert loss(weight + 1e-3 * rng.normal(size=90), c) > lowest


def test_cox_with_scores_that_no_exponential_holds():
    """Far more features than cases, hardly a penalty: the order in time is met exactly."""
    features, outcomes = survivors(n=80, d=2000)
    (layer,) = fit_cox(features.astype(float), outcomes, [1e3])
    assert concordance_index(outcomes[:, 0], -layer(features)[:, 0], outcomes[:, 1]) == 1


def test_binary():
    features, labels = cases()
    names = np.array(["benign", "malignant"])[labels]
    fitted = quick(features, names, "binary", calibration="none")
    card = fitted.head.card
    assert card.classes == ("benign", "malignant")
    assert (card.kind, card.task, card.scaler, card.n_features) == (
        "logistic",
        "binary",
        "folded",
        30,
    )
    assert card.training is not None
    assert card.training.counts == {"benign": 60, "malignant": 60}
    assert card.training.data == card.cross_validated[0].data == "random numbers"
    assert np.bincount(fitted.folds).tolist() == [30] * 4
    folds = [fitted.folds == fold for fold in range(4)]
    aucs = [roc_auc_score(labels[f], fitted.held_out[f, 1]) for f in folds]
    figure, brier = card.cross_validated  # every fold has as many pairs
    assert figure.value == pytest.approx(np.mean(aucs), abs=1e-12)
    assert 0.7 < figure.ci_low < figure.value < figure.ci_high <= 1
    assert brier.value == pytest.approx(brier_score_loss(labels, fitted.held_out[:, 1]), abs=1e-12)
    assert (card.calibration, card.threshold) == (None, None)
    c = card.training.settings["C"]
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10)
    x = StandardScaler().fit_transform(features.astype(float))
    expected = model.fit(x, labels).predict_proba(x)
    np.testing.assert_allclose(fitted.head.predict(features), expected, atol=1e-9)
    assert fitted.head.reference is not None
    assert fitted.head.reference.percentiles(features).max() < 100


def test_settings_on_the_card(tmp_path):
    """Whole numbers stay whole, also in the file."""
    fitted = quick(*cases(), "binary", settings={"fraction": 0.5})
    save_head(fitted.head, tmp_path / "head")
    card = load_head(str(tmp_path / "head"), "fmcib").card
    assert card == fitted.head.card
    assert card.training is not None
    settings = {key: value for key, value in card.training.settings.items() if key != "C"}
    assert settings == {"cv": 4, "n_trials": 8, "seed": 0, "fraction": 0.5}
    assert "cv: 4\n" in (tmp_path / "head" / "head.yml").read_text()


def test_a_direction_gives_a_threshold():
    facts = FACTS | {"direction": "higher_is_worse"}
    features, labels = cases()
    fitted = fit_head(features, labels, facts, task="binary", cv=4, n_trials=1, calibration="none")
    found = fitted.head.card.threshold
    assert found is not None
    # With one C to choose from, both cross-validations are the same.
    assert found.value == pytest.approx(np.median(fitted.held_out[:, 1]), abs=1e-12)
    assert (
        found.chosen == "median prediction for held-out cases (4-fold cross-validation with this C)"
    )


def test_a_threshold_that_is_told():
    facts = FACTS | {
        "direction": "higher_is_worse",
        "threshold": {"value": 0.7, "chosen": "by the user"},
    }
    found = fit_head(*cases(), facts, task="binary", cv=3, n_trials=1).head.card.threshold
    assert found is not None
    assert found.value == 0.7


def test_multiclass():
    features, labels = cases(n_classes=3, n=60, d=10)
    fitted = quick(features, labels, "multiclass", n_trials=4)
    assert fitted.head.card.classes == ("0", "1", "2")
    accuracy, balanced, brier = fitted.head.card.cross_validated
    expected = accuracy_score(labels, fitted.held_out.argmax(axis=1))
    assert accuracy.value == pytest.approx(expected, abs=1e-12)
    assert balanced.statistic == "balanced_accuracy"
    np.testing.assert_allclose(fitted.held_out.sum(axis=1), 1)
    squares = ((fitted.held_out - np.eye(3)[labels]) ** 2).sum(axis=1)
    assert brier.value == pytest.approx(squares.mean(), abs=1e-12)


def test_survival(tmp_path):
    features, outcomes = survivors()
    fitted = quick(features, outcomes, "survival")
    card = fitted.head.card
    assert card.outputs == ("log hazard ratio",)
    (figure,) = card.cross_validated
    indices, pairs = [], []
    for fold in range(4):
        times, events = outcomes[fitted.folds == fold].T
        risks = fitted.held_out[fitted.folds == fold, 0]
        indices.append(concordance_index(times, -risks, events))
        pairs.append(((times[:, None] < times) & (events[:, None] == 1)).sum())
    assert figure.value == pytest.approx(np.average(indices, weights=pairs), abs=1e-12)
    assert figure.ci_low > 0.55
    save_head(fitted.head, tmp_path / "cox")
    head = load_head(str(tmp_path / "cox"), "fmcib")
    risks = head.predict(features)
    groups = np.array(head.risk_groups(risks))
    assert card.threshold is not None
    np.testing.assert_array_equal(groups == "high", risks[:, 0] > card.threshold.value)


@pytest.mark.parametrize("task", ["binary", "multiclass", "survival"])
def test_the_same_bytes_twice(tmp_path, task):
    features, labels = (
        survivors(d=8)
        if task == "survival"
        else cases(n=60, d=8, n_classes=3 if task == "multiclass" else 2)
    )
    for name in ("first", "second"):
        calibration = "isotonic" if task == "binary" else None
        fitted = quick(features, labels, task, seed=5, calibration=calibration)
        save_head(fitted.head, tmp_path / name)
    for file in ("head.yml", "head.safetensors"):
        first, second = (tmp_path / name / file for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_what_is_held_out_does_not_matter():
    """A case's own prediction stays when its features and label change."""
    features, labels = cases()
    before = quick(features, labels, "binary")
    changed, swapped = features.copy(), labels.copy()
    first, second = np.flatnonzero(before.folds == 0)[:2]
    assert labels[first] != labels[second]
    changed[[first, second]] *= 1000
    swapped[[first, second]] = swapped[[second, first]]
    after = quick(changed, labels, "binary")
    others = np.setdiff1d(np.flatnonzero(before.folds == 0), [first, second])
    np.testing.assert_array_equal(after.folds, before.folds)
    np.testing.assert_array_equal(after.held_out[others], before.held_out[others])


# --- a validation set ----------------------------------------------------------------------


def told(features, labels, groups=None, name="case"):
    ids = [(f"{name} {i}",) for i in range(len(labels))]
    return TrainingCases(features.astype(float), list(labels), groups, {}, ids, 0)


def halves(features, labels):
    """Training cases and validation cases."""
    return told(features[:80], labels[:80]), told(features[80:], labels[80:], name="other")


@pytest.mark.parametrize("n_classes", [2, 3])
def test_c_is_the_best_of_the_validation_set(n_classes):
    features, labels = cases(n_classes=n_classes, effect=0.4)
    train, other = halves(features, labels)
    task = "binary" if n_classes == 2 else "multiclass"
    facts = FACTS | ({"direction": "higher_is_worse"} if n_classes == 2 else {})
    head = fit_head_validated(train, other, facts, task=task, n_trials=12, calibration="none")
    x = StandardScaler().fit(train.features)
    cs = np.sort(np.exp(np.random.default_rng(0).uniform(np.log(1e-6), np.log(1e3), 12)))
    scores = []
    for c in cs:
        model = LogisticRegression(C=c, tol=1e-10, max_iter=9999, solver="newton-cholesky")
        model.fit(x.transform(train.features), train.labels)
        said = model.predict_proba(x.transform(other.features))
        if n_classes == 2:
            scores.append(roc_auc_score(other.labels, said[:, 1]))
        else:
            scores.append(accuracy_score(other.labels, said.argmax(axis=1)))
    card = head.card
    assert card.training is not None
    assert card.training.settings["C"] == cs[int(np.argmax(scores))]
    assert (card.training.n, card.training.settings["n_validation"]) == (80, 40)
    assert sum(card.training.counts.values()) == 80
    assert card.cross_validated == ()
    assert card.validation[0].value == pytest.approx(max(scores), abs=1e-12)
    assert card.validation[0].n == 40
    assert "optimistic" in card.validation[0].method
    if n_classes == 2:
        assert card.threshold is not None
        median = np.median(head.predict(other.features)[:, 1])
        assert card.threshold.value == pytest.approx(median, abs=1e-9)
        assert card.threshold.chosen == "median prediction for the validation set"


def test_calibrated_on_a_validation_set():
    train, other = halves(*cases())
    head = fit_head_validated(train, other, FACTS, task="binary", n_trials=3)
    assert head.card.calibration is not None
    assert (head.card.calibration.made, head.card.calibration.n) == ("the validation set", 40)
    brier = brier_score_loss(other.labels, head.predict(other.features)[:, 1])
    assert head.card.validation[1].value == pytest.approx(brier, abs=1e-9)
    assert head.card.validation[1].method.startswith(
        "validation set that C was chosen on, hence optimistic, calibrated on it too"
    )


def test_survival_on_a_validation_set():
    features, outcomes = survivors()
    train, other = halves(features, [tuple(row) for row in outcomes])
    head = fit_head_validated(train, other, FACTS, task="survival", n_trials=3)
    risks = head.predict(other.features)[:, 0]
    expected = concordance_index(outcomes[80:, 0], -risks, outcomes[80:, 1])
    assert head.card.validation[0].value == pytest.approx(expected, abs=1e-12)


def test_validation_sets_that_cannot_be_used():
    features, labels = cases()
    train, other = halves(features, labels)
    with pytest.raises(EvaluationError, match="80 cases are in the training set and"):
        fit_head_validated(train, train, FACTS, task="binary")
    patients = [f"p{i}" for i in range(80)]
    shared = told(features[80:], labels[80:], patients[:2] * 20, "other")
    with pytest.raises(EvaluationError, match="2 patients are in the training set and"):
        fit_head_validated(told(features[:80], labels[:80], patients), shared, FACTS, task="binary")
    strange = told(features[80:], ["new"] * 40, name="other")
    named = told(features[:80], np.array(["a", "b"])[labels[:80]])
    with pytest.raises(EvaluationError, match="No training case is 'new'"):
        fit_head_validated(named, strange, FACTS, task="multiclass")
    one_class = told(features[80:], np.ones(40, int), name="other")
    with pytest.raises(EvaluationError, match="No two held-out cases can be compared"):
        fit_head_validated(train, one_class, FACTS, task="binary")
    with pytest.raises(EvaluationError, match="0 trials were asked for"):
        fit_head_validated(train, other, FACTS, task="binary", n_trials=0)


def test_patients_of_a_validation_set_are_drawn_together():
    features, labels = cases()
    groups = [f"patient {i // 4}" for i in range(120)]
    train = told(features[:80], labels[:80], groups[:80])
    other = told(features[80:], labels[80:], groups[80:], "other")
    card = fit_head_validated(train, other, FACTS, task="binary", n_trials=2).card
    assert card.training is not None
    assert card.training.n_groups == 20


# --- a share of the cases ------------------------------------------------------------------


def test_a_share_of_the_cases_is_stratified_and_holds_smaller_ones():
    features, _ = cases(n=200)
    labels = ["rare"] * 40 + ["common"] * 160
    whole = told(features, labels)
    before: set = set()
    for fraction in (0.1, 0.25, 0.5, 1.0):
        part = take_fraction(whole, "binary", fraction, seed=3)
        assert len(part.labels) == round(200 * fraction)
        assert part.labels.count("rare") == pytest.approx(40 * fraction, abs=1)
        rows = [int(name.split()[1]) for (name,) in part.ids]
        assert rows == sorted(rows)
        np.testing.assert_array_equal(part.features, whole.features[rows])
        assert part.labels == [labels[row] for row in rows]
        assert before <= set(part.ids)
        before = set(part.ids)
    assert (
        take_fraction(whole, "binary", 0.5, seed=3).ids
        == take_fraction(whole, "binary", 0.5, seed=3).ids
    )
    assert (
        take_fraction(whole, "binary", 0.5, seed=3).ids
        != take_fraction(whole, "binary", 0.5, seed=4).ids
    )


def test_a_share_takes_whole_patients():
    features, outcomes = survivors()
    groups = [i // 3 for i in range(120)]
    whole = told(features, [tuple(row) for row in outcomes], groups)
    part = take_fraction(whole, "survival", 0.4, seed=0)
    assert len(part.labels) == 48
    assert part.groups is not None
    assert set(np.bincount(part.groups)) == {0, 3}
    events = np.mean([event for _, event in part.labels])
    assert events == pytest.approx(outcomes[:, 1].mean(), abs=0.1)


@pytest.mark.parametrize(
    ("fraction", "sentence"),
    [(0, "above 0 and up to 1"), (1.5, "above 0 and up to 1"), (0.001, "takes no case")],
)
def test_shares_that_cannot_be(fraction, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        take_fraction(told(*cases()), "binary", fraction, seed=0)


# --- input that cannot be fitted to, and what must not happen --------------------------------


def test_groups_stay_together():
    features, labels = cases(n=160)
    groups = np.array([f"patient {i // 4}" for i in range(160)])
    fitted = quick(features, labels, "binary", groups=groups)
    for group in np.unique(groups):
        assert len(set(fitted.folds[groups == group])) == 1
    assert fitted.head.card.training is not None
    assert fitted.head.card.training.n_groups == 40


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "survival"])
def test_permuted_labels_tell_nothing(task):
    covered, values = 0, []
    for seed in range(12):
        features, labels = (
            survivors(n=100, d=150) if task == "survival" else cases(n=100, d=150, effect=2)
        )
        order = np.random.default_rng(seed).permutation(len(labels))
        fitted = quick(features, labels[order], task, cv=5, n_trials=20, seed=seed)
        figure = fitted.head.card.cross_validated[0]
        values.append(figure.value)
        covered += figure.ci_low <= 0.5 <= figure.ci_high
    assert covered >= 9
    assert abs(np.mean(values) - 0.5) < 3 * np.std(values) / np.sqrt(len(values))


def test_progress():
    seen = []

    def advance():
        seen.append(1)

    features, labels = cases()
    quick(features, labels, "binary", advance=advance)
    assert len(seen) == 4 + 1


@pytest.mark.parametrize(
    ("labels", "task", "changes", "sentence"),
    [
        (np.zeros(40), "binary", {}, "1 classes"),
        (np.arange(40) % 3, "binary", {}, "3 classes"),
        (np.arange(40) % 2, "multiclass", {}, "three or more"),
        (np.arange(39) % 2, "binary", {}, "39 labels for 40"),
        (np.where(np.arange(40) == 3, np.nan, np.arange(40) % 2), "binary", {}, "missing"),
        ([None] + ["a", "b"] * 19 + ["a"], "binary", {}, "missing"),
        ([1] + ["a", "b"] * 19 + ["a"], "binary", {}, "sorted"),
        (np.arange(40) >= 37, "binary", {}, "3 cases or groups"),
        (np.arange(40) % 2, "binary", {"cv": 2}, "2 folds"),
        (np.arange(40) % 2, "binary", {"n_trials": 0}, "0 trials"),
        (np.arange(40) % 2, "binary", {"groups": np.zeros(3)}, "3 groups for 40"),
        (np.arange(40) % 2, "binary", {"groups": np.arange(40) % 2}, "1 cases or groups"),
        (np.ones((40, 3)), "survival", {}, "3 columns"),
        (np.column_stack([np.ones(40), np.zeros(40)]), "survival", {}, "has an event"),
        (np.column_stack([np.ones(40), np.arange(40) % 2 * 2]), "survival", {}, "0 and 1"),
    ],
)
def test_labels_that_cannot_be_fitted_to(labels, task, changes, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        quick(cases(n=40)[0], labels, task, **changes)


def test_features_that_cannot_be_fitted_to():
    features, labels = cases(n=40)
    features[7, 2] = np.nan
    with pytest.raises(EvaluationError, match="1 of 40 features are missing or not finite"):
        quick(features, labels, "binary")
    features = features.astype(float)
    features[7, 2] = 1e300
    with pytest.raises(EvaluationError, match=r"reach 1e\+300, which cannot be fitted to"):
        quick(features, labels, "binary")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "cox"}, "kind of a fitted head cannot be given"),
        ({"validation": []}, "validation of a fitted head cannot be given"),
        ({"classes": 2}, "classes in the facts are no list"),
        ({"classes": ["a", "b", "c"]}, "3 names were given to 2 classes"),
        ({"weights_sha256": "12"}, "weights_sha256"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_facts_that_make_no_card(changes, sentence):
    with pytest.raises(HeadInvalidError, match=sentence):
        fit_head(*cases(n=40), FACTS | changes, task="binary", cv=3, n_trials=1)


def test_without_scikit_learn(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("sklearn"):
            raise ImportError(name="sklearn")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"install oncofm\[biomarkers\]"):
        quick(*cases(n=40), "binary")
    with pytest.raises(MissingExtraError):
        fit_logistic(*cases(n=40), [1.0])


def test_heads_refuse_features_that_are_not_finite_or_of_another_length():
    features, labels = cases(n=40)
    head = quick(features, labels, "binary").head
    for value in (np.nan, np.inf):
        features[5, 1] = value
        with pytest.raises(HeadMismatchError, match=r"1 of 40 rows .* row 5"):
            head.predict(features)
    for wrong in (features[:, :-1], features[0]):
        with pytest.raises(HeadMismatchError, match="rows of 30 features"):
            head.predict(wrong)
