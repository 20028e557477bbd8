"""Fit a head to features and labels, and say how well such a head does on cases it never saw.

Nothing of a held-out case enters what it is predicted with: scaler and C are chosen inside the
training folds (nested cross-validation). Groups, such as patients, are never split.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from oncofm.biomarkers.bootstrap import N_RESAMPLES, bootstrap
from oncofm.biomarkers.card import Figure, HeadCard, Threshold, TrainingData
from oncofm.biomarkers.checks import finite_matrix, missing_extra
from oncofm.biomarkers.head import LINKS, Head, Layer
from oncofm.biomarkers.metrics import Statistic, exact
from oncofm.biomarkers.ridge import fit_cox, fit_logistic
from oncofm.biomarkers.survival import survival_times
from oncofm.biomarkers.within_folds import (
    accuracy,
    auc_within_folds,
    balanced_accuracy,
    c_index_within_folds,
)
from oncofm.errors import EvaluationError, HeadInvalidError

Task = Literal["binary", "multiclass", "survival"]

_C_RANGE = (1e-6, 1e3)
"""As published; drawn log-uniformly."""

_MIN_FOLDS = 3
"""Inside a training set there is one fold less, and two are needed there."""


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head and its nested cross-validation.

    Attributes
    ----------
    head : Head
        Fitted to all cases; its card holds the figures.
    held_out : numpy.ndarray
        Shape (n, k) float64: what was predicted for each case by a head that never saw it, in the
        columns of `HeadCard.outputs`.
    folds : numpy.ndarray
        Shape (n,) int: the fold that each case was held out in.
    chosen_c : tuple of float
        C in each fold.
    """

    head: Head
    held_out: np.ndarray
    folds: np.ndarray
    chosen_c: tuple[float, ...]


def fit_head(
    features: np.ndarray,
    labels: Any,
    facts: Mapping[str, Any],
    *,
    task: Task,
    groups: Any = None,
    cv: int = 10,
    n_trials: int = 100,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> FittedHead:
    """Fit a ridge model to standardised features; the scaler is folded into the head.

    C is drawn `n_trials` times, and the one that does best on held-out folds is taken, the
    smallest of equals: by AUC (binary), accuracy (multiclass) or C-index (survival). AUC and
    C-index compare cases of one fold only, since scores of different fits have different offsets;
    pooled, they are below 0.5 where there is nothing to find.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (n, n_features), as the encoder gives them.
    labels : array_like
        Shape (n,): a class per case, of any type that sorts; the second of two is the one that is
        predicted. For survival shape (n, 2): time, and 1 for an event, else 0.
    facts : mapping
        What only the user knows, as `HeadCard` names it: at least name, title, model, profile,
        weights_sha256, intended_use and licence; ``data`` names the training data. `classes`
        gives names to the sorted classes.
    task : str
        ``binary`` and ``multiclass`` give a logistic head, ``survival`` a Cox head with the
        median of the held-out risks as its threshold.
    groups : array_like, optional
        Shape (n,): cases of one group stay in one fold, and are resampled together.
    cv : int
        Folds, 3 or more; one less inside the training folds.
    n_trials, seed : int
        Values of C to try; of the trials, folds and bootstrap.
    advance : callable
        Called `cv` + 1 times.

    Returns
    -------
    FittedHead
        The same for the same input.

    Raises
    ------
    EvaluationError
        If features or labels cannot be fitted to.
    HeadInvalidError
        If the facts do not make a card.
    MissingExtraError
        Without scikit-learn.
    """
    x = finite_matrix(features, "features")
    problem = _PROBLEMS[task](labels, len(x))
    units = _units(groups, len(x))
    if cv < _MIN_FOLDS or n_trials < 1:
        raise EvaluationError(f"{cv} folds and {n_trials} trials were asked for; take 3 and 1.")
    random = np.random.default_rng(seed)
    low, high = (math.log(c) for c in _C_RANGE)
    cs = np.sort(np.exp(random.uniform(low, high, n_trials)))

    folds = np.empty(len(x), dtype=np.int64)
    scores = np.empty((len(x), problem.n_scores))
    chosen = []
    for number, (train, test) in enumerate(_split(problem, units, np.arange(len(x)), cv, seed)):
        c = _choose_c(problem, x, units, train, cv - 1, cs, seed)
        (layer,) = problem.fit(x[train], problem.target[train], [c])
        folds[test], scores[test] = number, layer(x[test])
        chosen.append(c)
        advance()
    best = _choose_c(problem, x, units, np.arange(len(x)), cv, cs, seed)
    (layer,) = problem.fit(x, problem.target, [best])
    advance()

    held_out = LINKS[problem.kind](scores)
    n_groups = None if groups is None else int(units.max()) + 1
    training = TrainingData(
        data=str(facts.get("data", "")),
        n=len(x),
        n_groups=n_groups,
        counts=problem.counts,
        settings={"C": best, "cv": cv, "n_trials": n_trials, "seed": seed},
    )
    found = problem.facts(held_out) | {
        "task": task,
        "kind": problem.kind,
        "n_features": x.shape[1],
        "scaler": "folded",
        "training": training,
        "cross_validated": _figures(problem, scores, folds, units, cv, seed, training.data),
    }
    head = Head(_card(found, facts), (layer,))
    return FittedHead(head, held_out, folds, tuple(chosen))


# --- what differs between the tasks -------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Problem:
    kind: Literal["logistic", "cox"]
    target: np.ndarray
    """Shape (n,) int: number of the class; for survival (n, 2) float64: time, event."""

    strata: np.ndarray
    """Shape (n,) int: folds hold equal shares of each."""

    n_scores: int
    fit: Callable[[np.ndarray, np.ndarray, Sequence[float]], list[Layer]]
    statistics: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Statistic]]
    """From targets, scores and folds; the first one chooses C."""

    counts: dict[str, int]
    facts: Callable[[np.ndarray], dict[str, Any]]
    """For the card, from what was predicted for held-out cases."""


def _binary(labels: Any, n_cases: int) -> _Problem:
    names, target = _classes(labels, n_cases)
    if len(names) != 2:
        raise EvaluationError(f"There are {len(names)} classes; a binary head needs two.")
    return _classification(names, target, 1, {"auc": auc_within_folds})


def _multiclass(labels: Any, n_cases: int) -> _Problem:
    names, target = _classes(labels, n_cases)
    if len(names) < 3:
        raise EvaluationError(
            f"There are {len(names)} classes; a multiclass head needs three or more."
        )
    statistics = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}
    return _classification(names, target, len(names), statistics)


def _classification(
    names: tuple[str, ...], target: np.ndarray, n_scores: int, statistics: Mapping[str, Any]
) -> _Problem:
    counts = np.bincount(target).tolist()
    return _Problem(
        kind="logistic",
        target=target,
        strata=target,
        n_scores=n_scores,
        fit=fit_logistic,
        statistics=statistics,
        counts=dict(zip(names, counts, strict=True)),
        facts=lambda held_out: {"classes": names},
    )


def _survival(labels: Any, n_cases: int) -> _Problem:
    outcomes = finite_matrix(labels, "survival times and events", n_cases)
    if outcomes.shape[1] != 2:
        raise EvaluationError(
            f"The labels have {outcomes.shape[1]} columns; survival needs a time and an event."
        )
    times, events = survival_times(*outcomes.T)
    n_events = int(events.sum())
    return _Problem(
        kind="cox",
        target=np.column_stack([times, events]),
        strata=events.astype(np.int64),
        n_scores=1,
        fit=fit_cox,
        statistics={"c_index": c_index_within_folds},
        counts={"event": n_events, "censored": len(events) - n_events},
        facts=lambda held_out: {
            "quantity": "log hazard ratio",
            "direction": "higher_is_worse",
            "threshold": Threshold(
                value=float(np.median(held_out)), chosen="median of the held-out risks"
            ),
        },
    )


_PROBLEMS: dict[str, Callable[[Any, int], _Problem]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "survival": _survival,
}


def _classes(labels: Any, n_cases: int) -> tuple[tuple[str, ...], np.ndarray]:
    values = list(np.asarray(labels, dtype=object))
    if len(values) != n_cases:
        raise EvaluationError(f"There are {len(values)} labels for {n_cases} cases; give one each.")
    if any(value is None or value != value for value in values):
        raise EvaluationError("Labels are missing; remove those cases.")
    try:
        found = sorted(set(values))
    except TypeError as error:
        raise EvaluationError("The labels cannot be sorted; give texts or numbers.") from error
    numbers = {value: number for number, value in enumerate(found)}
    return tuple(str(value) for value in found), np.array([numbers[value] for value in values])


# --- folds and the choice of C -------------------------------------------------------------


def _units(groups: Any, n_cases: int) -> np.ndarray:
    """Return the number of each case's group; without groups, every case is one."""
    if groups is None:
        return np.arange(n_cases)
    names = np.asarray(groups).astype(str)
    if names.shape != (n_cases,):
        raise EvaluationError(f"There are {names.size} groups for {n_cases} cases; give one each.")
    return np.unique(names, return_inverse=True)[1]


def _split(
    problem: _Problem, units: np.ndarray, rows: np.ndarray, cv: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows to train with and those to hold out, `cv` times."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    except ImportError as error:
        raise missing_extra("Fitting a head", error) from error
    strata, of_rows = problem.strata[rows], units[rows]
    present = np.unique(problem.strata)
    fewest = min(len(np.unique(of_rows[strata == stratum])) for stratum in present)
    if fewest < cv:
        raise EvaluationError(
            f"A class (or the cases with or without an event) has {fewest} cases or groups to "
            f"fill {cv} folds; take fewer folds or more cases."
        )
    alone = len(np.unique(of_rows)) == len(of_rows)
    to_keep = None if alone else of_rows
    folds = (StratifiedKFold if alone else StratifiedGroupKFold)(
        cv, shuffle=True, random_state=seed
    )
    for train, test in folds.split(strata, strata, to_keep):
        if len(np.unique(strata[train])) < len(present) or not len(test):
            raise EvaluationError(
                f"{cv} folds leave a class out of the training folds; take fewer folds."
            )
        yield rows[train], rows[test]


def _choose_c(
    problem: _Problem,
    x: np.ndarray,
    units: np.ndarray,
    rows: np.ndarray,
    cv: int,
    cs: np.ndarray,
    seed: int,
) -> float:
    """Choose C by cross-validation within `rows`."""
    folds = np.empty(len(x), dtype=np.int64)
    scores = np.empty((len(cs), len(x), problem.n_scores))
    for number, (train, test) in enumerate(_split(problem, units, rows, cv, seed)):
        folds[test] = number
        layers = problem.fit(x[train], problem.target[train], [float(c) for c in cs])
        for of_c, layer in zip(scores, layers, strict=True):
            of_c[test] = layer(x[test])
    statistic = next(iter(problem.statistics.values()))
    values = [
        exact(statistic(problem.target[rows], of_c[rows], folds[rows]), len(rows))
        for of_c in scores
    ]
    if np.isnan(values).any():
        raise EvaluationError("No two cases of a fold can be compared; take fewer folds.")
    return float(cs[int(np.argmax(values))])


# --- how well ------------------------------------------------------------------------------


def _figures(
    problem: _Problem,
    scores: np.ndarray,
    folds: np.ndarray,
    units: np.ndarray,
    cv: int,
    seed: int,
    data: str,
) -> tuple[Figure, ...]:
    figures = []
    for name, make in problem.statistics.items():
        statistic = make(problem.target, scores, folds)
        estimate = bootstrap(statistic, len(scores), seed=seed, groups=units)
        pairs = ", pairs within a fold" if name in ("auc", "c_index") else ""
        figures.append(
            Figure(
                statistic=name,
                value=estimate.value,
                ci_low=estimate.low,
                ci_high=estimate.high,
                n=len(scores),
                data=data,
                method=f"nested {cv}-fold cross-validation{pairs}; {N_RESAMPLES} bootstrap "
                f"resamples, seed {seed}",
            )
        )
    return tuple(figures)


def _card(found: dict[str, Any], facts: Mapping[str, Any]) -> HeadCard:
    if told := [key for key in facts if key in found and key != "classes"]:
        raise HeadInvalidError(f"{', '.join(told)} of a fitted head cannot be given; leave it out.")
    given = {key: value for key, value in facts.items() if key != "data"}
    n_classes = len(found.get("classes", ()))
    if "classes" in given and len(given["classes"]) != n_classes:
        raise HeadInvalidError(
            f"{len(given['classes'])} names were given to {n_classes} classes; name all of them."
        )
    try:
        return HeadCard(**(found | given))
    except (ValidationError, TypeError) as error:
        problem = " ".join(str(error).split())
        raise HeadInvalidError(f"The card of the head cannot be made: {problem}.") from error
