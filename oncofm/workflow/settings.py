"""What a user can choose about a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from oncofm.errors import SettingInvalidError

MODEL = "fmcib"
Profile = Literal["mhub", "paper"]
Per = Literal["segment", "component"]
ReportStyle = Literal["none", "auto", "segment", "point", "both"]
SeedKind = Literal["seg", "rtstruct", "sr", "points", "mask", "table"]


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
    seed_kinds : tuple of str
        Annotations that say where lesions are: ``seg``, ``rtstruct``, ``sr``, ``points``,
        ``mask``, ``table``. Empty: for every volume the first of SEG, RTSTRUCT and SR that it has.
    labels : tuple of str
        Patterns (``*``, ``?``, ``[...]``; upper and lower case alike) of the segments, ROIs or
        points that are asked for. Empty: all.
    per : str
        One seed per ``segment`` or per connected ``component``.
    min_volume_mm3 : float
        Smaller components give no seed.
    seg_threshold : float
        Fraction from which a voxel of a FRACTIONAL segmentation counts.
    heads : tuple of str
        Names of heads, or paths of their folders: the biomarkers to predict.
    sr : str
        Structured reports: ``none``, or a style as for `oncofm.workflow.reports.write_reports`.
    device, precision : str
        ``auto | cpu | cuda[:n]`` and ``fp32 | bf16``.
    batch_size : int or None
        Patches per pass through the network; None lets the encoder choose.
    """

    weights: Path | None = None
    expected_sha256: str | None = None
    random_seed: int | None = None
    profile: Profile = "mhub"
    seed_kinds: tuple[SeedKind, ...] = ()
    labels: tuple[str, ...] = ()
    per: Per = "segment"
    min_volume_mm3: float = 0.0
    seg_threshold: float = 0.5
    heads: tuple[str, ...] = ()
    sr: ReportStyle = "none"
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check("profile", self.profile, get_args(Profile))
        _check("per", self.per, get_args(Per))
        _check("report style", self.sr, get_args(ReportStyle))
        for kind in self.seed_kinds:
            _check("seed kind", kind, get_args(SeedKind))
        if not 0 < self.seg_threshold <= 1:
            raise SettingInvalidError(
                f"The threshold is {self.seg_threshold}; it must be above 0 and at most 1."
            )
        if not self.min_volume_mm3 >= 0:
            raise SettingInvalidError(
                f"The smallest volume is {self.min_volume_mm3} mm3; it must not be negative."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise SettingInvalidError(f"The batch size is {self.batch_size}; it must be positive.")


def _check(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingInvalidError(f"The {name} {value!r} is none of {', '.join(allowed)}.")
