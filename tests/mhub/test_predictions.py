"""Biomarkers through a workflow: a row per lesion, head and class, or a refusal before the work."""

import numpy as np
import pandas as pd
import pytest
from heads import write_head

from oncofm.biomarkers.head import load_head


@pytest.fixture
def default(mhub_run, samples, encoder):
    def run(*heads):
        names = ",".join(map(str, heads))
        return mhub_run(
            "--workflow",
            "default",
            f"--config:modules.BiomarkerPredictor.heads={names}",
            source=samples["default"].folder,
        )

    return run


def test_every_head_and_class_has_a_row(default, tmp_path):
    write_head(tmp_path / "two", n_features=4096)
    write_head(tmp_path / "three", n_outputs=3, n_features=4096)
    result = default(tmp_path / "two", tmp_path / "three")
    assert result.code == 0
    predictions = pd.read_csv(result.output / "predictions.csv")
    features = pd.read_parquet(result.output / "features.parquet").filter(like="pred_")
    assert len(predictions) == 3 * (2 + 3)
    for name in ("two", "three"):
        head = load_head(str(tmp_path / name), "fmcib")
        rows = predictions[predictions["head"] == name]
        assert rows["class"].tolist() == [*head.card.classes] * 3
        expected = head.predict(features.to_numpy()).ravel()
        np.testing.assert_allclose(rows["probability"], expected, rtol=1e-9)


def test_older_predictions_do_not_pass_for_a_result(default, tmp_path):
    write_head(tmp_path / "two", n_features=4096)
    assert (default(tmp_path / "two").output / "predictions.csv").exists()
    assert not (default().output / "predictions.csv").exists()


@pytest.mark.parametrize("wrong", [{"profile": "paper"}, {"weights_sha256": "ab" * 32}])
def test_a_head_for_other_features_is_refused_before_the_work(default, tmp_path, encoder, wrong):
    write_head(tmp_path / "other", n_features=4096, **wrong)
    result = default(tmp_path / "other")
    assert result.code == 1
    assert "needs another value" in result.stderr
    assert encoder.batches == []


def test_an_unknown_head(default):
    result = default("nix")
    assert result.code == 1
    assert "There is no head 'nix'" in result.stderr
