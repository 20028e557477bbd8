"""From a cohort to numbers: every statistic with its interval, and models against each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from oncofm.biomarkers.bootstrap import (
    Estimate,
    PermutationTest,
    bootstrap,
    midranks,
    permutation_test,
)
from oncofm.biomarkers.checks import finite_vector, probabilities
from oncofm.biomarkers.cohort import ClassCohort, SurvivalCohort
from oncofm.biomarkers.cox import hazard_ratio
from oncofm.biomarkers.decisions import (
    calibration_curve,
    operating_point,
    roc_curve,
    youden_threshold,
)
from oncofm.biomarkers.delong import DeLongTest, delong_interval, delong_test
from oncofm.biomarkers.evaluation import (
    BinaryModel,
    Comparison,
    Decision,
    Evaluation,
    MulticlassModel,
    RiskGroups,
    Sampling,
    SurvivalModel,
)
from oncofm.biomarkers.metrics import (
    Statistic,
    auc_statistic,
    average_precision_statistic,
    balanced_accuracy_statistic,
    brier_statistic,
    macro_statistic,
    multiclass_brier_statistic,
)
from oncofm.biomarkers.survival import censor, concordance_statistic, kaplan_meier, log_rank
from oncofm.errors import EvaluationError


def evaluate_classes(cohort: ClassCohort, sampling: Sampling, threshold: float = 0.5) -> Evaluation:
    """Evaluate class probabilities.

    Parameters
    ----------
    cohort : ClassCohort
        Two classes, or more.
    sampling : Sampling
        Of the intervals and tests.
    threshold : float
        For two classes: probability from which a case is called positive. Of more classes, the
        most probable is called, the first of equals.

    Raises
    ------
    EvaluationError
        If a statistic is undefined or a probability is none.
    """
    n_classes = len(cohort.classes)
    for table in cohort.probabilities.values():
        probabilities(table, len(cohort.labels), n_classes)
    counts = np.bincount(cohort.labels, minlength=n_classes).tolist()
    outcomes = dict(zip(cohort.classes, counts, strict=True))
    labels, units = cohort.labels, cohort.groups
    if n_classes == 2:
        task = "binary"
        scores = {name: table[:, 1] for name, table in cohort.probabilities.items()}
        makers = _binary_statistics(threshold)
        models = tuple(
            _binary_model(name, labels, values, makers, threshold, sampling, units)
            for name, values in scores.items()
        )
        comparisons = _compare(labels, scores, makers, sampling, units, delong=("auc",))
    else:
        task = "multiclass"
        scores, makers = cohort.probabilities, _MULTICLASS_STATISTICS
        models = tuple(
            _multiclass_model(name, cohort, values, sampling) for name, values in scores.items()
        )
        comparisons = _compare(labels, scores, makers, sampling, units)
    return Evaluation(
        task=task,
        n_cases=len(labels),
        n_groups=_n_groups(units, len(labels)),
        n_unlabelled=cohort.n_unlabelled,
        outcomes=outcomes,
        sampling=sampling,
        models=models,
        comparisons=comparisons,
    )


def evaluate_survival(
    cohort: SurvivalCohort,
    sampling: Sampling,
    cutoffs: Mapping[str, float],
    horizon: float | None = None,
) -> Evaluation:
    """Evaluate risks.

    Parameters
    ----------
    cohort : SurvivalCohort
        Times, events and risks.
    sampling : Sampling
        Of the intervals and tests.
    cutoffs : mapping of str to float
        Risk from which a case of that model is of high risk; models without one are split at
        the median of these cases.
    horizon : float, optional
        Time at which observation ends for curves, log-rank and hazard ratio (5 years in the
        published ones); the C-index uses all times.

    Raises
    ------
    EvaluationError
        If the C-index is undefined, or a time, event or risk cannot be.
    """
    times, events, units = cohort.times, cohort.events, cohort.groups

    def c_index(rows: np.ndarray, risks: np.ndarray) -> Statistic:
        return concordance_statistic(times[rows], events[rows], risks)

    rows = np.arange(len(times))
    makers: dict[str, _Maker] = {"c_index": _Maker(c_index, ranked=True)}
    models = tuple(
        SurvivalModel(
            name,
            _estimates(rows, risks, makers, sampling, units),
            *_risk_groups(times, events, risks, cutoffs.get(name), horizon, sampling.level),
        )
        for name, risks in cohort.risks.items()
    )
    n_events = int(events.sum())
    return Evaluation(
        task="survival",
        n_cases=len(times),
        n_groups=_n_groups(units, len(times)),
        n_unlabelled=cohort.n_unlabelled,
        outcomes={"event": n_events, "censored": len(times) - n_events},
        sampling=sampling,
        models=models,
        comparisons=_compare(rows, cohort.risks, makers, sampling, units),
    )


# --- statistics by name --------------------------------------------------------------------


@dataclass(frozen=True)
class _Maker:
    """Makes a statistic of labels and scores; `ranked` if only the order of scores matters."""

    make: Callable[[Any, Any], Statistic]
    ranked: bool


def _binary_statistics(threshold: float) -> dict[str, _Maker]:
    limit = float(finite_vector([threshold], "thresholds")[0])

    def balanced(labels: Any, scores: np.ndarray) -> Statistic:
        return balanced_accuracy_statistic(labels, scores >= limit)

    return {
        "auc": _Maker(auc_statistic, ranked=True),
        "average_precision": _Maker(average_precision_statistic, ranked=True),
        "balanced_accuracy": _Maker(balanced, ranked=False),
        "brier": _Maker(brier_statistic, ranked=False),
    }


def _macro(of_one_class: Callable[[Any, Any], Statistic]) -> _Maker:
    return _Maker(lambda labels, scores: macro_statistic(labels, scores, of_one_class), True)


def _most_probable(labels: Any, scores: np.ndarray) -> Statistic:
    return balanced_accuracy_statistic(labels, scores.argmax(axis=1), scores.shape[1])


_MULTICLASS_STATISTICS = {
    "auc": _macro(auc_statistic),
    "average_precision": _macro(average_precision_statistic),
    "balanced_accuracy": _Maker(_most_probable, ranked=False),
    "brier": _Maker(multiclass_brier_statistic, ranked=False),
}


def _estimates(
    labels: np.ndarray,
    scores: np.ndarray,
    makers: Mapping[str, _Maker],
    sampling: Sampling,
    groups: np.ndarray | None,
) -> dict[str, Estimate]:
    return {
        name: _bootstrap(maker.make(labels, scores), len(labels), sampling, groups)
        for name, maker in makers.items()
    }


def _bootstrap(
    statistic: Statistic, n_cases: int, sampling: Sampling, groups: np.ndarray | None
) -> Estimate:
    return bootstrap(
        statistic,
        n_cases,
        seed=sampling.seed,
        n_resamples=sampling.n_resamples,
        level=sampling.level,
        groups=groups,
    )


# --- one model -----------------------------------------------------------------------------


def _binary_model(
    name: str,
    labels: np.ndarray,
    scores: np.ndarray,
    makers: Mapping[str, _Maker],
    threshold: float,
    sampling: Sampling,
    groups: np.ndarray | None,
) -> BinaryModel:
    metrics = _estimates(labels, scores, makers, sampling, groups)
    delong, notes = None, ()
    try:
        delong = delong_interval(labels, scores, sampling.level)
    except EvaluationError as error:
        notes = (str(error),)
    best = youden_threshold(labels, scores)
    return BinaryModel(
        name=name,
        metrics=metrics,
        delong=delong,
        decisions=(
            Decision("given", operating_point(labels, scores, threshold)),
            Decision("youden", operating_point(labels, scores, best)),
        ),
        roc=roc_curve(labels, scores),
        calibration=calibration_curve(labels, scores),
        notes=notes,
    )


def _multiclass_model(
    name: str, cohort: ClassCohort, scores: np.ndarray, sampling: Sampling
) -> MulticlassModel:
    one_class = _binary_statistics(0.5)
    ranked = {key: one_class[key] for key in ("auc", "average_precision")}
    return MulticlassModel(
        name=name,
        metrics=_estimates(cohort.labels, scores, _MULTICLASS_STATISTICS, sampling, cohort.groups),
        class_metrics={
            label: _estimates(
                cohort.labels == index, scores[:, index], ranked, sampling, cohort.groups
            )
            for index, label in enumerate(cohort.classes)
        },
    )


def _risk_groups(
    times: np.ndarray,
    events: np.ndarray,
    risks: np.ndarray,
    cutoff: float | None,
    horizon: float | None,
    level: float,
) -> tuple[RiskGroups | None, tuple[str, ...]]:
    """Split and compare, with a note for each part that these cases do not define."""
    origin = "median" if cutoff is None else "given"
    limit = float(np.median(risks)) if cutoff is None else cutoff
    high = risks >= limit
    ratio, notes = None, ()
    try:
        if horizon is not None:
            times, events = censor(times, events, horizon)
        test = log_rank(times, events, high)
    except EvaluationError as error:
        return None, (str(error),)
    try:
        ratio = hazard_ratio(times, events, high, level)
    except EvaluationError as error:
        notes = (str(error),)
    groups = RiskGroups(
        cutoff=limit,
        origin=origin,
        horizon=horizon,
        low=kaplan_meier(times[~high], events[~high], level),
        high=kaplan_meier(times[high], events[high], level),
        log_rank=test,
        hazard_ratio=ratio,
    )
    return groups, notes


# --- models against each other -------------------------------------------------------------


def _compare(
    labels: np.ndarray,
    scores: Mapping[str, np.ndarray],
    makers: Mapping[str, _Maker],
    sampling: Sampling,
    groups: np.ndarray | None,
    delong: tuple[str, ...] = (),
) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(
            first=first,
            second=second,
            metric=metric,
            difference=_difference(labels, scores[first], scores[second], maker, sampling, groups),
            permutation=_permutation(
                labels, scores[first], scores[second], maker, sampling, groups
            ),
            delong=_delong(labels, scores[first], scores[second], sampling.level)
            if metric in delong
            else None,
        )
        for first, second in combinations(scores, 2)
        for metric, maker in makers.items()
    )


def _difference(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    maker: _Maker,
    sampling: Sampling,
    groups: np.ndarray | None,
) -> Estimate:
    of_first, of_second = maker.make(labels, first), maker.make(labels, second)
    return _bootstrap(
        lambda counts: of_first(counts) - of_second(counts), len(labels), sampling, groups
    )


def _permutation(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    maker: _Maker,
    sampling: Sampling,
    groups: np.ndarray | None,
) -> PermutationTest:
    if maker.ranked:
        first, second = _ranked(first), _ranked(second)
    return permutation_test(
        maker.make(np.concatenate([labels, labels]), np.concatenate([first, second])),
        len(labels),
        seed=sampling.seed,
        n_permutations=sampling.n_permutations,
        groups=groups,
    )


def _delong(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, level: float
) -> DeLongTest | None:
    """Test, or None with fewer than two cases of a class: each model's notes say so."""
    if min(np.bincount(labels)) < 2:
        return None
    return delong_test(labels, first, second, level)


def _ranked(scores: np.ndarray) -> np.ndarray:
    return np.apply_along_axis(midranks, 0, scores)


def _n_groups(groups: np.ndarray | None, n_cases: int) -> int:
    return n_cases if groups is None else len(np.unique(groups))
