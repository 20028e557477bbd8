"""Heads from the command line: fitted to tables, imported from files, refused with a sentence."""

import pickle

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from oncofm.biomarkers.head import load_head
from oncofm.cli.head import app
from oncofm.errors import EvaluationError, HeadInvalidError

FACTS = {"title": "A test", "intended_use": "tests", "licence": "MIT"}
FEATURE_FACTS = {"model": "fmcib", "profile": "mhub", "weights_sha256": "ab" * 32}


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def tables(folder, suffix=".csv", n=60, features=None, labels=None):
    """Write features, labels in another order, and facts; return their paths."""
    rng = np.random.default_rng(0)
    classes = np.arange(n) % 2
    table = pd.DataFrame(rng.normal(size=(n, 12)) + classes[:, None]).add_prefix("pred_")
    table = table.assign(lesion_id=[f"lesion {i}" for i in range(n)], **FEATURE_FACTS)
    outcome = pd.DataFrame(
        {
            "lesion_id": table["lesion_id"],
            "label": np.where(classes, "malignant", "benign"),
            "patient": np.arange(n) // 2 // 2,
            "time": rng.exponential(size=n),
            "event": classes,
        }
    ).iloc[: n - 4]
    table, outcome = table.assign(**(features or {})), outcome.assign(**(labels or {}))
    paths = [folder / f"features{suffix}", folder / f"labels{suffix}", folder / "facts.yml"]
    for frame, path in zip((table[::-1], outcome), paths, strict=False):
        frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    paths[2].write_text(yaml.safe_dump(FACTS))
    return paths


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("task", ["binary", "survival"])
def test_fit(tmp_path, suffix, task):
    features, labels, facts = tables(tmp_path, suffix)
    result = invoke(
        *("fit", features, labels, "--facts", facts, "-o", tmp_path / "mine", "--task", task),
        *("--cv", 3, "--trials", 3, "--group", "patient"),
    )
    assert "4 cases without a label were left out" in result.output
    card = load_head(str(tmp_path / "mine"), "fmcib").card
    assert (card.name, card.profile, card.weights_sha256) == ("mine", "mhub", "ab" * 32)
    assert card.training is not None
    assert (card.training.n, card.training.n_groups) == (56, 14)
    if task == "binary":
        assert card.classes == ("benign", "malignant")
        assert card.cross_validated[0].value > 0.9  # the rows were joined, not taken in order


@pytest.mark.parametrize(
    ("features", "labels", "sentence"),
    [
        ({"lesion_id": "same"}, None, "name the same case"),
        (None, {"lesion_id": ""}, "has no lesion_id"),
        ({"lesion_id": range(60)}, None, "56 of 56 labelled cases have no features"),
        ({"profile": ["mhub", "paper"] * 30}, None, "2 different values of profile"),
        ({"pred_3": "x"}, None, "no number"),
        ({"pred_3": [None] + [0.0] * 59}, None, "not finite"),
        ({"pred_x": 1.0}, None, "lack the column pred_12"),
        (None, {"label": ["", *(["a", "b"] * 27), "a"]}, "Labels are missing"),
    ],
)
def test_tables_that_cannot_be_fitted_to(tmp_path, features, labels, sentence):
    paths = tables(tmp_path, features=features, labels=labels)
    with pytest.raises(EvaluationError, match=sentence):
        invoke("fit", *paths[:2], "--facts", paths[2], "-o", tmp_path / "h", "--task", "binary")
    assert not (tmp_path / "h").exists()


def fit(tmp_path, *options, task="binary", facts=FACTS, labels=None):
    paths = tables(tmp_path, labels=labels)
    paths[2].write_text(yaml.safe_dump(facts))
    result = invoke(
        *("fit", *paths[:2], "--facts", paths[2], "-o", tmp_path / "mine", "--task", task),
        *("--trials", 3, *options),
    )
    return result, load_head(str(tmp_path / "mine"), "fmcib")


@pytest.mark.parametrize(
    ("options", "method"),
    [((), "platt"), (("--calibration", "isotonic"), "isotonic"), (("--calibration", "none"), None)],
)
def test_calibration(tmp_path, options, method):
    result, head = fit(tmp_path, "--cv", 3, *options)
    found = head.card.calibration
    assert (found and found.method) == method
    assert "brier" in result.output


def test_a_direction_in_the_facts_gives_a_threshold(tmp_path):
    _, head = fit(tmp_path, "--cv", 3, facts=FACTS | {"direction": "higher_is_worse"})
    assert head.card.threshold is not None
    assert "median" in head.card.threshold.chosen


@pytest.mark.parametrize("task", ["binary", "survival"])
def test_a_validation_set(tmp_path, task):
    paths = tables(tmp_path)
    outcome = pd.read_csv(paths[1])
    outcome.iloc[:40].to_csv(paths[1], index=False)
    outcome.iloc[40:].to_csv(tmp_path / "val.csv", index=False)
    result = invoke(
        *("fit", *paths[:2], "--facts", paths[2], "-o", tmp_path / "mine", "--task", task),
        *("--val", tmp_path / "val.csv", "--trials", 3),
    )
    card = load_head(str(tmp_path / "mine"), "fmcib").card
    assert card.training is not None
    assert (card.training.n, card.training.settings["n_validation"]) == (40, 16)
    assert "4 cases without a label were left out" in result.output
    assert f"{card.validation[0].statistic} {card.validation[0].value:.3f}" in result.output


def test_a_fraction(tmp_path):
    _, head = fit(tmp_path, "--cv", 3, "--fraction", 0.5)
    assert head.card.training is not None
    assert head.card.training.n == 28
    assert head.card.training.settings["fraction"] == 0.5


@pytest.mark.parametrize(
    ("options", "task", "sentence"),
    [
        (("--cv", 3, "--val", "labels.csv"), "binary", "--val chooses C instead of --cv"),
        (("--calibration", "platt"), "survival", "no probabilities for the calibration platt"),
        (("--calibration", "isotonic"), "multiclass", "Isotonic calibration is for two classes"),
        (("--fraction", 0), "binary", "must lie above 0"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, task, sentence):
    labels = {"label": (["a", "b", "c"] * 19)[:56]} if task == "multiclass" else None
    with pytest.raises(EvaluationError, match=sentence):
        fit(tmp_path, *options, task=task, labels=labels)


def test_import(tmp_path):
    model = LogisticRegression().fit(np.eye(6), [0, 1] * 3)
    (tmp_path / "task.pkl").write_bytes(pickle.dumps(model))
    facts = tmp_path / "facts.yml"
    facts.write_text(yaml.safe_dump(FACTS | FEATURE_FACTS))
    result = invoke("import", tmp_path / "task.pkl", "-o", tmp_path / "mine", "--facts", facts)
    assert "logistic head of 6 features" in result.output
    found = load_head(str(tmp_path / "mine"), "fmcib").predict(np.eye(6))
    np.testing.assert_allclose(found, model.predict_proba(np.eye(6)), atol=1e-12)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"[1]", b"1: 2", b""])
def test_facts_that_cannot_be_read(tmp_path, content):
    (tmp_path / "facts.yml").write_bytes(content)
    with pytest.raises(HeadInvalidError, match="The facts"):
        invoke("import", "task.pkl", "-o", tmp_path / "h", "--facts", tmp_path / "facts.yml")
