"""What an evaluation says: frozen results, and their JSON."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from oncofm.biomarkers.bootstrap import LEVEL, N_RESAMPLES, Estimate, PermutationTest
from oncofm.biomarkers.cox import HazardRatio
from oncofm.biomarkers.decisions import CalibrationCurve, OperatingPoint, RocCurve
from oncofm.biomarkers.delong import DeLongInterval, DeLongTest
from oncofm.biomarkers.learning_curve import LearningCurve
from oncofm.biomarkers.retest import RetestAgreement
from oncofm.biomarkers.survival import KaplanMeier, LogRank


@dataclass(frozen=True)
class Sampling:
    """How uncertainty is found; the same for every model and statistic, so that they pair."""

    n_resamples: int = N_RESAMPLES
    n_permutations: int = N_RESAMPLES
    seed: int = 0
    level: float = LEVEL


@dataclass(frozen=True)
class Decision:
    """An operating point and where its threshold came from.

    ``given`` thresholds were fixed before, and so was that of a head's ``card``, which calls what
    the head calls (see `oncofm.biomarkers.head.Head.risk_groups`); ``youden`` ones were chosen on
    these very cases and flatter.
    """

    origin: Literal["given", "card", "youden"]
    point: OperatingPoint


@dataclass(frozen=True)
class BinaryModel:
    """What a model with two classes is worth: ``auc``, ``average_precision`` and so on."""

    name: str
    metrics: dict[str, Estimate]
    delong: DeLongInterval | None
    decisions: tuple[Decision, ...]
    roc: RocCurve
    calibration: CalibrationCurve
    notes: tuple[str, ...]


@dataclass(frozen=True)
class MulticlassModel:
    """What a model with three or more classes is worth; AUC and AP are means over the classes."""

    name: str
    metrics: dict[str, Estimate]
    class_metrics: dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class RiskGroups:
    """Cases of low and high risk.

    Attributes
    ----------
    cutoff : float
        In the unit of the risk.
    origin : str
        ``given`` or ``median`` of these very cases: high where the risk reaches it; or that of the
        head's ``card``: high where `oncofm.biomarkers.head.Head.risk_groups` says so.
    horizon : float or None
        Time at which observation ends for the group statistics.
    low, high : KaplanMeier
        Curves.
    log_rank : LogRank
        Test of the two.
    hazard_ratio : HazardRatio or None
        Of high against low; None where it is without bound.
    """

    cutoff: float
    origin: Literal["given", "card", "median"]
    horizon: float | None
    low: KaplanMeier
    high: KaplanMeier
    log_rank: LogRank
    hazard_ratio: HazardRatio | None


@dataclass(frozen=True)
class SurvivalModel:
    """What a risk is worth: ``c_index``, and its groups; notes say what could not be computed."""

    name: str
    metrics: dict[str, Estimate]
    groups: RiskGroups | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same cases.

    Attributes
    ----------
    first, second, metric : str
        What is compared; differences are first less second.
    difference : Estimate
        With its paired bootstrap.
    permutation : PermutationTest
        Of swapping the predictions of a case; within-model ranks are swapped where the metric is
        about ranks.
    delong : DeLongTest or None
        For the AUC of two classes.
    """

    first: str
    second: str
    metric: str
    difference: Estimate
    permutation: PermutationTest
    delong: DeLongTest | None


@dataclass(frozen=True)
class Evaluation:
    """Everything that `to_json` writes.

    Attributes
    ----------
    task : str
        ``binary``, ``multiclass`` or ``survival``.
    n_cases, n_groups, n_unlabelled : int
        Cases evaluated, their patients or scans (or cases), and predictions without a label.
    outcomes : dict of str to int
        Cases per class, or with and without event.
    sampling : Sampling
        How the intervals were found.
    models, comparisons : tuple
        In the order of the predictions; every pair once, per metric.
    retest : tuple of RetestAgreement
        Where lesions were imaged twice.
    learning_curve : tuple of LearningCurve
        Where heads differ in how many cases they were fitted to; one for each thing predicted.
    """

    task: Literal["binary", "multiclass", "survival"]
    n_cases: int
    n_groups: int
    n_unlabelled: int
    outcomes: dict[str, int]
    sampling: Sampling
    models: tuple[BinaryModel | MulticlassModel | SurvivalModel, ...]
    comparisons: tuple[Comparison, ...]
    retest: tuple[RetestAgreement, ...] = ()
    learning_curve: tuple[LearningCurve, ...] = ()


def to_json(evaluation: Evaluation) -> str:
    """Write an evaluation as indented JSON; what is not finite becomes null."""
    return json.dumps(_plain(asdict(evaluation)), indent=2, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
