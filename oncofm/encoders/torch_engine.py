"""FMCIB's encoder on torch: device, precision, batches."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from oncofm.encoders.card import ModelCard
from oncofm.encoders.checkpoint import read_checkpoint
from oncofm.encoders.encoder import Weights, check_patches
from oncofm.encoders.fmcib import (
    N_FEATURES,
    PATCH_SIZE,
    expected_tensors,
    random_weights,
    sha256_of_tensors,
)
from oncofm.encoders.folded import FoldedNetwork, fold, run
from oncofm.encoders.weights import check_sha256, find_weights, sha256_of
from oncofm.errors import DeviceError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_BATCH_SIZES = {"cpu": 8, "cuda": 32}


class TorchEncoder:
    """An `oncofm.encoders.encoder.Encoder` that runs on torch.

    The same patches in the same batches give the same bytes on one machine. Other batches differ
    by rounding: below 1e-5 in fp32, where features reach 9. In batches of one size neither the
    place in the batch nor the company makes a difference: `oncofm.encoders.encoder.FixedBatches`.
    """

    engine = "torch"
    n_features = N_FEATURES

    def __init__(
        self,
        network: FoldedNetwork,
        weights: Weights,
        device: torch.device,
        precision: str,
        batch_size: int,
    ) -> None:
        self.weights = weights
        self.device = str(device)
        self.precision = precision
        self.batch_size = batch_size
        self._network = network

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
        check_patches(patches, PATCH_SIZE)
        features = np.empty((len(patches), N_FEATURES), np.float32)
        with torch.inference_mode(), _exact_arithmetic():
            for start in range(0, len(patches), self.batch_size):
                here = slice(start, start + self.batch_size)
                # Through a tensor of our own, as torch.from_numpy warns about read-only arrays.
                batch = torch.empty(patches[here].shape)
                batch.numpy()[...] = patches[here]
                batch = batch.movedim(1, -1).to(self.device)
                features[here] = run(self._network, batch).cpu().numpy()
        return features


def load_torch_encoder(
    card: ModelCard,
    weights: Path | None,
    *,
    device: str,
    precision: str,
    batch_size: int | None,
    expected_sha256: str | None,
    random_seed: int | None,
) -> TorchEncoder:
    """Load weights and make them ready to run; see `oncofm.encoders.load.load_encoder`.

    Raises
    ------
    SetupError
        One of its kinds: the weights are missing, invalid or have another checksum, the device is
        not available.
    """
    place = _choose_device(device)
    if random_seed is None:
        network, origin = _from_file(card, weights, expected_sha256, precision, place)
    else:
        network, origin = _from_seed(card, random_seed, precision, place)
    size = batch_size or _BATCH_SIZES[place.type]
    return TorchEncoder(network, origin, place, precision, size)


def _from_file(
    card: ModelCard,
    explicit: Path | None,
    expected_sha256: str | None,
    precision: str,
    device: torch.device,
) -> tuple[FoldedNetwork, Weights]:
    path = find_weights(card.name, explicit)
    with ThreadPoolExecutor(1) as pool:
        # Hashing holds no lock, and its plain reading brings the file into memory for the rest.
        hashing = pool.submit(sha256_of, path)
        network = fold(read_checkpoint(path, expected_tensors()), _DTYPES[precision], device)
        sha256 = hashing.result()
    check_sha256(path, sha256, card, expected_sha256)
    return network, Weights(card.name, path, sha256, card.licence)


def _from_seed(
    card: ModelCard, seed: int, precision: str, device: torch.device
) -> tuple[FoldedNetwork, Weights]:
    state = random_weights(seed)
    origin = Weights(card.name, None, sha256_of_tensors(state), "none", random_seed=seed)
    return fold(state, _DTYPES[precision], device), origin


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in _BATCH_SIZES or (device.type == "cpu" and device.index is not None):
        raise DeviceError(f"Device {name} is unknown; choose auto, cpu, cuda or cuda:0.")
    if device.type == "cpu":
        return device
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if index >= n_devices:
        raise DeviceError(
            f"Device {name} is not available: torch {torch.__version__} sees {n_devices} CUDA "
            f"devices; choose cpu, or install a CUDA build of torch."
        )
    return torch.device("cuda", index)


@contextlib.contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """Float32 means float32 and the same algorithm every time, whatever the caller has set."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
