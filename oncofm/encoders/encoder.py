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
