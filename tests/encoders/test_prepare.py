"""How a prepared model is stored, with a graph of 16 kB and without a network."""

import errno
import hashlib
import json
import os
import stat

import numpy as np
import pytest
import torch
from test_load import write_graph

from oncofm.encoders import load_encoder, prepare
from oncofm.encoders.card import load_model_card
from oncofm.errors import EngineError, OutputNotWritableError, WeightsChecksumError

CARD = load_model_card("fmcib")
FILES = ["model.bin", "model.xml", "prepared.json"]


class ConstantEncoder:
    """An engine whose features are all one value."""

    value = 1.0

    def __init__(self, *_):
        pass

    def encode(self, patches):
        return np.full((len(patches), 4096), self.value, np.float32)


@pytest.fixture
def weights(tmp_path, monkeypatch, openvino):
    monkeypatch.setenv("ONCOFM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(prepare, "read_checkpoint", lambda *_: {})
    monkeypatch.setattr(prepare, "fold", lambda *_: None)
    monkeypatch.setattr(
        prepare, "_store_graph", lambda network, card, xml: write_graph(openvino, xml)
    )
    monkeypatch.setattr(prepare, "TorchEncoder", ConstantEncoder)
    monkeypatch.setattr(prepare, "OpenVinoEncoder", ConstantEncoder)
    path = tmp_path / "site" / "mine.torch"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_stored(weights):
    prepared = prepare.prepare(CARD, weights)

    assert prepared.folder == weights.with_name("mine.torch.openvino")
    assert files(prepared.folder) == FILES
    assert files(weights.parent) == ["mine.torch", "mine.torch.openvino"]
    note = json.loads((prepared.folder / "prepared.json").read_text())
    assert note["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    for key, name in (("xml_sha256", "model.xml"), ("bin_sha256", "model.bin")):
        content = (prepared.folder / name).read_bytes()
        assert note[key] == hashlib.sha256(content).hexdigest()
    assert (note["model"], note["torch"]) == ("fmcib", torch.__version__)
    assert note["largest_difference"] == 0
    everyone = stat.S_IRUSR | stat.S_IXUSR
    assert prepared.folder.stat().st_mode & everyone == everyone
    assert load_encoder("fmcib", weights, engine="openvino").engine == "openvino"


def test_one_that_is_there_is_replaced(weights):
    prepare.prepare(CARD, weights)
    weights.write_bytes(b"other weights")

    prepared = prepare.prepare(CARD, weights)

    assert prepared.note.weights_sha256 == hashlib.sha256(b"other weights").hexdigest()
    assert files(weights.parent) == ["mine.torch", "mine.torch.openvino"]
    assert load_encoder("fmcib", weights, engine="openvino").engine == "openvino"


def test_weights_in_a_read_only_place(weights, monkeypatch, tmp_path):
    make_folder = prepare.tempfile.TemporaryDirectory

    def refuse(prefix, dir):
        if dir == weights.parent:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return make_folder(prefix=prefix, dir=dir)

    monkeypatch.setattr(prepare.tempfile, "TemporaryDirectory", refuse)

    prepared = prepare.prepare(CARD, weights)

    assert prepared.folder == tmp_path / "home" / "fmcib" / "mine.torch.openvino"
    assert files(weights.parent) == ["mine.torch"]
    assert load_encoder("fmcib", weights, engine="openvino").engine == "openvino"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_no_place_can_be_written(weights, monkeypatch, code):
    def refuse(**_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(prepare.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(OutputNotWritableError, match=f"cannot be written .{os.strerror(code)}"):
        prepare.prepare(CARD, weights)


def test_openvino_cannot_write(tmp_path, monkeypatch, openvino):
    monkeypatch.setattr(prepare, "_build_graph", lambda *_: small_graph(openvino))
    with pytest.raises(OSError, match="OpenVINO could not write it"):
        prepare._store_graph(None, CARD, tmp_path / "absent" / "deep" / "\0" / "model.xml")


def small_graph(openvino):
    patch = openvino.opset8.parameter([1], np.float32)
    return openvino.Model([openvino.opset8.result(patch)], [patch], "small")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (1.001, r"differ from torch's by 1\.0e-03 \(the bound is 0\.0001\), so nothing was stored"),
        (np.nan, r"differ from torch's by nan"),
    ],
)
def test_other_features_than_torchs(weights, monkeypatch, value, sentence):
    class Deviating(ConstantEncoder):
        pass

    Deviating.value = value
    monkeypatch.setattr(prepare, "OpenVinoEncoder", Deviating)
    with pytest.raises(EngineError, match=sentence):
        prepare.prepare(CARD, weights)
    assert files(weights.parent) == ["mine.torch"]


def test_bf16_that_points_elsewhere(weights, monkeypatch):
    class Deviating(ConstantEncoder):
        def __init__(self, compiled, origin, card, precision):
            self.precision = precision

        def encode(self, patches):
            features = super().encode(patches)
            features[:, :2048] *= 0.5 if self.precision == "bf16" else 1
            return features

    monkeypatch.setattr(prepare, "OpenVinoEncoder", Deviating)
    monkeypatch.setattr(prepare, "compile_prepared", lambda *_: None)
    with pytest.raises(EngineError, match=r"have a cosine of 0\.9\d+ to torch's in bf16"):
        prepare.prepare(CARD, weights)


def test_without_bf16_only_fp32_is_compared(weights, monkeypatch):
    def compile_prepared(xml, card, precision):
        if precision == "bf16":
            raise EngineError("This CPU cannot.")

    monkeypatch.setattr(prepare, "compile_prepared", compile_prepared)
    assert prepare.prepare(CARD, weights).note.smallest_cosine_bf16 is None


def test_the_checksum_is_compared_first(weights):
    with pytest.raises(WeightsChecksumError, match="but the expected one is 00"):
        prepare.prepare(CARD, weights, "0" * 64)
    assert files(weights.parent) == ["mine.torch"]


def test_patches_to_compare_with_are_alike_every_time():
    patches = prepare._some_patches(CARD)
    assert patches.shape == (3, 1, 50, 50, 50)
    assert patches.dtype == np.float32
    assert np.ptp(patches) > 0.9
    np.testing.assert_array_equal(patches, prepare._some_patches(CARD))
