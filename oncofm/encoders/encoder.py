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
    """

    weights: Weights
    device: str
    precision: str
    engine: str
    n_features: int
    batch_size: int

    @classmethod
    def of(cls, encoder: "Encoder") -> "EncoderFacts":
        """Describe an encoder."""
        return cls(**{name: getattr(encoder, name) for name in cls.__dataclass_fields__})


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
        Largest number of patches that run through the network at once.
    """

    weights: Weights
    device: str
    precision: str
    engine: str
    n_features: int
    batch_size: int

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
        self.batch_size = encoder.batch_size
        self._encoder = encoder

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Encode patches, in their order: shapes and types as in `Encoder.encode`."""
        features = np.empty((len(patches), self.n_features), np.float32)
        for start in range(0, len(patches), self.batch_size):
            few = patches[start : start + self.batch_size]
            batch = np.zeros((self.batch_size, *few.shape[1:]), few.dtype)
            batch[: len(few)] = few
            features[start : start + len(few)] = self._encoder.encode(batch)[: len(few)]
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
