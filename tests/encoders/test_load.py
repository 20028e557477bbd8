"""Which engine runs, and what is said of prepared models that do not fit, with a graph of 16 kB."""

import hashlib
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from oncofm.encoders import load, load_encoder
from oncofm.encoders.card import load_model_card
from oncofm.encoders.encoder import check_patches
from oncofm.encoders.prepared import find_prepared
from oncofm.errors import DeviceError, EngineError, WeightsChecksumError, WeightsMissingError

SCALE = np.linspace(0.0, 9.0, 4096, dtype=np.float32)
"""The small graph's features are the first 4096 voxels of the patch times these."""
PATCHES = np.random.default_rng(0).random((3, 1, 50, 50, 50), np.float32)
EXPECTED = PATCHES.reshape(3, -1)[:, :4096] * SCALE


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_graph(openvino, xml, n_features=4096):
    ops = openvino.opset8
    patch = ops.parameter([1, 1, 50, 50, 50], np.float32)
    flat = ops.reshape(patch, ops.constant(np.array([1, 125_000])), special_zero=False)
    start, stop, step, axis = (ops.constant(np.array([i])) for i in (0, n_features, 1, 1))
    scaled = ops.multiply(
        ops.slice(flat, start, stop, step, axis), ops.constant(SCALE[:n_features])
    )
    graph = openvino.Model([ops.result(scaled)], [patch], "small")
    openvino.save_model(graph, xml, compress_to_fp16=False)


def write_note(weights, folder, **changes):
    facts = weights.stat()
    note = {
        "format": 1,
        "model": "fmcib",
        "weights_sha256": sha256(weights),
        "weights_bytes": facts.st_size,
        "weights_modified_s": int(facts.st_mtime),
        "xml_sha256": sha256(folder / "model.xml"),
        "bin_sha256": sha256(folder / "model.bin"),
        "oncofm": "0",
        "openvino": "0",
        "torch": "0",
        "largest_difference": 0.0,
        "smallest_cosine_bf16": None,
    }
    (folder / "prepared.json").write_text(json.dumps(note | changes))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file that nobody reads, and a cache of our own."""
    monkeypatch.setenv("ONCOFM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ONCOFM_WEIGHTS", raising=False)
    path = tmp_path / "mine.torch"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def prepared(weights, openvino):
    folder = weights.with_name("mine.torch.openvino")
    folder.mkdir()
    write_graph(openvino, folder / "model.xml")
    write_note(weights, folder)
    return folder


@pytest.fixture
def torch_runs(monkeypatch):
    """Torch's loader gives this instead of an encoder."""
    from oncofm.encoders import torch_engine

    encoder = object()
    monkeypatch.setattr(torch_engine, "load_torch_encoder", lambda *_, **__: encoder)
    return encoder


def load_openvino(weights, **choices):
    return load_encoder("fmcib", weights, engine="openvino", **choices)


def test_a_prepared_model_runs(weights, prepared):
    encoder = load_encoder("fmcib", weights, device="cpu", batch_size=8)

    assert (encoder.engine, encoder.device, encoder.precision) == ("openvino", "cpu", "fp32")
    assert (encoder.batch_size, encoder.n_features) == (1, 4096)
    assert encoder.weights.path == weights
    assert encoder.weights.sha256 == sha256(weights)
    assert encoder.weights.licence == "CC-BY-NC-4.0"
    assert encoder.weights.random_seed is None
    np.testing.assert_array_equal(encoder.encode(PATCHES), EXPECTED)
    scattered = np.asfortranarray(PATCHES)
    scattered.flags.writeable = False
    np.testing.assert_array_equal(encoder.encode(scattered), EXPECTED)
    assert encoder.encode(PATCHES[:0]).shape == (0, 4096)


def test_a_prepared_model_in_the_cache_runs(weights, prepared, tmp_path):
    place = tmp_path / "home" / "fmcib" / prepared.name
    place.parent.mkdir(parents=True)
    prepared.rename(place)

    assert find_prepared(load_model_card("fmcib"), weights) == place
    assert load_openvino(weights).engine == "openvino"


def test_neither_torch_nor_the_makers_server_is_touched(weights, prepared, tmp_path):
    """Importing all of OpenVINO would send an event and write to the user's home."""
    code = f"""
import pathlib, sys
outside = []
sys.addaudithook(
    lambda event, _: outside.append(event)
    if event.startswith(("socket.", "subprocess.", "urllib.")) else None
)
import numpy as np
from oncofm.encoders import load_encoder
encoder = load_encoder("fmcib", pathlib.Path({str(weights)!r}), device="cpu")
features = encoder.encode(np.ones((1, 1, 50, 50, 50), np.float32))
assert encoder.engine == "openvino" and features[0, -1] == 9, features
assert outside == [], outside
for name in ("torch", "openvino_telemetry", "openvino.tools.ovc", "pandas"):
    assert name not in sys.modules, name
"""
    home = tmp_path / "user"
    home.mkdir()
    environment = os.environ | {"HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(home.iterdir()) == []


def test_torch_runs_where_it_was_asked_for(weights, prepared, torch_runs):
    assert load_encoder("fmcib", weights, engine="torch") is torch_runs
    assert load_encoder("fmcib", weights, device="cuda") is torch_runs
    assert load_encoder("fmcib", device="cpu", random_seed=0) is torch_runs


def test_without_a_prepared_model_torch_runs(weights, torch_runs, caplog):
    with caplog.at_level(logging.INFO, "oncofm"):
        assert load_encoder("fmcib", weights, device="cpu") is torch_runs

    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "`oncofm weights prepare`" in caplog.text
    with pytest.raises(EngineError, match=r"there is neither .*mine\.torch\.openvino nor .*home"):
        load_openvino(weights)


def test_where_a_gpu_may_be_torch_is_asked(weights, prepared, torch_runs, monkeypatch):
    import torch

    monkeypatch.setitem(load._GPU_DRIVERS, sys.platform, None)  # loads what is loaded anyway
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_encoder("fmcib", weights) is torch_runs
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_encoder("fmcib", weights).engine == "openvino"
    monkeypatch.setitem(load._GPU_DRIVERS, sys.platform, "libnone.so.0")
    assert load_encoder("fmcib", weights).engine == "openvino"


def damage_note(weights, folder, openvino):
    (folder / "prepared.json").write_text("{")


def of_another_format(weights, folder, openvino):
    write_note(weights, folder, format=2)


def binary_note(weights, folder, openvino):
    (folder / "prepared.json").write_bytes(b"\xff\x00\xfe")


def of_another_model(weights, folder, openvino):
    write_note(weights, folder, model="beph")


def replace_weights(weights, folder, openvino):
    weights.write_bytes(b"others.")  # as long as before
    os.utime(weights, (0, 0))


def damage_xml(weights, folder, openvino):
    path = folder / "model.xml"
    path.write_bytes(path.read_bytes()[:-20])


def damaged_before_the_note(weights, folder, openvino):
    damage_xml(weights, folder, openvino)
    write_note(weights, folder)


def without_xml(weights, folder, openvino):
    (folder / "model.xml").unlink()


def damage_bin(weights, folder, openvino):
    path = folder / "model.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate_bin(weights, folder, openvino):
    path = folder / "model.bin"
    path.write_bytes(path.read_bytes()[:4000])


def without_bin(weights, folder, openvino):
    (folder / "model.bin").unlink()


def of_another_network(weights, folder, openvino):
    write_graph(openvino, folder / "model.xml", n_features=512)
    write_note(weights, folder)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (damage_note, r"has a prepared\.json that this version does not know"),
        (binary_note, r"has a prepared\.json that this version does not know"),
        (of_another_format, r"has a prepared\.json that this version does not know"),
        (of_another_model, "was prepared from another model than fmcib"),
        (replace_weights, r"was prepared from other weights than mine\.torch holds now"),
        (damage_xml, r"has a damaged model\.xml"),
        (damaged_before_the_note, "cannot be read by OpenVINO"),
        (without_xml, "cannot be read"),
        (damage_bin, r"has a damaged model\.bin"),
        (truncate_bin, "cannot be read by OpenVINO"),
        (without_bin, "cannot be read by OpenVINO"),
        (of_another_network, "holds another network than fmcib"),
    ],
)
def test_what_does_not_fit(weights, prepared, openvino, torch_runs, caplog, spoil, sentence):
    spoil(weights, prepared, openvino)

    with pytest.raises(EngineError, match=sentence) as refused:
        load_openvino(weights)
    assert str(refused.value).startswith(str(prepared))
    assert "`oncofm weights prepare`" in str(refused.value)

    assert load_encoder("fmcib", weights, device="cpu") is torch_runs
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages == [f"{refused.value} Torch runs instead."]


def test_checksums_are_compared(weights, prepared):
    right = sha256(weights)
    assert load_openvino(weights, expected_sha256=right).weights.sha256 == right
    with pytest.raises(WeightsChecksumError, match="but the expected one is 00"):
        load_openvino(weights, expected_sha256="0" * 64)

    # One that is asked for is compared with the file, not with what was noted about it.
    modified_s = weights.stat().st_mtime
    weights.write_bytes(b"others.")
    os.utime(weights, (modified_s, modified_s))
    with pytest.raises(WeightsChecksumError, match="but the expected one is"):
        load_openvino(weights, expected_sha256=right)

    weights.with_name("mine.torch.sha256").write_text("1" * 64)
    with pytest.raises(WeightsChecksumError, match=r"recorded in mine\.torch\.sha256"):
        load_encoder("fmcib", weights, device="cpu")


def test_threads_follow_the_users_number(weights, prepared, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    encoder = load_openvino(weights)
    assert encoder._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert encoder._compiled.get_property("NUM_STREAMS") == 1


def test_a_copy_of_the_weights_fits(weights, prepared):
    os.utime(weights, (0, 0))
    assert load_openvino(weights).weights.sha256 == sha256(weights)


def test_without_openvino(weights, prepared, torch_runs, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(EngineError, match="OpenVINO cannot be imported; install the package"):
        load_openvino(weights)
    assert load_encoder("fmcib", weights, device="cpu") is torch_runs
    assert "OpenVINO cannot be imported" in caplog.text


def test_a_cpu_without_bf16(weights, prepared, openvino, torch_runs, monkeypatch, caplog):
    # On such a CPU OpenVINO takes float32 without a word.
    f32 = openvino.Type.f32
    monkeypatch.setattr(openvino.CompiledModel, "get_property", lambda *_: f32, raising=False)

    assert load_openvino(weights).precision == "fp32"
    with pytest.raises(EngineError, match="This CPU cannot compute in bf16 with OpenVINO; choose"):
        load_openvino(weights, precision="bf16")
    assert load_encoder("fmcib", weights, device="cpu", precision="bf16") is torch_runs
    assert "cannot compute in bf16" in caplog.text


@pytest.mark.parametrize(
    ("choice", "error", "sentence"),
    [
        ({"engine": "onnx"}, EngineError, "Engine onnx is unknown; choose auto, torch or openvino"),
        ({"engine": "openvino", "device": "cuda"}, DeviceError, "the CPU here, not on cuda"),
        ({"engine": "openvino", "random_seed": 0}, EngineError, "not random ones"),
        ({"engine": "openvino", "device": "cpu"}, WeightsMissingError, "oncofm weights fetch"),
        ({"engine": "auto", "device": "cpu"}, WeightsMissingError, "oncofm weights fetch"),
    ],
)
def test_what_cannot_be_is_refused(weights, choice, error, sentence):
    with pytest.raises(error, match=sentence):
        load_encoder("fmcib", **choice)


@pytest.mark.parametrize(
    ("patches", "sentence"),
    [
        (np.zeros((1, 50, 50, 50), np.float32), r"shape \(1, 50, 50, 50\) instead of"),
        (np.zeros((2, 1, 48, 50, 50), np.float32), r"instead of \(n, 1, 50, 50, 50\)"),
        (np.zeros((1, 1, 50, 50, 50)), "float64 instead of float32"),
        (np.full((1, 1, 50, 50, 50), np.nan, np.float32), "Patch 0 holds infinite or NaN"),
    ],
)
def test_wrong_patches_are_refused(patches, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_patches(patches, 50)
