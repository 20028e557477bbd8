"""The network against MONAI's: the same random weights, the same features, the right maps."""

import pytest
import torch
from torch import nn

from oncofm.encoders import fmcib
from oncofm.encoders.fmcib import FMCIB, check_map, expected_tensors, sha256_of_tensors


@pytest.mark.slow
def test_seeded_weights_are_those_of_monai(monai_network):
    state = fmcib.random_weights(0)

    theirs = monai_network.state_dict()
    assert list(state) == list(theirs)
    assert all(torch.equal(state[key], theirs[key]) for key in state)
    assert sha256_of_tensors(state).startswith("599b5950")


def test_random_weights_leave_the_global_random_state_alone(monkeypatch):
    monkeypatch.setattr(fmcib, "FMCIB", lambda: nn.Linear(3, 3))
    before = torch.get_rng_state()

    first, second, other = (fmcib.random_weights(seed) for seed in (7, 7, 8))

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first["weight"], second["weight"])
    assert not torch.equal(first["weight"], other["weight"])


@pytest.mark.slow
def test_expected_tensors_are_those_of_monai(monai_network):
    theirs = monai_network.state_dict()
    expected = expected_tensors()

    assert {key: (value.shape, value.dtype) for key, value in theirs.items()} == expected
    assert len(expected) == 322
    n_parameters = sum(
        shape.numel() for key, (shape, _) in expected.items() if "running" not in key
    ) - sum("num_batches" in key for key in expected)
    assert n_parameters == 184_477_824


@pytest.mark.slow
def test_features_equal_monai(lifelike_state, lifelike_features, patches):
    with torch.device("meta"):
        network = FMCIB()
    network.load_state_dict(lifelike_state, assign=True)
    with torch.inference_mode():
        features = network.eval()(patches[:2])

    assert features.shape == (2, 4096)
    torch.testing.assert_close(features, lifelike_features[:2], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_wrong_stride_is_refused():
    with torch.device("meta"):
        network = FMCIB().eval()
        patch = torch.empty(1, 1, 50, 50, 50)
    network.conv1.stride = (1, 1, 1)

    with pytest.raises(ValueError, match="first convolution has an edge of 50 voxels instead of"):
        network(patch)


def test_check_map():
    check_map("layer1", 13, 13)
    with pytest.raises(ValueError, match="a stride is wrong"):
        check_map("layer1", 25, 13)
