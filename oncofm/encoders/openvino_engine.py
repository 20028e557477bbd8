"""FMCIB's encoder on OpenVINO: a CPU engine that starts in a second, as it needs no torch."""

import hashlib
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from oncofm.encoders.card import ModelCard
from oncofm.encoders.encoder import Weights, check_patches
from oncofm.encoders.prepared import (
    BIN_FILE,
    PreparedModel,
    read_prepared,
    sha256_of_weights,
    unusable,
)
from oncofm.encoders.threads import threads_to_use
from oncofm.encoders.weights import check_sha256, sha256_of
from oncofm.errors import EngineError
from oncofm.imports import import_without

_CONVERTER = "openvino.tools.ovc"
_HASHED_BYTES = 32 * 1024 * 1024
_MODES = {"fp32": ("f32", "ACCURACY"), "bf16": ("bf16", "PERFORMANCE")}
"""What the CPU computes with, and whether the engine may deviate where it thinks it may."""


class OpenVinoEncoder:
    """An `oncofm.encoders.encoder.Encoder` that runs on OpenVINO.

    Patches run one at a time, so that the features of a lesion are the same bytes whatever its
    company.
    """

    engine = "openvino"
    device = "cpu"
    batch_size = 1

    def __init__(self, compiled: Any, weights: Weights, card: ModelCard, precision: str) -> None:
        self.weights = weights
        self.precision = precision
        self.n_features = card.n_features
        self._compiled = compiled
        self._edge = card.patch_size[0]

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Encode patches, in their order.

        Parameters
        ----------
        patches : numpy.ndarray
            Shape (n, 1, 50, 50, 50) = (lesion, C, Z, Y, X), float32, finite, scaled by the
            profile. n may be 0.

        Returns
        -------
        numpy.ndarray
            Shape (n, 4096), float32.

        Raises
        ------
        ValueError
            If the patches have another shape or type, or values that are not finite.
        """
        check_patches(patches, self._edge)
        features = np.empty((len(patches), self.n_features), np.float32)
        request = self._compiled.create_infer_request()  # one of our own: callers may be threads
        place = request.get_input_tensor().data
        for patch, vector in zip(patches, features, strict=True):
            place[0] = patch
            request.infer()
            vector[...] = request.get_output_tensor().data[0]
        return features


def load_openvino_encoder(
    card: ModelCard,
    weights: Path,
    folder: Path,
    *,
    precision: str,
    expected_sha256: str | None,
) -> OpenVinoEncoder:
    """Make a prepared model ready to run.

    Parameters
    ----------
    card : ModelCard
        The model's.
    weights : pathlib.Path
        The weights file that the user chose; the prepared model must be made from it.
    folder : pathlib.Path
        The prepared model.
    precision : str
        ``fp32`` or ``bf16``.
    expected_sha256 : str or None
        SHA-256 that the weights file must have.

    Raises
    ------
    EngineError
        If OpenVINO is not installed, or the prepared model is damaged or of other weights.
    WeightsChecksumError
        If the weights file has another checksum than a known one.
    """
    prepared = read_prepared(folder, card)
    sha256 = sha256_of(weights) if expected_sha256 else sha256_of_weights(weights, prepared.note)
    check_sha256(weights, sha256, card, expected_sha256)
    if sha256 != prepared.note.weights_sha256:
        raise unusable(folder, f"was prepared from other weights than {weights.name} holds now")
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(_sha256_of_constants, prepared)
        compiled = compile_prepared(prepared.xml, card, precision)
        if hashing.result() != prepared.note.bin_sha256:
            raise unusable(folder, f"has a damaged {BIN_FILE}")
    origin = Weights(card.name, weights, sha256, card.licence)
    return OpenVinoEncoder(compiled, origin, card, precision)


def _sha256_of_constants(prepared: PreparedModel) -> str:
    """Hash the constants where OpenVINO maps them, in parts that leave Python's lock to others.

    Smaller ones, read into a buffer, take longer, and wait for that lock two thousand times.
    """
    digest = hashlib.sha256()
    try:
        with prepared.bin.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for offset in range(0, size, _HASHED_BYTES):
                length = min(_HASHED_BYTES, size - offset)
                with mmap.mmap(
                    file.fileno(), length, access=mmap.ACCESS_READ, offset=offset
                ) as part:
                    digest.update(part)
    except (OSError, ValueError) as error:
        raise unusable(prepared.folder, f"has no readable {BIN_FILE}") from error
    return digest.hexdigest()


def compile_prepared(xml: Path, card: ModelCard, precision: str) -> Any:
    """Compile a graph, with its constants beside it, for this CPU.

    Raises
    ------
    EngineError
        If OpenVINO is not installed, cannot read the files, finds another network in them, or
        this CPU cannot compute in that precision.
    """
    openvino = import_openvino()
    core = openvino.Core()
    try:
        graph = core.read_model(xml)
        shapes = [list(port.get_partial_shape().to_shape()) for port in graph.inputs]
        shapes += [list(port.get_partial_shape().to_shape()) for port in graph.outputs]
    except RuntimeError as error:
        raise unusable(xml.parent, "cannot be read by OpenVINO") from error
    if shapes != [[1, 1, *card.patch_size], [1, card.n_features]]:
        raise unusable(xml.parent, f"holds another network than {card.name}")
    element, mode = _MODES[precision]
    settings = {
        "INFERENCE_PRECISION_HINT": element,
        "EXECUTION_MODE_HINT": mode,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads_to_use(),
        # Pinned threads would wait for the readers that share these cores.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        compiled = core.compile_model(graph, "CPU", settings)
    except RuntimeError as error:
        raise unusable(xml.parent, "cannot be compiled by OpenVINO for this CPU") from error
    if compiled.get_property("INFERENCE_PRECISION_HINT") != getattr(openvino.Type, element):
        raise EngineError(
            f"This CPU cannot compute in {precision} with OpenVINO; choose fp32 or the engine "
            f"torch."
        )
    return compiled


def import_openvino() -> ModuleType:
    """Import OpenVINO, but not its converter.

    With the converter, the import alone would report itself to a server of OpenVINO's makers and
    leave files in the user's home. The converter is not needed, and without it the import is twice
    as fast.

    Raises
    ------
    EngineError
        If OpenVINO is not installed.
    """
    try:
        return import_without(_CONVERTER, "openvino")
    except ImportError as error:
        raise EngineError(
            "OpenVINO cannot be imported; install the package openvino, or choose the engine torch."
        ) from error
