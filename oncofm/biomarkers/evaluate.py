"""From a cohort to an evaluation: models, their decisions and groups, and how they compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from oncofm.biomarkers.card import HeadCard
from oncofm.biomarkers.checks import probabilities
from oncofm.biomarkers.cohort import ClassCohort, SurvivalCohort
from oncofm.biomarkers.compare import (
    MULTICLASS_STATISTICS,
    StatisticMaker,
    binary_statistics,
    compare,
    estimates,
)
from oncofm.biomarkers.cox import hazard_ratio
from oncofm.biomarkers.decisions import (
    calibration_curve,
    count_decisions,
    operating_point,
    roc_curve,
    youden_threshold,
)
from oncofm.biomarkers.delong import delong_interval
from oncofm.biomarkers.evaluation import (
    BinaryModel,
    Decision,
    Evaluation,
    MulticlassModel,
    RiskGroups,
    Sampling,
    SurvivalModel,
)
from oncofm.biomarkers.evaluation_cards import cards_by_head
from oncofm.biomarkers.learning_curve import learning_curves
from oncofm.biomarkers.metrics import Statistic
from oncofm.biomarkers.survival import censor, concordance_statistic, kaplan_meier, log_rank
from oncofm.errors import EvaluationError

DEFAULT_THRESHOLD = 0.5


def evaluate_classes(
    cohort: ClassCohort,
    sampling: Sampling,
    threshold: float | None = None,
    cards: Sequence[HeadCard] = (),
) -> Evaluation:
    """Evaluate class probabilities.

    Parameters
    ----------
    cohort : ClassCohort
        Two classes, or more.
    sampling : Sampling
        Of the intervals and tests.
    threshold : float, optional
        For two classes: probability from which a case is called positive; `DEFAULT_THRESHOLD` if
        None, and then the thresholds of the cards are judged as well. Of more classes, the most
        probable is called, the first of equals.
    cards : sequence of HeadCard
        Of heads among the predictions.

    Raises
    ------
    EvaluationError
        If a statistic is undefined, a probability is none, or a card does not fit.
    """
    n_classes = len(cohort.classes)
    known = cards_by_head(cards, cohort.probabilities, cohort.classes)
    for table in cohort.probabilities.values():
        probabilities(table, len(cohort.labels), n_classes)
    counts = np.bincount(cohort.labels, minlength=n_classes).tolist()
    outcomes = dict(zip(cohort.classes, counts, strict=True))
    labels, units = cohort.labels, cohort.groups
    if n_classes == 2:
        task = "binary"
        scores = {name: table[:, 1] for name, table in cohort.probabilities.items()}
        limit = DEFAULT_THRESHOLD if threshold is None else threshold
        makers = binary_statistics(limit)
        deciding = known if threshold is None else {}
        models = tuple(
            _binary_model(name, labels, values, makers, limit, deciding.get(name), sampling, units)
            for name, values in scores.items()
        )
        comparisons = compare(labels, scores, makers, sampling, units, delong=("auc",))
    else:
        task = "multiclass"
        scores, makers = cohort.probabilities, MULTICLASS_STATISTICS
        models = tuple(
            _multiclass_model(name, cohort, values, sampling) for name, values in scores.items()
        )
        comparisons = compare(labels, scores, makers, sampling, units)
    return Evaluation(
        task=task,
        n_cases=len(labels),
        n_groups=_n_groups(units, len(labels)),
        n_unlabelled=cohort.n_unlabelled,
        outcomes=outcomes,
        sampling=sampling,
        models=models,
        comparisons=comparisons,
        learning_curve=learning_curves({model.name: model.metrics for model in models}, known),
    )


def evaluate_survival(
    cohort: SurvivalCohort,
    sampling: Sampling,
    cutoffs: Mapping[str, float],
    horizon: float | None = None,
    cards: Sequence[HeadCard] = (),
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
        the threshold of their card, or else at the median of these cases.
    horizon : float, optional
        Time at which observation ends for curves, log-rank and hazard ratio (5 years in the
        published ones); the C-index uses all times.
    cards : sequence of HeadCard
        Of heads among the predictions.

    Raises
    ------
    EvaluationError
        If the C-index is undefined, a time, event or risk cannot be, or a card does not fit.
    """
    known = cards_by_head(cards, cohort.risks, None)
    times, events, units = cohort.times, cohort.events, cohort.groups

    def c_index(rows: np.ndarray, risks: np.ndarray) -> Statistic:
        return concordance_statistic(times[rows], events[rows], risks)

    rows = np.arange(len(times))
    makers: dict[str, StatisticMaker] = {"c_index": StatisticMaker(c_index, ranked=True)}
    models = tuple(
        SurvivalModel(
            name,
            estimates(rows, risks, makers, sampling, units),
            *_risk_groups(
                times,
                events,
                _split(risks, cutoffs.get(name), known.get(name)),
                horizon,
                sampling.level,
            ),
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
        comparisons=compare(rows, cohort.risks, makers, sampling, units),
        learning_curve=learning_curves({model.name: model.metrics for model in models}, known),
    )


# --- one model -----------------------------------------------------------------------------


def _binary_model(
    name: str,
    labels: np.ndarray,
    scores: np.ndarray,
    makers: Mapping[str, StatisticMaker],
    threshold: float,
    card: HeadCard | None,
    sampling: Sampling,
    groups: np.ndarray | None,
) -> BinaryModel:
    metrics = estimates(labels, scores, makers, sampling, groups)
    delong, notes = None, ()
    try:
        delong = delong_interval(labels, scores, sampling.level)
    except EvaluationError as error:
        notes = (str(error),)
    decisions = [Decision("given", operating_point(labels, scores, threshold))]
    if card is not None and card.threshold is not None:
        decisions.append(_decision_of_card(labels, scores, card))
    best = youden_threshold(labels, scores)
    decisions.append(Decision("youden", operating_point(labels, scores, best)))
    return BinaryModel(
        name=name,
        metrics=metrics,
        delong=delong,
        decisions=tuple(decisions),
        roc=roc_curve(labels, scores),
        calibration=calibration_curve(labels, scores),
        notes=notes,
    )


def _decision_of_card(labels: np.ndarray, scores: np.ndarray, card: HeadCard) -> Decision:
    """Judge what the head calls: the second class is the high risk, unless more of it is better."""
    assert card.threshold is not None
    high = card.is_high_risk(scores)
    called = high if card.direction == "higher_is_worse" else ~high
    return Decision("card", count_decisions(labels, called, card.threshold.value))


def _multiclass_model(
    name: str, cohort: ClassCohort, scores: np.ndarray, sampling: Sampling
) -> MulticlassModel:
    one_class = binary_statistics(0.5)
    ranked = {key: one_class[key] for key in ("auc", "average_precision")}
    return MulticlassModel(
        name=name,
        metrics=estimates(cohort.labels, scores, MULTICLASS_STATISTICS, sampling, cohort.groups),
        class_metrics={
            label: estimates(
                cohort.labels == index, scores[:, index], ranked, sampling, cohort.groups
            )
            for index, label in enumerate(cohort.classes)
        },
    )


@dataclass(frozen=True, eq=False)
class _Split:
    """Which cases are of high risk, shape (n,) bool, and why; see `RiskGroups`."""

    cutoff: float
    origin: Literal["given", "card", "median"]
    high: np.ndarray


def _split(risks: np.ndarray, cutoff: float | None, card: HeadCard | None) -> _Split:
    if cutoff is not None:
        return _Split(cutoff, "given", risks >= cutoff)
    if card is not None and card.threshold is not None:
        return _Split(card.threshold.value, "card", card.is_high_risk(risks))
    median = float(np.median(risks))
    return _Split(median, "median", risks >= median)


def _risk_groups(
    times: np.ndarray,
    events: np.ndarray,
    split: _Split,
    horizon: float | None,
    level: float,
) -> tuple[RiskGroups | None, tuple[str, ...]]:
    """Compare, with a note for each part that these cases do not define."""
    high = split.high
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
        cutoff=split.cutoff,
        origin=split.origin,
        horizon=horizon,
        low=kaplan_meier(times[~high], events[~high], level),
        high=kaplan_meier(times[high], events[high], level),
        log_rank=test,
        hazard_ratio=ratio,
    )
    return groups, notes


def _n_groups(groups: np.ndarray | None, n_cases: int) -> int:
    return n_cases if groups is None else len(np.unique(groups))
