"""How an encoder gets onto a GPU, and torch's own names for that, without a card."""

import sys
from unittest import mock

import numpy as np
import pytest
import torch
from gpus import FakeGpu, features_of

from oncofm.encoders import gpu, load, load_encoder, torch_engine
from oncofm.encoders.encoder import Weights
from oncofm.encoders.gpu_engine import GpuEncoder
from oncofm.errors import DeviceError, DeviceLostError, DeviceMemoryError

WEIGHTS = Weights("fmcib", None, "0" * 64, "none", random_seed=0)


@pytest.fixture
def card(monkeypatch):
    """A card with 3 GiB free, and a network that is there at once."""
    card = FakeGpu()
    card.has_tf32 = lambda: True
    card.free_bytes = lambda: 3 * 2**30
    monkeypatch.setitem(load._GPU_DRIVERS, sys.platform, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(gpu, "Gpu", lambda device: card)
    monkeypatch.setattr(torch_engine, "_load_network", lambda *_: (object(), WEIGHTS))
    return card


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_an_encoder_on_a_gpu(card, device, precision):
    encoder = load_encoder(random_seed=0, device=device, precision=precision)

    assert isinstance(encoder, GpuEncoder)
    assert (encoder.precision, encoder.weights, encoder.batch_size) == (precision, WEIGHTS, 32)
    assert load_encoder(random_seed=0, device=device, batch_size=5).batch_size == 5


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_card_without_tf32(card, precision):
    card.has_tf32 = lambda: False

    assert load_encoder(random_seed=0, device="cuda").precision == "fp32"
    with pytest.raises(
        DeviceError,
        match=f"^The GPU cuda:0 does not compute in {precision}, which takes .* 8.0; choose fp32",
    ):
        load_encoder(random_seed=0, device="cuda", precision=precision)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            DeviceMemoryError,
            "^The GPU cuda:0 has no memory for the weights; end what else runs there, or",
        ),
        (
            RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might"),
            DeviceLostError,
            r"^The GPU cuda:0 failed \(CUDA error: no kernel image is available\); look at its",
        ),
        (RuntimeError("a fault of ours"), RuntimeError, "a fault of ours"),
    ],
)
def test_weights_that_do_not_get_there(card, monkeypatch, error, kind, sentence):
    monkeypatch.setattr(torch_engine, "_load_network", mock.Mock(side_effect=error))

    with pytest.raises(kind, match=sentence):
        load_encoder(random_seed=0, device="cuda")


@pytest.mark.parametrize(
    "choice",
    [
        {"device": "cpu"},
        {"device": "cpu", "engine": "torch"},
        {"device": "cpu", "engine": "openvino"},
        {"device": "cuda", "engine": "openvino"},
        {"device": "auto"},
    ],
)
def test_tf32_takes_a_gpu(monkeypatch, choice):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(
        DeviceError, match=r"^Precision tf32 takes a GPU and the engine torch; choose fp32 or bf16"
    ):
        load_encoder(precision="tf32", **choice)


def test_torch_knows_what_is_asked_of_it(monkeypatch):
    """Every call that takes a card, with the signatures of this version of torch."""
    for name in ("Stream", "Event", "CUDAGraph", "graph", "stream", "synchronize", "empty_cache"):
        fake = mock.create_autospec(getattr(torch.cuda, name))
        monkeypatch.setattr(torch.cuda, name, fake)
    for name in ("stream", "graph"):
        getattr(torch.cuda, name).return_value = mock.MagicMock()
    # autospec makes any instance; what it may be asked is what the real class has.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**31))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory=False: empty(shape))
    card = gpu.Gpu(torch.device("cpu"))
    network = FakeGpu()
    patches = np.random.default_rng(0).random((5, 1, 50, 50, 50), np.float32)

    encoder = GpuEncoder(network.compute, WEIGHTS, card, "bf16", 5)
    # Nothing is replayed, so a batch has the features of when it was recorded: none.
    assert encoder.encode(patches).shape == (5, 4096)
    graph = torch.cuda.CUDAGraph.return_value  # pyright: ignore[reportAttributeAccessIssue]
    graph.replay.assert_called_once_with()
    assert encoder.encode(patches[:3]).tobytes() == features_of(patches[:3]).tobytes()
    assert (card.free_bytes(), card.has_tf32(), card.name) == (2**30, True, "cpu")
