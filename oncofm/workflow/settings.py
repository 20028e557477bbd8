"""What a user can choose about a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MODEL = "fmcib"


@dataclass(frozen=True)
class Settings:
    """What a user can choose.

    Attributes
    ----------
    weights : Path or None
        Weights file; None looks in the usual places.
    expected_sha256 : str or None
        SHA-256 that the weights must have.
    random_seed : int or None
        Seeded random weights instead of a file, for demonstrations.
    profile : str
        Preprocessing, ``mhub`` or ``paper``.
    per : str
        One seed per ``segment`` or per connected ``component``.
    min_volume_mm3 : float
        Smaller components give no seed.
    seg_threshold : float
        Fraction from which a voxel of a FRACTIONAL segmentation counts.
    device, precision : str
        ``auto | cpu | cuda[:n]`` and ``fp32 | bf16``.
    batch_size : int or None
        Patches per pass through the network; None lets the encoder choose.
    """

    weights: Path | None = None
    expected_sha256: str | None = None
    random_seed: int | None = None
    profile: Literal["mhub", "paper"] = "mhub"
    per: Literal["segment", "component"] = "segment"
    min_volume_mm3: float = 0.0
    seg_threshold: float = 0.5
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int | None = None
