"""The network in its form for a GPU, on a CPU: features as MONAI's, memory within its bound."""

from itertools import accumulate

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from oncofm.encoders import folded_gpu
from oncofm.encoders.folded import FoldedNetwork, fold
from oncofm.encoders.folded_gpu import bytes_needed, run_on_gpu

pytestmark = pytest.mark.slow


def fold_copy(state: dict[str, Tensor], dtype: torch.dtype) -> FoldedNetwork:
    copy = {key: value.clone() for key, value in state.items()}
    return fold(copy, dtype, torch.device("cpu"))


def encode(network: FoldedNetwork, patches: Tensor) -> Tensor:
    with torch.inference_mode():
        return run_on_gpu(network, patches.movedim(1, -1))


@pytest.fixture(scope="module")
def network(lifelike_state):
    return fold_copy(lifelike_state, torch.float32)


@pytest.fixture(scope="module")
def bf16_network(lifelike_state):
    return fold_copy(lifelike_state, torch.bfloat16)


def test_features_equal_monai(network, lifelike_features, patches, monkeypatch):
    monkeypatch.setattr(folded_gpu, "_PATCHES_AT_ONCE", 5)  # pieces of 4
    features = encode(network, patches)

    torch.testing.assert_close(features, lifelike_features, atol=1e-5, rtol=0)


def test_bf16_points_the_same_way(bf16_network, lifelike_features, patches):
    features = encode(bf16_network, patches)

    assert features.dtype == torch.float32
    assert cosine_similarity(features, lifelike_features).min() > 0.9995
    own = features - features.mean(0)
    expected = lifelike_features - lifelike_features.mean(0)
    assert cosine_similarity(own, expected).min() > 0.995


@pytest.mark.parametrize(("n", "pieces"), [(256, 64), (100, 50), (67, 1), (6, 6), (1, 1)])
def test_a_batch_is_cut_into_equal_pieces(n, pieces):
    assert folded_gpu._equal_pieces(n, 64) == pieces


def test_another_patch_size_is_refused(network):
    with pytest.raises(ValueError, match="first convolution has an edge of 24 voxels instead of"):
        encode(network, torch.zeros(1, 1, 48, 48, 48))


def peak_bytes(work) -> int:
    """Largest sum of what is allocated at once, as torch's profiler notes it."""
    with torch.profiler.profile(profile_memory=True) as noted:
        work()
    events = noted.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(n_bytes for _, n_bytes in changes))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("at_once", [64, 1])
def test_memory_stays_within_its_bound(
    network, bf16_network, patches, precision, at_once, monkeypatch
):
    monkeypatch.setattr(folded_gpu, "_PATCHES_AT_ONCE", at_once)
    batch = patches[:3].movedim(1, -1).contiguous()
    with torch.inference_mode():
        peak = peak_bytes(
            lambda: run_on_gpu(network if precision == "fp32" else bf16_network, batch)
        )

    assert 0.3 * bytes_needed(3) < peak < 0.8 * bytes_needed(3)
