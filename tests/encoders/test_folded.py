"""The inference form against MONAI's network, with batch norms that do something."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from oncofm.encoders.folded import FoldedNetwork, fold, run

pytestmark = pytest.mark.slow


def fold_copy(state: dict[str, Tensor], dtype: torch.dtype) -> FoldedNetwork:
    copy = {key: value.clone() for key, value in state.items()}
    return fold(copy, dtype, torch.device("cpu"))


def encode(network: FoldedNetwork, patches: Tensor) -> Tensor:
    with torch.inference_mode():
        return run(network, patches.movedim(1, -1))


@pytest.fixture(scope="module")
def network(lifelike_state):
    return fold_copy(lifelike_state, torch.float32)


def test_features_equal_monai(network, lifelike_features, patches):
    features = encode(network, patches)

    assert lifelike_features.std(0).mean() > 0.1  # else any network would do
    torch.testing.assert_close(features, lifelike_features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [1, 3])
def test_the_batch_makes_no_difference(network, patches, n):
    features = torch.cat([encode(network, few) for few in patches.split(n)])

    torch.testing.assert_close(features, encode(network, patches), atol=1e-5, rtol=0)


def test_bf16_points_the_same_way(lifelike_state, lifelike_features, patches):
    features = encode(fold_copy(lifelike_state, torch.bfloat16), patches)

    assert features.dtype == torch.float32
    assert cosine_similarity(features, lifelike_features).min() > 0.9995
    # All patches are alike to some degree; what tells them apart must survive as well.
    own = features - features.mean(0)
    expected = lifelike_features - lifelike_features.mean(0)
    assert cosine_similarity(own, expected).min() > 0.995


def test_another_patch_size_is_refused(network):
    with pytest.raises(ValueError, match="first convolution has an edge of 24 voxels instead of"):
        encode(network, torch.zeros(1, 1, 48, 48, 48))
