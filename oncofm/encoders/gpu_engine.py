"""FMCIB's encoder on a GPU: batches on their way, one that is computed, and memory that runs out.

While the device computes a batch, the next one is copied to memory that the device can reach
(pinned), and from there by the device itself to a waiting place. Of the features there are two
places as well, so that those of a batch are read while the next one is computed.

A full batch is recorded once as a CUDA graph, which then runs as one piece of work. A smaller one
runs as it is, operation by operation.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from oncofm.encoders.encoder import Weights, check_patches
from oncofm.encoders.fmcib import N_FEATURES, PATCH_SIZE
from oncofm.encoders.folded_gpu import bytes_needed
from oncofm.encoders.precision import arithmetic
from oncofm.errors import DeviceLostError, DeviceMemoryError

LARGEST_BATCH = 256
_SHARE_OF_MEMORY = 0.8
"""Of what is free; the rest is for the libraries' workspaces and for others."""
_PATCH_SHAPE = (PATCH_SIZE, PATCH_SIZE, PATCH_SIZE, 1)

log = logging.getLogger(__name__)

Compute = Callable[[Tensor], Tensor]
"""Patches (n, 50, 50, 50, 1) to features (n, 4096), float32, on the device."""


class Device(Protocol):
    """What `oncofm.encoders.gpu.Gpu` is; marks and lanes are as there."""

    @property
    def name(self) -> str: ...  # noqa: D102
    def lane(self) -> Any: ...  # noqa: D102
    def zeros(self, shape: tuple[int, ...]) -> Tensor: ...  # noqa: D102
    def staging(self, shape: tuple[int, ...]) -> Tensor: ...  # noqa: D102
    def capture(self, work: Callable[[], Tensor], lane: Any) -> Callable[[], Tensor]: ...  # noqa: D102
    def settle(self) -> None: ...  # noqa: D102
    def free_bytes(self) -> int: ...  # noqa: D102


class GpuEncoder:
    """An `oncofm.encoders.encoder.Encoder` that runs on one GPU.

    Where the device has no memory for a batch, the encoder goes on with a smaller `batch_size`,
    and `batch_sizes_before` lists the larger ones: features differ by rounding between batches of
    different sizes.

    Parameters
    ----------
    compute : callable
        The network.
    weights : Weights
        What it was loaded with.
    device : Device
        Where it is.
    precision : str
        ``fp32``, ``tf32`` or ``bf16``.
    batch_size : int
        To begin with.
    """

    engine = "torch"
    n_features = N_FEATURES

    def __init__(
        self, compute: Compute, weights: Weights, device: Device, precision: str, batch_size: int
    ) -> None:
        self.weights = weights
        self.device = device.name
        self.precision = precision
        self.batch_size = batch_size
        self.batch_sizes_before: tuple[int, ...] = ()
        self._compute = compute
        self._device = device
        self._pipeline: _Pipeline | None = None

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Encode patches, in their order; see `oncofm.encoders.torch_engine.TorchEncoder.encode`.

        Raises
        ------
        ValueError
            If the patches have another shape or type, or values that are not finite.
        DeviceMemoryError
            If there is no memory for a single patch.
        DeviceLostError
            If the device or its driver failed.
        """
        check_patches(patches, PATCH_SIZE)
        features = np.empty((len(patches), N_FEATURES), np.float32)
        n_done = 0
        try:
            with torch.inference_mode(), arithmetic(self.precision):
                while n_done < len(patches):
                    n_done, had_memory = self._encode_some(patches, features, n_done)
                    # Not where the error was caught: it holds on to memory until it is gone.
                    if not had_memory:
                        self._take_smaller_batches()
        except RuntimeError as error:
            if not is_of_the_device(error):
                raise
            raise lost(self.device, error) from error
        return features

    def _encode_some(
        self, patches: np.ndarray, features: np.ndarray, n_done: int
    ) -> tuple[int, bool]:
        """Go on from `n_done`; returns how far it came, and whether there was memory for all."""
        try:
            if self._pipeline is None:
                self._pipeline = _Pipeline(self._compute, self._device, self.batch_size)
            for values in self._pipeline.run(patches[n_done:]):
                features[n_done : n_done + len(values)] = values
                n_done += len(values)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return n_done, False
        return n_done, True

    def _take_smaller_batches(self) -> None:
        self._device.settle()  # copies may still be on their way
        self._pipeline = None
        self._device.settle()
        if self.batch_size == 1:
            free_mib = self._device.free_bytes() / 2**20
            raise DeviceMemoryError(
                f"The GPU {self.device} has no memory for a single patch ({free_mib:.0f} MiB are "
                "free); end what else runs there, or choose another device."
            )
        smaller = self.batch_size // _smallest_factor(self.batch_size)
        log.warning(
            "The GPU %s has no memory for %d patches at once; it goes on with %d. Features differ "
            "by rounding between the two; --batch-size %d avoids that.",
            self.device,
            self.batch_size,
            smaller,
            smaller,
        )
        self.batch_sizes_before += (self.batch_size,)
        self.batch_size = smaller


def choose_batch_size(free_bytes: int) -> int:
    """Find the largest power of two that fits in memory, at most 256, at least 1."""
    size = LARGEST_BATCH
    while size > 1 and bytes_needed(size) > free_bytes * _SHARE_OF_MEMORY:
        size //= 2
    return size


def _smallest_factor(number: int) -> int:
    """Of a number above 1: a batch that was filled up stays a whole number of smaller ones."""
    return next(factor for factor in range(2, number + 1) if number % factor == 0)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error of torch says so; its libraries have words of their own."""
    words = str(error)
    is_torchs = isinstance(error, torch.OutOfMemoryError)
    return is_torchs or "out of memory" in words or "ALLOC_FAILED" in words


def is_of_the_device(error: RuntimeError) -> bool:
    """Tell whether an error of torch comes from the device, its driver or its libraries."""
    return any(word in str(error) for word in ("CUDA error", "CUDA driver", "CUBLAS_STATUS"))


def lost(device: str, error: RuntimeError) -> DeviceLostError:
    """Say that a device failed."""
    return DeviceLostError(
        f"The GPU {device} failed ({_first_line(error)}); look at its driver, then start again."
    )


def _first_line(error: RuntimeError) -> str:
    return (str(error).splitlines() or [""])[0]


@dataclass(frozen=True)
class _Slot:
    """Where a batch leaves from and its features come back to, both in pinned memory."""

    patches: Tensor
    features: Tensor


class _Pipeline:
    """Two lanes of the device, and the places that batches of one size go through."""

    def __init__(self, compute: Compute, device: Device, batch_size: int) -> None:
        self._compute = compute
        self._device = device
        self._batch_size = batch_size
        shape = (batch_size, *_PATCH_SHAPE)
        self._slots = [
            _Slot(device.staging(shape), device.staging((batch_size, N_FEATURES))) for _ in range(2)
        ]
        self._arriving, self._current = device.zeros(shape), device.zeros(shape)
        self._copying, self._computing = device.lane(), device.lane()
        self._full: Callable[[], Tensor] | None = None
        device.settle()  # weights and zeros came by yet another lane
        self._taken = self._computing.mark()

    def run(self, patches: np.ndarray) -> Iterator[np.ndarray]:
        """Encode patches; yields the features of batch after batch, valid until the next."""
        before: tuple[np.ndarray, Any] | None = None
        for number, start in enumerate(range(0, len(patches), self._batch_size)):
            few = patches[start : start + self._batch_size]
            sent = self._send(few, self._slots[number % 2])
            if before is not None:
                yield _arrived(*before)
            before = sent
        if before is not None:
            yield _arrived(*before)

    def _send(self, few: np.ndarray, slot: _Slot) -> tuple[np.ndarray, Any]:
        """Issue all the work on a batch; returns where its features will be, and when."""
        n = len(few)
        step = self._step(n)
        slot.patches[:n].movedim(-1, 1).numpy()[...] = few
        self._copying.after(self._taken)
        self._copying.put(lambda: self._arriving[:n].copy_(slot.patches[:n], non_blocking=True))
        self._computing.after(self._copying.mark())
        self._computing.put(lambda: self._current[:n].copy_(self._arriving[:n], non_blocking=True))
        self._taken = self._computing.mark()
        # 16 kB come back for 500 kB that went: not worth a lane of their own.
        self._computing.put(lambda: slot.features[:n].copy_(step(), non_blocking=True))
        return slot.features[:n].numpy(), self._computing.mark()

    def _step(self, n: int) -> Callable[[], Tensor]:
        """Get what computes the current batch."""
        if n < self._batch_size:
            return lambda: self._compute(self._current[:n])
        if self._full is None:
            self._full = self._record()
        return self._full

    def _record(self) -> Callable[[], Tensor]:
        """Record the work on a full batch, or say why it will be done piece by piece."""

        def compute() -> Tensor:
            return self._compute(self._current)

        # The libraries choose what they use, and get memory for it, when they first run.
        self._computing.put(compute)
        self._computing.mark().wait()
        try:
            return self._device.capture(compute, self._computing)
        except RuntimeError as error:
            log.warning("No CUDA graph of the encoder (%s); it runs without.", _first_line(error))
        self._device.settle()
        return compute


def _arrived(features: np.ndarray, done: Any) -> np.ndarray:
    done.wait()
    return features
