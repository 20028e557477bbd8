"""Prepare a model for OpenVINO: fold its weights into a graph, check it against torch, store it.

The graph is the one of `oncofm.encoders.folded`, for one patch. Its constants are float32; what a
run computes with is chosen when it is loaded, so that one file serves every precision.
"""

import errno
import importlib.metadata
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import oncofm
from oncofm.encoders.card import ModelCard
from oncofm.encoders.checkpoint import read_checkpoint
from oncofm.encoders.encoder import Weights
from oncofm.encoders.fmcib import expected_tensors
from oncofm.encoders.folded import FoldedNetwork, fold
from oncofm.encoders.openvino_engine import OpenVinoEncoder, compile_prepared, import_openvino
from oncofm.encoders.prepared import (
    BIN_FILE,
    NOTE_FILE,
    XML_FILE,
    Note,
    PreparedModel,
    prepared_folders,
)
from oncofm.encoders.torch_engine import TorchEncoder
from oncofm.encoders.weights import check_sha256, sha256_of
from oncofm.errors import EngineError, OutputNotWritableError

LARGEST_DIFFERENCE = 1e-4
"""Bound on a feature's difference to torch in fp32, where features reach 9; 2e-5 is usual."""
SMALLEST_COSINE_BF16 = 0.9995
"""Bound on the cosine of features in bf16 to torch's in fp32."""

_N_PATCHES = 3
_SEED = 0


@dataclass(frozen=True)
class _Agreement:
    """How well OpenVINO's features agree with torch's."""

    largest_difference: float
    smallest_cosine_bf16: float | None


def prepare(card: ModelCard, weights: Path, expected_sha256: str | None = None) -> PreparedModel:
    """Make the prepared model of a weights file; one that is there already is replaced.

    It is stored beside the weights or, where that folder cannot be written, in the cache folder.

    Parameters
    ----------
    card : ModelCard
        The model's.
    weights : pathlib.Path
        The file.
    expected_sha256 : str or None
        SHA-256 that the file must have.

    Raises
    ------
    WeightsInvalidError, WeightsChecksumError
        If the file is not what is expected.
    EngineError
        If OpenVINO is not installed, or computes other features than torch; nothing is stored.
    OutputNotWritableError
        If neither place can be written.
    """
    import_openvino()  # what is missing is said before the work
    facts = weights.stat()
    sha256 = sha256_of(weights)
    check_sha256(weights, sha256, card, expected_sha256)
    beside, cached = prepared_folders(card, weights)
    try:
        return _prepare_in(beside, card, weights, sha256, facts)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _not_writable(beside, error) from error
    try:
        return _prepare_in(cached, card, weights, sha256, facts)
    except OSError as error:
        raise _not_writable(cached, error) from error


def _not_writable(folder: Path, error: OSError) -> OutputNotWritableError:
    return OutputNotWritableError(
        f"{folder} cannot be written ({error.strerror or error}); make room, or name a writable "
        f"folder in ONCOFM_HOME."
    )


def _prepare_in(
    folder: Path, card: ModelCard, weights: Path, sha256: str, facts: os.stat_result
) -> PreparedModel:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        network = fold(
            read_checkpoint(weights, expected_tensors()), torch.float32, torch.device("cpu")
        )
        _store_graph(network, card, new / XML_FILE)
        origin = Weights(card.name, weights, sha256, card.licence)
        agreement = _compare(network, new / XML_FILE, card, origin)
        note = Note(
            model=card.name,
            weights_sha256=sha256,
            weights_bytes=facts.st_size,
            weights_modified_s=int(facts.st_mtime),
            xml_sha256=sha256_of(new / XML_FILE),
            bin_sha256=sha256_of(new / BIN_FILE),
            oncofm=oncofm.__version__,
            openvino=importlib.metadata.version("openvino"),
            torch=str(torch.__version__),
            largest_difference=agreement.largest_difference,
            smallest_cosine_bf16=agreement.smallest_cosine_bf16,
        )
        (new / NOTE_FILE).write_text(note.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for path in (*new.iterdir(), new):
            _sync(path)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    _sync(folder.parent)
    return PreparedModel(folder, note)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # there a folder cannot be opened
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _store_graph(network: FoldedNetwork, card: ModelCard, xml: Path) -> None:
    openvino = import_openvino()
    try:
        openvino.save_model(_build_graph(network, card), xml, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(errno.EIO, "OpenVINO could not write it") from error


def _build_graph(network: FoldedNetwork, card: ModelCard) -> Any:
    """Build ``patch`` (1, 1, 50, 50, 50) -> ``features`` (1, 4096)."""
    openvino = import_openvino()
    ops = openvino.opset8

    def convolve(x: Any, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Any:
        if weight.ndim == 2:
            weight = weight[:, None, None, None, :]
        # From (out, z, y, x, in) to (out, in, z, y, x)
        kernel = ops.constant(weight.movedim(-1, 1).contiguous().numpy())
        pads = [padding] * 3
        out = ops.convolution(x, kernel, [stride] * 3, pads, pads, [1] * 3)
        return ops.add(out, ops.constant(bias.view(1, -1, 1, 1, 1).numpy()))

    patch = ops.parameter([1, 1, *card.patch_size], np.float32, name="patch")
    x = ops.relu(convolve(patch, network.stem_weight, network.stem_bias, 2, 3))
    x = ops.max_pool(x, [2] * 3, [1] * 3, [1] * 3, [1] * 3, [3] * 3).output(0)
    for blocks in network.stages:
        for block in blocks:
            h = ops.relu(convolve(x, block.weight1, block.bias1, 1, 0))
            h = ops.relu(convolve(h, block.weight2, block.bias2, block.stride, 1))
            h = convolve(h, block.weight3, block.bias3, 1, 0)
            if block.shortcut_weight is not None and block.shortcut_bias is not None:
                x = convolve(x, block.shortcut_weight, block.shortcut_bias, block.stride, 0)
            x = ops.relu(ops.add(h, x))
    features = ops.reduce_mean(x, ops.constant(np.array([2, 3, 4])), keep_dims=False)
    return openvino.Model([ops.result(features, name="features")], [patch], card.name)


def _compare(network: FoldedNetwork, xml: Path, card: ModelCard, origin: Weights) -> _Agreement:
    """Compute some features with both engines, OpenVINO from the files that were stored."""
    patches = _some_patches(card)
    reference = TorchEncoder(network, origin, torch.device("cpu"), "fp32", 1).encode(patches)
    features = _features(xml, card, origin, "fp32", patches)
    difference = float(np.abs(features - reference).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise _disagreement(origin, f"differ from torch's by {difference:.1e}", LARGEST_DIFFERENCE)
    try:
        features = _features(xml, card, origin, "bf16", patches)
    except EngineError:
        return _Agreement(difference, None)
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(reference, axis=1)
    cosine = float(((features * reference).sum(1) / norms).min())
    if not cosine >= SMALLEST_COSINE_BF16:
        what = f"have a cosine of {cosine:.5f} to torch's in bf16"
        raise _disagreement(origin, what, SMALLEST_COSINE_BF16)
    return _Agreement(difference, cosine)


def _features(
    xml: Path, card: ModelCard, origin: Weights, precision: str, patches: np.ndarray
) -> np.ndarray:
    compiled = compile_prepared(xml, card, precision)
    return OpenVinoEncoder(compiled, origin, card, precision).encode(patches)


def _disagreement(origin: Weights, what: str, bound: float) -> EngineError:
    return EngineError(
        f"OpenVINO's features with {origin.path} {what} (the bound is {bound:g}), so nothing was "
        f"stored; install another version of the package openvino, or choose the engine torch."
    )


def _some_patches(card: ModelCard) -> np.ndarray:
    """Random patches from dark to bright, (3, 1, 50, 50, 50), the same every time."""
    generator = np.random.default_rng(_SEED)
    patches = generator.random((_N_PATCHES, 1, *card.patch_size), np.float32)
    return patches * np.linspace(0.2, 1.0, _N_PATCHES, dtype=np.float32)[:, None, None, None, None]
