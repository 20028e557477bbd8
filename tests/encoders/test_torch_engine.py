"""The inference form against MONAI's network and the stored reference features."""

import csv
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from oncofm.encoders import load_encoder
from oncofm.encoders.folded import fold, run
from oncofm.errors import DeviceError, ModelUnknownError, SetupError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(seed0_weights):
    return load_encoder("fmcib", seed0_weights, device="cpu")


@pytest.fixture(scope="module")
def bf16_encoder(seed0_weights):
    return load_encoder("fmcib", seed0_weights, device="cpu", precision="bf16")


@pytest.fixture(scope="module")
def lifelike_networks(lifelike_state):
    return {
        dtype: fold(
            {key: value.clone() for key, value in lifelike_state.items()},
            dtype,
            torch.device("cpu"),
        )
        for dtype in (torch.float32, torch.bfloat16)
    }


def run_lifelike(networks, dtype, patches):
    with torch.inference_mode():
        return run(networks[dtype], patches.movedim(1, -1))


def test_features_equal_monai(lifelike_networks, lifelike_features, patches):
    features = run_lifelike(lifelike_networks, torch.float32, patches)

    assert 1 < lifelike_features.max() < 20
    assert lifelike_features.std(0).mean() > 0.1  # else any network would do
    torch.testing.assert_close(features, lifelike_features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_batch_makes_no_difference(lifelike_networks, lifelike_features, patches, n):
    features = torch.cat(
        [run_lifelike(lifelike_networks, torch.float32, few) for few in patches.split(n)]
    )

    torch.testing.assert_close(features, lifelike_features, atol=1e-5, rtol=0)


def test_bf16_points_the_same_way(lifelike_networks, lifelike_features, patches):
    features = run_lifelike(lifelike_networks, torch.bfloat16, patches)

    assert features.dtype == torch.float32
    cosines = torch.nn.functional.cosine_similarity(features, lifelike_features)
    assert cosines.min() > 0.9995
    # Patches are alike; what tells them apart must survive too.
    centred = torch.nn.functional.cosine_similarity(
        features - features.mean(0), lifelike_features - lifelike_features.mean(0)
    )
    assert centred.min() > 0.99


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


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_patches_in_a_cold_process_need_less_than_1600_mib(seed0_weights, precision):
    code = f"""
import pathlib, resource
import numpy as np
from oncofm.encoders import load_encoder
encoder = load_encoder(
    "fmcib", pathlib.Path({str(seed0_weights)!r}), device="cpu", precision={precision!r}
)
encoder.encode(np.zeros((2, 1, 50, 50, 50), np.float32))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peak_mib = int(subprocess.check_output([sys.executable, "-c", code]))

    assert peak_mib < 1600


def test_the_inference_path_imports_no_monai(seed0_weights):
    code = "import sys, oncofm.encoders.torch_engine; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_looking_for_weights_imports_no_torch():
    code = (
        "import sys, oncofm.encoders.weights, oncofm.encoders.encoder, oncofm.cli.weights; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
