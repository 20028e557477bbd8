"""What a user can choose about a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from oncofm.errors import SettingInvalidError

MODEL = "fmcib"
Profile = Literal["mhub", "paper"]
Per = Literal["segment", "component"]
ReportStyle = Literal["none", "auto", "segment", "point", "both"]
ReportFeatures = Literal["none", "full"]
Engine = Literal["auto", "torch", "openvino"]
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
    sr_features : str
        ``full``: for each lesion one more report with all its features; else ``none``.
    revises : Path or None
        An earlier run's structured reports, or the folder of them, which the new ones revise.
    key_images : bool
        Write a picture of each lesion as a DICOM secondary capture.
    report : bool
        Write a page to read, ``report.html``.
    jitter : int
        Shifted seeds per lesion, which say how stable each prediction is; 0 is none.
    engine : str
        ``torch``, ``openvino`` or ``auto``, as for `oncofm.encoders.load.load_encoder`.
    device, precision : str
        ``auto | cpu | cuda[:n]`` and ``fp32 | tf32 | bf16``.
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
    sr_features: ReportFeatures = "none"
    revises: Path | None = None
    key_images: bool = False
    report: bool = False
    jitter: int = 0
    engine: Engine = "auto"
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check("profile", self.profile, get_args(Profile))
        _check("per", self.per, get_args(Per))
        _check("engine", self.engine, get_args(Engine))
        _check("report style", self.sr, get_args(ReportStyle))
        _check("features in reports", self.sr_features, get_args(ReportFeatures))
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
        if self.jitter < 0 or self.jitter == 1:
            raise SettingInvalidError(
                f"The number of shifted seeds is {self.jitter}; it must be 2 or more, or 0."
            )
        if self.jitter and not self.heads:
            raise SettingInvalidError(
                "Shifted seeds say how stable predictions are; name a head, or leave them out."
            )
        if self.sr_features == "full" and self.sr == "none":
            raise SettingInvalidError(
                "All features in reports were asked for but no reports; choose a report style."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise SettingInvalidError(f"The batch size is {self.batch_size}; it must be positive.")

    @property
    def writes_dicom(self) -> bool:
        """Whether anything leaves as DICOM."""
        return self.sr != "none" or self.key_images


def _check(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingInvalidError(f"The {name} {value!r} is none of {', '.join(allowed)}.")
