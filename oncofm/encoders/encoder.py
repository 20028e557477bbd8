"""What every encoder can do, whatever engine runs it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Weights:
    """Which parameters an encoder runs with.

    Attributes
    ----------
    model : str
        Name of the folder under ``models/``.
    path : pathlib.Path or None
        The file, or None for random weights.
    sha256 : str
        SHA-256 of the file, or of the random tensors.
    licence : str
        SPDX identifier or the card's words.
    random_seed : int or None
        Set only for random weights, which have no meaning; every output says so.
    """

    model: str
    path: Path | None
    sha256: str
    licence: str
    random_seed: int | None = None


@dataclass(frozen=True)
class EncoderFacts:
    """What an encoder is, without the network.

    Attributes
    ----------
    weights, device, precision, engine, n_features, batch_size
        As in `Encoder`.
    batch_sizes_before : tuple of int
        The larger ones that it began with and ran out of memory with. Features computed with one
        of them may differ from the others by rounding.
    """

    weights: Weights
    device: str
    precision: str
    engine: str
    n_features: int
    batch_size: int
    batch_sizes_before: tuple[int, ...] = ()

    @classmethod
    def of(cls, encoder: "Encoder | EncoderFacts") -> "EncoderFacts":
        """Describe an encoder as it is now."""
        before = getattr(encoder, "batch_sizes_before", ())  # only a GPU has them
        names = cls.__dataclass_fields__.keys() - {"batch_sizes_before"}
        facts = {name: getattr(encoder, name) for name in names}
        return cls(**facts, batch_sizes_before=before)


class Encoder(Protocol):
    """Patches in, features out.

    Attributes
    ----------
    weights : Weights
        What it was loaded with.
    device, precision, engine : str
        For example ``cpu``, ``fp32``, ``torch``.
    n_features : int
        Length of a feature vector.
    batch_size : int
        Largest number of patches that run through the network at once. It may get smaller where
        memory runs out.
    """

    weights: Weights
    device: str
    precision: str
    engine: str
    n_features: int

    @property
    def batch_size(self) -> int: ...  # noqa: D102 - described above

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Encode patches, in their order.

        Parameters
        ----------
        patches : numpy.ndarray
            Shape (n, 1, 50, 50, 50) = (lesion, C, Z, Y, X), float32, scaled by the profile.

        Returns
        -------
        numpy.ndarray
            Shape (n, n_features), float32.
        """
        ...


class FixedBatches:
    """An encoder around another: the features of a lesion are the same bytes in any company.

    Rounding depends on how many patches run together, so every batch is filled up with zeros to
    the other encoder's `batch_size`. For one lesion that costs a whole batch.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.weights = encoder.weights
        self.device = encoder.device
        self.precision = encoder.precision
        self.engine = encoder.engine
        self.n_features = encoder.n_features
        self._encoder = encoder

    @property
    def batch_size(self) -> int:
        """The other encoder's."""
        return self._encoder.batch_size

    @property
    def batch_sizes_before(self) -> tuple[int, ...]:
        """The other encoder's: see `EncoderFacts`."""
        return getattr(self._encoder, "batch_sizes_before", ())

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Encode patches, in their order: shapes and types as in `Encoder.encode`."""
        features = np.empty((len(patches), self.n_features), np.float32)
        start = 0
        while start < len(patches):
            size = self.batch_size  # may be smaller after each
            batch = few = patches[start : start + size]
            if len(few) < size:
                batch = np.zeros((size, *few.shape[1:]), few.dtype)
                batch[: len(few)] = few
            features[start : start + size] = self._encoder.encode(batch)[: len(few)]
            start += size
        return features


def check_patches(patches: np.ndarray, edge: int) -> None:
    """Refuse what an encoder cannot take, whatever engine runs it.

    Raises
    ------
    ValueError
        If the patches are not (n, 1, edge, edge, edge) and float32, or not finite.
    """
    if patches.ndim != 5 or patches.shape[1:] != (1, edge, edge, edge):
        expected = f"(n, 1, {edge}, {edge}, {edge})"
        raise ValueError(f"Patches have the shape {patches.shape} instead of {expected}.")
    if patches.dtype != np.float32:
        raise ValueError(f"Patches are {patches.dtype} instead of float32.")
    finite = np.isfinite(patches).all(axis=(1, 2, 3, 4))
    if not finite.all():
        raise ValueError(f"Patch {int(np.argmin(finite))} holds infinite or NaN values.")
