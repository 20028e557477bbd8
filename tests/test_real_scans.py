"""The main job on real scans with the real network, against what upstream computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oncofm import extract_features

ONCOFM = Path(sys.executable).with_name("oncofm")
COORDINATES = ["coordX", "coordY", "coordZ"]


@pytest.fixture
def seeds(shared_data):
    table = pd.read_csv(shared_data / "reference" / "seeds.csv")
    table["image_path"] = [str(shared_data / path) for path in table["image_path"]]
    return table


def preds(table):
    return table.filter(like="pred_").to_numpy(np.float32)


def test_features_equal_upstream_from_nrrd_and_from_dicom(shared_data, seeds, seed0_weights):
    table = extract_features(seeds, seed0_weights)
    assert table["state"].tolist() == ["done"] * 5
    reference = [np.load(shared_data / f"reference/{case}.npy") for case in seeds["case"]]
    np.testing.assert_allclose(preds(table), np.stack(reference), atol=1e-4)
    assert len(set(table["weights_sha256"])) == 1


def test_the_run_of_the_readme(shared_data, seeds, seed0_weights, tmp_path):
    """A whole-body CT with localisers beside it and two points, as a command."""
    two = seeds.iloc[[1, 2]].rename(columns={"case": "lesion_id"})
    two[["lesion_id", *COORDINATES]].to_csv(tmp_path / "two.csv", index=False)
    for name in ("a", "b"):
        done = subprocess.run(
            [
                ONCOFM,
                *("run", shared_data / "petct_ct", shared_data / "petct_topograms"),
                *(tmp_path / name, "--seeds", tmp_path / "two.csv", "--weights", seed0_weights),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ,
        )
        assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "a/features.parquet")
    for case, vector in zip(two["lesion_id"], preds(table), strict=True):
        expected = np.load(shared_data / f"reference/{case}.npy")
        np.testing.assert_allclose(vector, expected, atol=1e-4)
    cases = pd.read_csv(tmp_path / "a/cases.csv")
    left_out = cases[cases["level"] == "series"]
    assert left_out["reason"].tolist() == ["localizer"] * len(left_out)
    assert len(left_out) >= 1
    assert json.loads((tmp_path / "a/run.json").read_text())["summary"]["exit_code"] == 0
    for file in ("features.parquet", "features.csv", "cases.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_label_mask_gives_the_reference_seed(shared_data, seed0_weights, tmp_path):
    lung1 = shared_data / "lung1"
    done = subprocess.run(
        [
            ONCOFM,
            *("run", lung1 / "lung1_image.nrrd", tmp_path / "out"),
            *("--seeds", lung1 / "lung1_label.nrrd", "--weights", seed0_weights),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "out/features.parquet")
    assert len(table) == 1
    assert table["volume_mm3"][0] == pytest.approx(1360, rel=0.01)
    expected = np.load(shared_data / "reference/lung1.npy")
    np.testing.assert_allclose(preds(table)[0], expected, atol=1e-4)
