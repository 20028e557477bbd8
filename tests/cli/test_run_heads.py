"""``oncofm run --head``: predictions beside the features."""

import numpy as np
import pandas as pd
import pytest
from heads import write_head
from studies import write_study

from oncofm.biomarkers.head import load_head


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("heads") / "study", "heads", seed=8)


def test_predictions_of_every_lesion(study, cli, tmp_path):
    write_head(tmp_path / "two", n_features=4096)
    result = cli("run", study.folder, "--head", tmp_path / "two", tmp_path / "out")
    assert result.code == 0
    predictions = pd.read_csv(result.output / "predictions.csv")
    assert predictions["lesion_id"].tolist() == [
        f"segment-{n}" for n in (1, 2, 3) for _ in range(2)
    ]
    expected = load_head(str(tmp_path / "two"), "fmcib").predict(
        result.features.filter(like="pred_").to_numpy()
    )
    np.testing.assert_allclose(predictions["probability"], expected.ravel(), rtol=1e-9)
    assert not (cli("run", study.folder, tmp_path / "out").output / "predictions.csv").exists()


def test_a_head_that_does_not_fit(study, cli, tmp_path):
    write_head(tmp_path / "two", n_features=4096)
    result = cli(
        "run", study.folder, "--profile", "paper", "--head", tmp_path / "two", tmp_path / "out"
    )
    assert result.code == 1
    assert "mhub, not paper" in result.stderr
    assert list(result.output.iterdir()) == []


def test_a_head_that_does_not_exist(study, cli, tmp_path):
    result = cli("run", study.folder, "--head", "nix", tmp_path / "out")
    assert result.code == 1
    assert "no head 'nix'" in result.stderr
