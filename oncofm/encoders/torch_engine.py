"""FMCIB's encoder on torch: weights, device, and the engine of a CPU."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from oncofm.encoders.card import ModelCard
from oncofm.encoders.checkpoint import read_checkpoint
from oncofm.encoders.encoder import Encoder, Weights, check_patches
from oncofm.encoders.fmcib import (
    N_FEATURES,
    PATCH_SIZE,
    expected_tensors,
    random_weights,
    sha256_of_tensors,
)
from oncofm.encoders.folded import PATCHES_AT_ONCE, FoldedNetwork, fold, run
from oncofm.encoders.precision import DTYPES, arithmetic
from oncofm.encoders.weights import check_sha256, find_weights, sha256_of
from oncofm.errors import DeviceError, DeviceMemoryError

_BATCH_SIZE = 8


class TorchEncoder:
    """An `oncofm.encoders.encoder.Encoder` that runs on torch, on a CPU.

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
        # A batch runs in pieces; a smaller last one would be rounded in another way.
        odd = batch_size % PATCHES_AT_ONCE if batch_size > PATCHES_AT_ONCE else 0
        self.batch_size = batch_size - odd
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
        with torch.inference_mode(), arithmetic("fp32"):  # bf16 is in the network's own types
            for start in range(0, len(patches), self.batch_size):
                here = slice(start, start + self.batch_size)
                # Through a tensor of our own, as torch.from_numpy warns about read-only arrays.
                batch = torch.empty(patches[here].shape)
                batch.numpy()[...] = patches[here]
                features[here] = run(self._network, batch.movedim(1, -1)).numpy()
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
) -> Encoder:
    """Load weights and make them ready to run; see `oncofm.encoders.load.load_encoder`.

    Raises
    ------
    SetupError
        One of its kinds: the weights are missing, invalid or have another checksum, the device is
        not available or has too little memory.
    """
    place = _choose_device(device)
    if place.type == "cpu":
        network, origin = _load_network(
            card, weights, expected_sha256, random_seed, precision, place
        )
        return TorchEncoder(network, origin, place, precision, batch_size or _BATCH_SIZE)
    return _load_on_gpu(card, weights, expected_sha256, random_seed, precision, place, batch_size)


def _load_on_gpu(
    card: ModelCard,
    weights: Path | None,
    expected_sha256: str | None,
    random_seed: int | None,
    precision: str,
    place: torch.device,
    batch_size: int | None,
) -> Encoder:
    from oncofm.encoders.folded_gpu import run_on_gpu
    from oncofm.encoders.gpu import Gpu
    from oncofm.encoders.gpu_engine import (
        GpuEncoder,
        choose_batch_size,
        is_of_the_device,
        is_out_of_memory,
        lost,
    )

    gpu = Gpu(place)
    try:
        if precision != "fp32" and not gpu.has_tf32():
            raise DeviceError(
                f"The GPU {place} does not compute in {precision}, which takes compute capability "
                "8.0; choose fp32."
            )
        network, origin = _load_network(
            card, weights, expected_sha256, random_seed, precision, place
        )
        size = batch_size or choose_batch_size(gpu.free_bytes())
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise DeviceMemoryError(
                f"The GPU {place} has no memory for the weights; end what else runs there, or "
                "choose another device."
            ) from error
        if is_of_the_device(error):
            raise lost(str(place), error) from error
        raise
    return GpuEncoder(partial(run_on_gpu, network), origin, gpu, precision, size)


def _load_network(
    card: ModelCard,
    weights: Path | None,
    expected_sha256: str | None,
    random_seed: int | None,
    precision: str,
    place: torch.device,
) -> tuple[FoldedNetwork, Weights]:
    if random_seed is None:
        return _from_file(card, weights, expected_sha256, precision, place)
    return _from_seed(card, random_seed, precision, place)


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
        network = fold(read_checkpoint(path, expected_tensors()), DTYPES[precision], device)
        sha256 = hashing.result()
    check_sha256(path, sha256, card, expected_sha256)
    return network, Weights(card.name, path, sha256, card.licence)


def _from_seed(
    card: ModelCard, seed: int, precision: str, device: torch.device
) -> tuple[FoldedNetwork, Weights]:
    state = random_weights(seed)
    origin = Weights(card.name, None, sha256_of_tensors(state), "none", random_seed=seed)
    return fold(state, DTYPES[precision], device), origin


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
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
