"""``oncofm predict`` and the chain that heads go through: fit, predict, evaluate."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from heads import write_head
from studies import write_study

from oncofm.biomarkers.head import load_head


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("predict") / "study", "predict", seed=10)


@pytest.mark.parametrize("name", ["features.parquet", "features.csv", ""])
def test_the_same_as_in_the_run(study, cli, tmp_path, name):
    write_head(tmp_path / "two", n_features=4096)
    write_head(tmp_path / "three", n_outputs=3, n_features=4096)
    heads = ("--head", tmp_path / "two", "--head", tmp_path / "three")
    run = cli("run", study.folder, *heads, tmp_path / "out")
    result = cli("predict", run.output / name, *heads, "-o", tmp_path / "later.csv")
    assert result.code == 0
    columns = ["lesion_id", "head", "class", "probability"]
    direct, later = (pd.read_csv(path) for path in (run.output / "predictions.csv", result.output))
    pd.testing.assert_frame_equal(later[columns], direct[columns], rtol=1e-6)


def test_a_table_that_is_divided_into_files(cli, tmp_path):
    write_head(tmp_path / "two", n_features=12)
    features_table(tmp_path / "whole.parquet")
    folder = tmp_path / "out" / "features.parquet"
    folder.mkdir(parents=True)
    rows = pd.read_parquet(tmp_path / "whole.parquet")
    rows[:10].to_parquet(folder / "features-00001.parquet")
    rows[10:].to_parquet(folder / "features-00002.parquet")
    tables = {}
    for name in ("whole.parquet", "out", "out/features.parquet"):
        target = tmp_path / "predictions.csv"
        head = ("--head", tmp_path / "two")
        assert cli("predict", tmp_path / name, *head, "-o", target).code == 0
        tables[name] = target.read_text()
    assert len(set(tables.values())) == 1
    assert tables["out"].count("\n") > 24


def features_table(path, n=24, d=12, **changes):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, d)).astype(np.float32) + labels[:, None]
    table = pd.DataFrame({"lesion_id": [f"l{i}" for i in range(n)]})
    made_from = {"model": "fmcib", "profile": "mhub", "weights_sha256": "0" * 64}
    table = table.assign(**(made_from | changes))
    columns = pd.DataFrame(features, columns=[f"pred_{i}" for i in range(d)])
    pd.concat([table, columns], axis=1).to_parquet(path)
    return labels


def test_fit_predict_evaluate(cli, tmp_path):
    labels = features_table(tmp_path / "features.parquet")
    names = np.where(labels == 1, "malignant", "benign")
    pd.DataFrame({"lesion_id": [f"l{i}" for i in range(24)], "label": names}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    (tmp_path / "facts.yml").write_text(
        yaml.safe_dump(
            {
                "name": "mine",
                "title": "A test",
                "intended_use": "tests",
                "licence": "Apache-2.0",
            }
        )
    )
    fitted = cli(
        "head", "fit", tmp_path / "features.parquet", tmp_path / "labels.csv",
        "--task", "binary", "--id", "lesion_id", "--cv", "4", "--trials", "5",
        "--facts", tmp_path / "facts.yml", "-o", tmp_path / "mine",
    )  # fmt: skip
    assert fitted.code == 0, fitted.stderr
    assert load_head(str(tmp_path / "mine"), "fmcib").card.name == "mine"
    predicted = cli(
        "predict", tmp_path / "features.parquet", "--head", tmp_path / "mine",
        "-o", tmp_path / "predictions.csv",
    )  # fmt: skip
    assert predicted.code == 0, predicted.stderr
    evaluated = cli(
        "evaluate", tmp_path / "predictions.csv", tmp_path / "labels.csv",
        "--id", "lesion_id", "--resamples", "50", "--no-figures", "-o", tmp_path / "evaluation",
    )  # fmt: skip
    assert evaluated.code == 0, evaluated.stderr
    text = (tmp_path / "evaluation" / "evaluation.json").read_text()
    assert json.loads(text)
    assert "auc" in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"profile": "paper"}, "mhub, not paper"),
        ({"model": "beph"}, "not beph"),
        ({"profile": ["mhub", "paper"] * 12}, "several values of profile"),
    ],
)
def test_features_of_something_else(cli, tmp_path, changes, sentence):
    features_table(tmp_path / "features.parquet", **changes)
    write_head(tmp_path / "two", n_features=12)
    result = cli(
        "predict", tmp_path / "features.parquet", "--head", tmp_path / "two",
        "-o", tmp_path / "p.csv",
    )  # fmt: skip
    assert result.code == 1
    assert sentence in result.stderr


def test_a_lesion_without_features_keeps_its_row(cli, tmp_path):
    features_table(tmp_path / "features.parquet")
    table = pd.read_parquet(tmp_path / "features.parquet")
    table.loc[3, [f"pred_{i}" for i in range(12)]] = None
    table.to_parquet(tmp_path / "features.parquet")
    write_head(tmp_path / "two", n_features=12)
    cli(
        "predict", tmp_path / "features.parquet", "--head", tmp_path / "two",
        "-o", tmp_path / "p.csv",
    )  # fmt: skip
    rows = pd.read_csv(tmp_path / "p.csv")
    assert len(rows) == 23 * 2 + 1
    assert rows[rows["lesion_id"] == "l3"]["probability"].isna().all()


def test_a_table_that_is_none(cli, tmp_path):
    write_head(tmp_path / "two", n_features=12)
    (tmp_path / "x.parquet").write_text("nothing")
    for name in ("absent.parquet", "x.parquet"):
        result = cli(
            "predict", tmp_path / name, "--head", tmp_path / "two", "-o", tmp_path / "p.csv"
        )
        assert result.code == 1
        assert name in result.stderr
