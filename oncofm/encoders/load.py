"""Load an encoder: choose the engine before anything heavy is imported."""

import contextlib
import ctypes
import logging
import sys
from pathlib import Path

from oncofm.encoders.card import ModelCard, load_model_card
from oncofm.encoders.encoder import Encoder
from oncofm.encoders.prepared import HOW_TO_PREPARE, find_prepared, prepared_folders
from oncofm.encoders.threads import prepare_threads
from oncofm.encoders.weights import find_weights
from oncofm.errors import DeviceError, EngineError, SetupError

ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("fp32", "tf32", "bf16")

_GPU_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}

log = logging.getLogger(__name__)


def load_encoder(
    model: str = "fmcib",
    weights: Path | None = None,
    *,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    expected_sha256: str | None = None,
    random_seed: int | None = None,
    engine: str = "auto",
) -> Encoder:
    """Load a model's weights and make them ready to run.

    Parameters
    ----------
    model : str
        Name of the folder under ``models/``.
    weights : pathlib.Path or None
        The file; None looks where `oncofm.encoders.weights.find_weights` does.
    device : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
    precision : str
        ``fp32``, ``bf16``, or on a GPU ``tf32``.
    batch_size : int or None
        Largest number of patches that run at once; None chooses 8 on a CPU, on a GPU what its
        memory holds, up to 256. With OpenVINO each runs alone.
    expected_sha256 : str or None
        SHA-256 that the file must have.
    random_seed : int or None
        Seeded random weights instead of a file. Their features have no meaning.
    engine : str
        ``torch``, ``openvino`` (a CPU, and a model that ``oncofm weights prepare`` made), or
        ``auto``: OpenVINO on a CPU where a prepared model fits the weights, else torch.

    Raises
    ------
    SetupError
        One of its kinds: the model is unknown, the weights are missing, invalid or have another
        checksum, the device, precision or engine is not available.
    """
    card = load_model_card(model)
    if engine not in ENGINES:
        raise EngineError(f"Engine {engine} is unknown; choose auto, torch or openvino.")
    if precision not in PRECISIONS:
        raise DeviceError(f"Precision {precision} is unknown; choose fp32, tf32 or bf16.")
    if precision == "tf32" and (engine == "openvino" or _runs_on_a_cpu(device)):
        raise DeviceError(
            "Precision tf32 takes a GPU and the engine torch; choose fp32 or bf16 on a CPU."
        )
    if batch_size is not None and batch_size < 1:
        raise SetupError(f"A batch size of {batch_size} is not possible; choose 1 or more.")
    if random_seed is not None and (weights is not None or expected_sha256 is not None):
        raise SetupError("Random weights come from no file; give a weights file or a random seed.")
    if engine == "openvino":
        _require_a_cpu_and_a_file(device, random_seed)
        return _load_prepared(card, weights, precision, expected_sha256)
    if engine == "auto" and random_seed is None and _runs_on_a_cpu(device):
        try:
            return _load_prepared(card, weights, precision, expected_sha256)
        except _NothingPreparedError as nothing:
            log.info("torch runs: %s", nothing)
        except EngineError as error:
            log.warning("%s Torch runs instead.", error)
    prepare_threads()
    from oncofm.encoders.torch_engine import load_torch_encoder

    return load_torch_encoder(
        card,
        weights,
        device=device,
        precision=precision,
        batch_size=batch_size,
        expected_sha256=expected_sha256,
        random_seed=random_seed,
    )


def import_engine(
    model: str, weights: Path | None, *, device: str = "auto", engine: str = "auto"
) -> None:
    """Import what `load_encoder` will need; most of what is left for it runs beside Python.

    Nothing is said of an engine that is not there: `load_encoder` knows whether that matters.

    Parameters
    ----------
    model, device, engine
        As for `load_encoder`.
    weights : pathlib.Path or None
        The file; None for random weights.
    """
    prepared = weights and find_prepared(load_model_card(model), weights)
    if engine != "torch" and prepared and _runs_on_a_cpu(device):
        from oncofm.encoders.openvino_engine import import_openvino

        with contextlib.suppress(EngineError):
            import_openvino()
    elif engine != "openvino":
        prepare_threads()
        import oncofm.encoders.torch_engine  # noqa: F401


class _NothingPreparedError(EngineError):
    """Nobody has prepared a model from these weights, which is no fault."""


def _load_prepared(
    card: ModelCard,
    explicit: Path | None,
    precision: str,
    expected_sha256: str | None,
) -> Encoder:
    path = find_weights(card.name, explicit)
    folder = find_prepared(card, path)
    if folder is None:
        places = " nor ".join(map(str, prepared_folders(card, path)))
        raise _NothingPreparedError(
            f"No model is prepared for OpenVINO: there is neither {places}; {HOW_TO_PREPARE}."
        )
    from oncofm.encoders.openvino_engine import load_openvino_encoder

    return load_openvino_encoder(
        card,
        path,
        folder,
        precision=precision,
        expected_sha256=expected_sha256,
    )


def _require_a_cpu_and_a_file(device: str, random_seed: int | None) -> None:
    if device not in ("auto", "cpu"):
        raise DeviceError(
            f"OpenVINO runs on the CPU here, not on {device}; choose the device cpu or the engine "
            f"torch."
        )
    if random_seed is not None:
        raise EngineError(
            "OpenVINO runs prepared weights, not random ones; choose the engine torch."
        )


def _runs_on_a_cpu(device: str) -> bool:
    """Tell what torch would choose; it is asked only where a GPU's driver is, as it takes long."""
    if device != "auto":
        return device == "cpu"
    try:
        ctypes.CDLL(_GPU_DRIVERS[sys.platform])
    except (KeyError, OSError):
        return True
    prepare_threads()
    import torch

    return not torch.cuda.is_available()
