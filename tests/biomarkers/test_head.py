"""Heads against scikit-learn's arithmetic written out, and every way they are refused."""

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


def test_an_unknown_head():
    with pytest.raises(HeadUnknownError, match="comes with"):
        load_head("nix", "fmcib")
