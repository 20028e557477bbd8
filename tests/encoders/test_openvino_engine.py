"""OpenVINO against MONAI's network and the reference features; the same bytes in any company."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from studies import write_study
from typer.testing import CliRunner

from oncofm.cli.weights import app
from oncofm.encoders import load_encoder
from oncofm.encoders.encoder import FixedBatches

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("openvino")]


def prepare(weights):
    """Run the command; the weights are those of the test, only their name lies elsewhere."""
    ended = CliRunner().invoke(app, ["prepare", "--weights", str(weights)])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def load(weights, precision="fp32"):
    return load_encoder("fmcib", weights, engine="openvino", precision=precision)


@pytest.fixture(scope="module")
def prepared_weights(seed0_weights, tmp_path_factory):
    # In a folder of its own: other tests mean torch when they load the same file.
    weights = tmp_path_factory.mktemp("prepared") / "seed0.torch"
    weights.symlink_to(seed0_weights)
    assert "Largest difference to torch " in prepare(weights)
    yield weights
    (weights.with_name("seed0.torch.openvino") / "model.bin").unlink()


@pytest.fixture(scope="module")
def encoder(prepared_weights):
    return load(prepared_weights)


@pytest.fixture(scope="module")
def bf16_encoder(prepared_weights):
    from oncofm.errors import EngineError

    try:
        return load(prepared_weights, "bf16")
    except EngineError as error:
        pytest.skip(f"{error} That precision goes untested.")


def test_features_equal_the_reference(shared_data, encoder):
    folder = shared_data / "reference"
    names = [path.stem for path in sorted((folder / "patches").glob("*.npy"))]
    patches = np.stack([np.load(folder / "patches" / f"{name}.npy") for name in names])
    reference = np.stack([np.load(folder / f"{name}.npy") for name in names])

    np.testing.assert_allclose(encoder.encode(patches), reference, atol=1e-4, rtol=0)


def test_bf16_points_the_same_way(shared_data, bf16_encoder):
    folder = shared_data / "reference"
    names = [path.stem for path in sorted((folder / "patches").glob("*.npy"))]
    patches = np.stack([np.load(folder / "patches" / f"{name}.npy") for name in names])
    reference = np.stack([np.load(folder / f"{name}.npy") for name in names])

    features = bf16_encoder.encode(patches)
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(reference, axis=1)
    assert ((features * reference).sum(1) / norms).min() > 0.9995


def test_fp32_is_not_quietly_less(encoder, bf16_encoder, patches):
    """CPUs with bf16 take it for float32 unless told not to: then all of these would be equal."""
    few = patches[:1].numpy()
    assert np.abs(encoder.encode(few) - bf16_encoder.encode(few)).max() > 1e-3


def test_features_equal_monai_with_norms_that_do_something(
    lifelike_state, lifelike_features, patches, tmp_path
):
    weights = tmp_path / "lifelike.torch"
    torch.save(lifelike_state, weights)
    prepare(weights)

    features = load(weights).encode(patches.numpy())

    weights.unlink()
    (tmp_path / "lifelike.torch.openvino" / "model.bin").unlink()
    assert lifelike_features.std(0).mean() > 0.1  # else any network would do
    np.testing.assert_allclose(features, lifelike_features.numpy(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_company_makes_no_difference(encoder, bf16_encoder, patches, precision):
    one = encoder if precision == "fp32" else bf16_encoder
    together = one.encode(patches.numpy())

    assert together.shape == (8, 4096)
    assert together.dtype == np.float32
    order = [3, 7, 0, 5, 1, 6, 2, 4]
    assert one.encode(patches[order].numpy()).tobytes() == together[order].tobytes()
    for index in range(8):
        assert one.encode(patches[index : index + 1].numpy())[0].tobytes() == (
            together[index].tobytes()
        )
    assert FixedBatches(one).encode(patches.numpy()).tobytes() == together.tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_process_gives_the_same_bytes_in_1700_mib(
    prepared_weights, encoder, bf16_encoder, precision
):
    one = encoder if precision == "fp32" else bf16_encoder
    code = f"""
import hashlib, pathlib, sys
import numpy as np
from oncofm.encoders import load_encoder
encoder = load_encoder(
    "fmcib", pathlib.Path({str(prepared_weights)!r}), device="cpu", precision={precision!r}
)
assert encoder.engine == "openvino"
features = encoder.encode(np.random.default_rng(0).random((2, 1, 50, 50, 50), np.float32))
assert "torch" not in sys.modules
print(hashlib.sha256(features.tobytes()).hexdigest())
print(pathlib.Path("/proc/self/status").read_text())
"""
    digest, *status = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()

    features = one.encode(np.random.default_rng(0).random((2, 1, 50, 50, 50), np.float32))
    assert digest == hashlib.sha256(features.tobytes()).hexdigest()
    peak_kib = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    assert int(peak_kib) < 1700 * 1024


def test_a_run_loads_first_and_imports_only_what_it_needs(prepared_weights, tmp_path):
    write_study(tmp_path / "study", "imports")
    code = f"""
import sys
sys.argv = ["oncofm", "run", {str(tmp_path / "study")!r}, {str(tmp_path / "out")!r}]
sys.argv += ["--weights", {str(prepared_weights)!r}, "--device", "cpu"]
from oncofm.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
names = list(dict.fromkeys(name.split(".")[0] for name in sys.modules))
heavy = {{"torch", "monai", "pandas", "scipy", "sklearn", "matplotlib", "highdicom", "SimpleITK"}}
print(sorted((heavy | {{"requests", "urllib3", "rich"}}) & set(names)))
print(names.index("openvino") < min(names.index("pydicom"), names.index("pyarrow")))
"""
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.splitlines() == ["[]", "True"]
