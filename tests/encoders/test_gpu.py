"""What only a card can show: ``pytest -m gpu``."""

import logging

import numpy as np
import pytest
import torch

from oncofm.encoders import load_encoder
from oncofm.encoders.encoder import FixedBatches
from oncofm.encoders.folded_gpu import bytes_needed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: its engine goes untested"),
]

BATCH_SIZE = 64
DIFFERENCES = {"fp32": 1e-5, "tf32": 1e-2, "bf16": 1e-1}
"""Bounds on a feature's difference to fp32 on the CPU, where these features reach 12."""


@pytest.fixture(scope="module")
def on_cpu(seed0_weights, patches):
    encoder = load_encoder("fmcib", seed0_weights, device="cpu", engine="torch")
    return encoder.encode(patches.numpy())


@pytest.fixture(scope="module", params=["fp32", "tf32", "bf16"])
def encoder(request, seed0_weights):
    if request.param != "fp32" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this card has no TF32")
    return load_encoder(
        "fmcib", seed0_weights, device="cuda", precision=request.param, batch_size=BATCH_SIZE
    )


@pytest.fixture(scope="module")
def many(patches):
    """Two and a half batches, in which every patch comes back at other places."""
    return np.resize(patches.numpy(), (BATCH_SIZE * 5 // 2, *patches.shape[1:]))


def test_features_are_those_of_the_cpu(encoder, patches, many, on_cpu):
    bound = DIFFERENCES[encoder.precision]

    np.testing.assert_allclose(encoder.encode(patches.numpy()), on_cpu, atol=bound, rtol=0)
    expected = np.resize(on_cpu, (len(many), on_cpu.shape[1]))
    np.testing.assert_allclose(encoder.encode(many), expected, atol=bound, rtol=0)


def test_neither_place_nor_company_makes_a_difference(encoder, patches, many):
    fixed = FixedBatches(encoder)
    alone = np.concatenate([fixed.encode(patches[i : i + 1].numpy()) for i in range(len(patches))])

    expected = np.resize(alone, (len(many), alone.shape[1]))
    assert fixed.encode(many).tobytes() == expected.tobytes()
    shuffled = np.random.default_rng(0).permutation(len(many))
    assert fixed.encode(many[shuffled]).tobytes() == expected[shuffled].tobytes()


def test_a_graph_gives_the_bytes_of_plain_work(encoder, many, monkeypatch, caplog):
    full = many[: 2 * BATCH_SIZE]
    with_graph = encoder.encode(full)
    assert not caplog.records, "no graph was recorded"

    def refuse(*_: object) -> None:
        raise RuntimeError("for a test")

    monkeypatch.setattr(encoder._device, "capture", refuse)
    encoder._pipeline = None
    assert encoder.encode(full).tobytes() == with_graph.tobytes()
    assert "for a test" in caplog.text
    encoder._pipeline = None


def test_memory_stays_within_its_bound(encoder, many):
    encoder._pipeline = None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    encoder.encode(many[:BATCH_SIZE])

    assert torch.cuda.max_memory_allocated() - before < bytes_needed(BATCH_SIZE)


def test_where_memory_runs_out_batches_get_smaller(seed0_weights, many, caplog):
    encoder = load_encoder("fmcib", seed0_weights, device="cuda", batch_size=256)
    expected = encoder.encode(many)
    encoder._pipeline = None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_reserved() + bytes_needed(256) // 4
    full = np.resize(many, (256, *many.shape[1:]))
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        with caplog.at_level(logging.WARNING, "oncofm"):
            features = encoder.encode(full)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert encoder.batch_sizes_before[0] == 256 > encoder.batch_size
    assert "has no memory for 256 patches" in caplog.text
    np.testing.assert_allclose(features[: len(many)], expected, atol=1e-5, rtol=0)


def test_the_batch_size_is_chosen(seed0_weights):
    encoder = load_encoder("fmcib", seed0_weights, device="cuda")

    assert encoder.batch_size in (16, 32, 64, 128, 256)
    assert encoder.device == "cuda:0"
