"""The encoder: reference features, batches, refusals, what it says of itself, its memory."""

import csv
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from oncofm.encoders import load_encoder
from oncofm.encoders.encoder import FixedBatches
from oncofm.encoders.torch_engine import TorchEncoder
from oncofm.errors import DeviceError, ModelUnknownError, SetupError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(seed0_weights):
    return load_encoder("fmcib", seed0_weights, device="cpu", engine="torch")


@pytest.fixture(scope="module")
def bf16_encoder(seed0_weights):
    return load_encoder("fmcib", seed0_weights, device="cpu", precision="bf16", engine="torch")


def test_features_equal_the_reference(shared_data, encoder, bf16_encoder):
    folder = shared_data / "reference"
    with (folder / "seeds.csv").open(encoding="utf-8", newline="") as file:
        names = [path.stem for path in sorted((folder / "patches").glob("*.npy"))]
        assert len(list(csv.reader(file))) == len(names) + 1
    patches = np.stack([np.load(folder / "patches" / f"{name}.npy") for name in names])
    reference = np.stack([np.load(folder / f"{name}.npy") for name in names])

    np.testing.assert_allclose(encoder.encode(patches), reference, atol=1e-4, rtol=0)
    bf16 = bf16_encoder.encode(patches)
    norms = np.linalg.norm(bf16, axis=1) * np.linalg.norm(reference, axis=1)
    assert ((bf16 * reference).sum(1) / norms).min() > 0.9995


def test_batches_of_encode(encoder, monkeypatch, patches):
    together = encoder.encode(patches.numpy())
    monkeypatch.setattr(encoder, "batch_size", 3)
    in_threes = encoder.encode(patches.numpy())

    assert together.shape == (8, 4096)
    assert together.dtype == np.float32
    np.testing.assert_allclose(in_threes, together, atol=1e-5, rtol=0)


def test_the_same_again_gives_the_same_bytes(encoder, bf16_encoder, patches):
    for each in (encoder, bf16_encoder):
        assert each.encode(patches.numpy()).tobytes() == each.encode(patches.numpy()).tobytes()


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_in_batches_of_one_size_company_makes_no_difference(
    encoder, bf16_encoder, patches, precision, n_threads
):
    fixed = FixedBatches(encoder if precision == "fp32" else bf16_encoder)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        together = fixed.encode(patches.numpy())
        order = [3, 7, 0, 5, 1, 6, 2, 4]
        mixed = fixed.encode(patches[order].numpy())
        alone = fixed.encode(patches[5:6].numpy())
    finally:
        torch.set_num_threads(before)

    assert mixed.tobytes() == together[order].tobytes()
    assert alone[0].tobytes() == together[5].tobytes()


@pytest.mark.parametrize(("asked", "size"), [(1, 1), (3, 3), (4, 4), (6, 4), (8, 8), (11, 8)])
def test_no_batch_ends_in_a_smaller_piece(encoder, asked, size):
    cpu = torch.device("cpu")
    assert TorchEncoder(encoder._network, encoder.weights, cpu, "bf16", asked).batch_size == size


def test_a_callers_settings_do_not_count_and_come_back(encoder, patches):
    plain = encoder.encode(patches[:2].numpy())
    torch.set_float32_matmul_precision("medium")
    try:
        assert encoder.encode(patches[:2].numpy()).tobytes() == plain.tobytes()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.is_grad_enabled()


def test_any_memory_layout_is_read(encoder, patches):
    plain = encoder.encode(patches[:2].numpy())
    scattered = np.asfortranarray(patches[:2].numpy())
    scattered.flags.writeable = False

    assert encoder.encode(scattered).tobytes() == plain.tobytes()


def test_no_patches(encoder):
    assert encoder.encode(np.empty((0, 1, 50, 50, 50), np.float32)).shape == (0, 4096)


@pytest.mark.parametrize(
    ("patches", "sentence"),
    [
        (np.zeros((1, 50, 50, 50), np.float32), r"shape \(1, 50, 50, 50\) instead of"),
        (np.zeros((2, 1, 48, 50, 50), np.float32), r"shape \(2, 1, 48, 50, 50\) instead of"),
        (np.zeros((1, 1, 50, 50, 50)), "float64 instead of float32"),
        (np.full((1, 1, 50, 50, 50), np.nan, np.float32), "Patch 0 holds infinite or NaN"),
    ],
)
def test_wrong_patches_are_refused(encoder, patches, sentence):
    with pytest.raises(ValueError, match=sentence):
        encoder.encode(patches)


def test_an_encoder_says_what_it_is(encoder, bf16_encoder, seed0_weights):
    file_sha256 = hashlib.sha256(seed0_weights.read_bytes()).hexdigest()
    assert encoder.weights.sha256 == file_sha256  # loading has not written to the file
    assert encoder.weights.path == seed0_weights
    assert encoder.weights.model == "fmcib"
    assert encoder.weights.licence == "CC-BY-NC-4.0"
    assert encoder.weights.random_seed is None
    assert (encoder.device, encoder.precision, encoder.engine) == ("cpu", "fp32", "torch")
    assert (bf16_encoder.precision, bf16_encoder.n_features) == ("bf16", 4096)
    assert encoder.batch_size == 8


def test_random_weights_are_named_as_such(encoder, patches):
    random = load_encoder("fmcib", device="cpu", random_seed=0, batch_size=2)

    assert random.weights.random_seed == 0
    assert random.weights.path is None
    assert random.weights.sha256.startswith("599b5950")
    assert random.batch_size == 2
    plain = encoder.encode(patches[:2].numpy())
    assert random.encode(patches[:2].numpy()).tobytes() == plain.tobytes()


@pytest.mark.parametrize(
    ("choice", "error", "sentence"),
    [
        ({"device": "tpu"}, DeviceError, "Device tpu is unknown"),
        ({"device": "cpu:1"}, DeviceError, "Device cpu:1 is unknown"),
        ({"device": "cuda:99"}, DeviceError, "Device cuda:99 is not available"),
        ({"precision": "fp8"}, DeviceError, "Precision fp8 is unknown"),
        ({"batch_size": 0}, SetupError, "batch size of 0"),
        ({"model": "nnunet"}, ModelUnknownError, "Model nnunet is unknown; known are: fmcib"),
        ({"random_seed": 0, "expected_sha256": "0" * 64}, SetupError, "come from no file"),
    ],
)
def test_what_is_not_available_is_refused(choice, error, sentence):
    with pytest.raises(error, match=sentence):
        load_encoder(**choice)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_patches_in_a_cold_process_need_less_than_1600_mib(seed0_weights, precision):
    code = f"""
import pathlib
import numpy as np
from oncofm.encoders import load_encoder
encoder = load_encoder(
    "fmcib",
    pathlib.Path({str(seed0_weights)!r}),
    device="cpu",
    precision={precision!r},
    engine="torch",
)
encoder.encode(np.zeros((2, 1, 50, 50, 50), np.float32))
print(pathlib.Path("/proc/self/status").read_text())
"""
    status = subprocess.check_output([sys.executable, "-c", code], text=True)

    # Not ru_maxrss: a child starts with the peak of the process that started it.
    peak_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak_kib) < 1600 * 1024


def test_the_inference_path_imports_no_monai(seed0_weights):
    code = "import sys, oncofm.encoders.torch_engine; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_looking_for_weights_imports_no_torch():
    code = (
        "import sys, oncofm.encoders.weights, oncofm.encoders.encoder, oncofm.cli.weights; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
