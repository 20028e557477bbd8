"""The GPU's engine without one: order of the work, memory that runs out, refusals."""

import logging

import numpy as np
import pytest
import torch
from gpus import FakeGpu, features_of

from oncofm.encoders.encoder import EncoderFacts, FixedBatches, Weights
from oncofm.encoders.gpu_engine import GpuEncoder, choose_batch_size
from oncofm.errors import DeviceLostError, DeviceMemoryError

PATCHES = np.random.default_rng(0).random((11, 1, 50, 50, 50), np.float32)
EXPECTED = features_of(PATCHES)
WEIGHTS = Weights("fmcib", None, "0" * 64, "none", random_seed=0)
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


def encoder_on(gpu: FakeGpu, batch_size: int) -> GpuEncoder:
    return GpuEncoder(gpu.compute, WEIGHTS, gpu, "fp32", batch_size)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_order_of_the_work(seed):
    gpu = FakeGpu(seed)
    encoder = encoder_on(gpu, 2)

    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    np.testing.assert_array_equal(encoder.encode(PATCHES[3:6]), EXPECTED[3:6])


def test_full_batches_are_recorded_once_and_others_run_as_they_are():
    gpu = FakeGpu()
    encoder = encoder_on(gpu, 4)

    np.testing.assert_array_equal(encoder.encode(PATCHES[:3]), EXPECTED[:3])
    assert (gpu.n_recorded, gpu.computed) == (0, [3])
    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    np.testing.assert_array_equal(encoder.encode(PATCHES[:8]), EXPECTED[:8])
    assert (gpu.n_recorded, gpu.n_replayed) == (1, 4)
    assert encoder.encode(PATCHES[:0]).shape == (0, 4096)


def test_without_a_graph_it_runs_all_the_same(caplog):
    gpu = FakeGpu()
    gpu.capture_error = RuntimeError("operation not permitted when stream is capturing\nat ...")
    encoder = encoder_on(gpu, 4)

    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    assert caplog.messages == [
        "No CUDA graph of the encoder (operation not permitted when stream is capturing); it runs "
        "without."
    ]


def test_where_memory_runs_out_batches_get_smaller(caplog):
    gpu = FakeGpu()
    gpu.limit = 3
    encoder = encoder_on(gpu, 8)

    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    assert (encoder.batch_size, encoder.batch_sizes_before) == (2, (8, 4))
    facts = EncoderFacts.of(FixedBatches(encoder))
    assert (facts.batch_size, facts.batch_sizes_before) == (2, (8, 4))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert caplog.messages[1].startswith(
        "The GPU cuda:0 has no memory for 4 patches at once; it goes on with 2."
    )
    # Before each new try, nothing that was on the device is held any more.
    assert gpu.left_at_settle[2::3] == [0, 0]
    caplog.clear()
    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    assert not caplog.messages


def test_what_was_encoded_before_memory_ran_out_is_kept():
    gpu = FakeGpu()
    encoder = encoder_on(gpu, 2)
    compute = gpu.compute

    def until_another_program_comes(patches):
        if len(gpu.computed) == 3:
            gpu.limit = 1
        return compute(patches)

    encoder._compute = until_another_program_comes
    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    assert (encoder.batch_size, encoder.batch_sizes_before) == (1, (2,))
    assert 0 < gpu.computed.count(1) < len(PATCHES) + 3


@pytest.mark.parametrize(("size", "limit", "sizes"), [(6, 3, (6, 3)), (9, 1, (9, 3, 1))])
def test_a_filled_up_batch_is_always_a_whole_number_of_smaller_ones(size, limit, sizes):
    gpu = FakeGpu()
    gpu.limit = limit
    encoder = encoder_on(gpu, size)
    fixed = FixedBatches(encoder)

    np.testing.assert_array_equal(fixed.encode(PATCHES), EXPECTED)
    assert (*encoder.batch_sizes_before, fixed.batch_size) == sizes
    assert set(gpu.computed) == {limit}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(OUT_OF_MEMORY),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_no_memory_for_a_single_patch(error):
    gpu = FakeGpu()
    gpu.error = error

    with pytest.raises(
        DeviceMemoryError,
        match=r"^The GPU cuda:0 has no memory for a single patch \(3 MiB are free\); end what else",
    ):
        encoder_on(gpu, 2).encode(PATCHES)


def test_memory_that_only_the_graph_lacks(caplog):
    gpu = FakeGpu()
    gpu.capture_error = torch.OutOfMemoryError(OUT_OF_MEMORY)
    encoder = encoder_on(gpu, 4)

    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    assert encoder.batch_size == 4
    assert "it runs without" in caplog.text


def test_a_device_that_fails():
    gpu = FakeGpu()
    gpu.error = RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with")
    encoder = encoder_on(gpu, 2)

    with pytest.raises(DeviceLostError) as lost:
        encoder.encode(PATCHES)
    assert str(lost.value) == (
        "The GPU cuda:0 failed (CUDA error: an illegal memory access was encountered); look at its "
        "driver, then start again."
    )


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), ValueError("CUDA error")])
def test_other_errors_stay_what_they_are(error):
    gpu = FakeGpu()
    gpu.error = error

    with pytest.raises(type(error), match=str(error)):
        encoder_on(gpu, 2).encode(PATCHES)


def test_wrong_patches_are_refused():
    encoder = encoder_on(FakeGpu(), 2)

    with pytest.raises(ValueError, match="Patch 1 holds infinite or NaN"):
        encoder.encode(np.stack([PATCHES[0], np.full_like(PATCHES[0], np.inf)]))
    with pytest.raises(ValueError, match="instead of"):
        encoder.encode(PATCHES[:, :, 1:])


@pytest.mark.parametrize(
    ("free_gib", "size"), [(139, 256), (15, 256), (8, 128), (3, 32), (0.2, 2), (0.05, 1), (0, 1)]
)
def test_the_batch_size_follows_from_the_memory(free_gib, size):
    assert choose_batch_size(int(free_gib * 2**30)) == size


def test_it_says_what_it_is(caplog):
    caplog.set_level(logging.DEBUG)
    encoder = encoder_on(FakeGpu(), 16)

    assert (encoder.engine, encoder.device, encoder.precision) == ("torch", "cuda:0", "fp32")
    assert (encoder.batch_size, encoder.n_features, encoder.weights) == (16, 4096, WEIGHTS)
