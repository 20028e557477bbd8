"""Heads against scikit-learn's arithmetic written out, and every way they are refused."""

from typing import Any

import numpy as np
import pytest
from heads import write_head
from scipy.special import expit, softmax

from oncofm.biomarkers.head import load_head, require_fit
from oncofm.errors import HeadInvalidError, HeadMismatchError, HeadUnknownError

N = 12


@pytest.mark.parametrize("n_outputs", [1, 3, 8])
def test_probabilities(tmp_path, n_outputs):
    arrays = write_head(tmp_path / "head", n_outputs)
    features = np.random.default_rng(1).normal(size=(5, N)).astype(np.float32) * 30
    found = load_head(str(tmp_path / "head"), "fmcib").predict(features)
    scores = features.astype(float) @ arrays["weight"].T.astype(float) + arrays["bias"]
    if n_outputs == 1:
        expected = np.hstack([expit(-scores), expit(scores)])
    else:
        expected = softmax(scores, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("changes", "arrays", "sentence"),
    [
        ({"kind": "forest"}, None, "kind"),
        ({"surprise": 1}, None, "surprise"),
        ({"n_features": 13}, {"weight": np.ones((1, N)), "bias": np.ones(1)}, "shapes"),
        ({}, {"weight": np.ones((1, N))}, "bias"),
        ({}, {"weight": np.full((1, N), np.nan), "bias": np.ones(1)}, "not finite"),
    ],
)
def test_heads_that_cannot_be_used(tmp_path, changes, arrays, sentence):
    write_head(tmp_path / "head", arrays=arrays, **changes)
    with pytest.raises(HeadInvalidError, match=sentence):
        load_head(str(tmp_path / "head"), "fmcib")


def test_a_broken_file(tmp_path):
    write_head(tmp_path / "head")
    (tmp_path / "head" / "head.safetensors").write_bytes(b"nothing")
    with pytest.raises(HeadInvalidError):
        load_head(str(tmp_path / "head"), "fmcib")


def test_heads_for_something_else(tmp_path):
    write_head(tmp_path / "head", weights_sha256="ab" * 32)
    head = load_head(str(tmp_path / "head"), "fmcib")
    require_fit(head, "ab" * 32, "mhub", N)
    for wrong in [("cd" * 32, "mhub", N), ("ab" * 32, "paper", N), ("ab" * 32, "mhub", 4096)]:
        with pytest.raises(HeadMismatchError):
            require_fit(head, *wrong)
    with pytest.raises(HeadMismatchError, match="beph"):
        load_head(str(tmp_path / "head"), "beph")


# --- a table of calibration ----------------------------------------------------------------

ISOTONIC: dict[str, Any] = {
    "calibration": {"method": "isotonic", "data": "LUNG1", "n": 9, "made": "held out"}
}
KNOTS = {"calibration.x": np.array([0.2, 0.5, 0.9]), "calibration.y": np.array([0.0, 0.3, 0.4])}


def test_a_table_maps_the_probability_of_the_second_class(tmp_path):
    arrays = write_head(tmp_path / "plain")
    write_head(tmp_path / "head", arrays=arrays | KNOTS, **ISOTONIC)
    features = np.random.default_rng(1).normal(size=(50, N)) / 3
    plain = load_head(str(tmp_path / "plain"), "fmcib").predict(features)[:, 1]
    found = load_head(str(tmp_path / "head"), "fmcib").predict(features)
    middle = np.where(plain < 0.5, plain - 0.2, 0.3 + (plain - 0.5) / 4)
    expected = np.select([plain <= 0.2, plain >= 0.9], [0.0, 0.4], middle)
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert ((plain > 0.2) & (plain < 0.5)).any()


@pytest.mark.parametrize(
    ("knots", "changes", "sentence"),
    [
        ({"calibration.y": None}, {}, "calibration.y"),
        ({"calibration.x": np.ones(2)}, {}, "knots of the shapes"),
        ({"calibration.x": np.array([0.2, 0.2, 0.9])}, {}, "does not ascend"),
        ({"calibration.y": np.array([0.2, 0.1, 0.9])}, {}, "does not ascend"),
        ({"calibration.y": np.array([0.2, 0.5, 1.1])}, {}, "no probabilities"),
        ({"calibration.y": np.array([0.2, np.nan, 1])}, {}, "no probabilities"),
        ({"calibration.x": np.array([0, 1, 2])}, {}, "int64, not floating point"),
        ({"calibration.x": None, "calibration.y": None}, {}, "a card but no table"),
        ({}, {"calibration": None}, "a table of calibration but no card"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, knots, changes, sentence):
    arrays = {"weight": np.ones((1, N)), "bias": np.ones(1)} | KNOTS | knots
    arrays = {key: array for key, array in arrays.items() if array is not None}
    write_head(tmp_path / "head", arrays=arrays, **(ISOTONIC | changes))
    with pytest.raises(HeadInvalidError, match=sentence):
        load_head(str(tmp_path / "head"), "fmcib")


def test_a_table_for_three_classes(tmp_path):
    arrays = {"weight": np.ones((3, N)), "bias": np.ones(3)} | KNOTS
    write_head(tmp_path / "head", 3, arrays=arrays, **ISOTONIC)
    with pytest.raises(HeadInvalidError, match="isotonic calibration needs two classes"):
        load_head(str(tmp_path / "head"), "fmcib")


def test_a_calibration_of_one_value(tmp_path):
    write_head(tmp_path / "head", kind="linear", classes=[], **ISOTONIC)
    with pytest.raises(HeadInvalidError, match="a calibration needs classes"):
        load_head(str(tmp_path / "head"), "fmcib")


def test_an_unknown_head():
    with pytest.raises(HeadUnknownError, match="comes with"):
        load_head("nix", "fmcib")
