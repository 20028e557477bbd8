"""Fit a head to features and labels, and say how well such a head does on cases it never saw.

Nothing of a held-out case enters what it is predicted with: scaler, C and calibration are chosen
inside the training folds (nested cross-validation). Groups, such as patients, are never split.

`fit_head_validated` does it as published: C is chosen on a validation set. That is cheaper, but its
figures are those of the set that was chosen on.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oncofm.biomarkers.calibration import CalibrationMethod, method_for
from oncofm.biomarkers.checks import finite_matrix
from oncofm.biomarkers.folds import plain_folds, stratified_folds, unit_numbers
from oncofm.biomarkers.head import Head
from oncofm.biomarkers.make_head import Choice, HeldOut, Material, figures, make_head
from oncofm.biomarkers.metrics import exact
from oncofm.biomarkers.problem import Problem, Task, make_problem
from oncofm.biomarkers.training_cases import TrainingCases, require_disjoint
from oncofm.errors import EvaluationError

DEFAULT_FOLDS, DEFAULT_TRIALS = 10, 100

_C_RANGE = (1e-6, 1e3)
"""As published; drawn log-uniformly."""

_LARGEST_FEATURE = 1e100
"""Squares of larger ones, and their sums, are soon more than a float holds."""

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
    calibration: CalibrationMethod | None = None,
    cv: int = DEFAULT_FOLDS,
    n_trials: int = DEFAULT_TRIALS,
    seed: int = 0,
    settings: Mapping[str, float] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> FittedHead:
    """Fit a ridge model to standardised features; the scaler is folded into the head.

    C is drawn `n_trials` times, and the one that does best on held-out folds is taken, the
    smallest of equals: by AUC (binary), accuracy (multiclass) or C-index (survival). AUC and
    C-index compare cases of one fold only, since scores of different fits have different offsets;
    pooled, they are below 0.5 where there is nothing to find. Calibration and threshold come from
    the held-out scores of that C.

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
        gives names to the sorted classes. A binary head with a `direction` gets a threshold,
        unless that is given too.
    task : str
        ``binary`` and ``multiclass`` give a logistic head, ``survival`` a Cox head.
    groups : array_like, optional
        Shape (n,): cases of one group stay in one fold, and are resampled together.
    calibration : str, optional
        ``none``, ``platt`` or ``isotonic``; ``platt`` where there are probabilities, unless told.
    cv : int
        Folds, 3 or more; one less inside the training folds.
    n_trials, seed : int
        Values of C to try; of the trials, folds and bootstrap.
    settings : mapping of str to float, optional
        What else the card says about how the cases were chosen.
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
    x = _usable(features)
    material = Material(
        x=x,
        problem=make_problem(task, labels, len(x)),
        units=unit_numbers(groups, len(x)),
        method=method_for(task, calibration),
        seed=seed,
        data=str(facts.get("data", "")),
    )
    if cv < _MIN_FOLDS or n_trials < 1:
        raise EvaluationError(f"{cv} folds and {n_trials} trials were asked for; take 3 and 1.")
    cs, rows = _trials(n_trials, seed), np.arange(len(x))
    nested, predicted, chosen = _nested(material, cs, cv, advance)
    choice = _choose_c(material, _splits(material, rows, cv), cs)
    advance()
    measured = figures(
        material,
        nested,
        predicted,
        how=f"nested {cv}-fold cross-validation",
        calibrated="calibrated within the training folds",
    )
    head = make_head(
        material,
        choice,
        facts,
        rows=rows,
        folds=nested.folds,
        held_out=f"held-out cases ({cv}-fold cross-validation with this C)",
        settings={"C": choice.c, "cv": cv, "n_trials": n_trials, "seed": seed, **(settings or {})},
        n_groups=None if groups is None else len(np.unique(material.units)),
        measured={"cross_validated": measured},
    )
    return FittedHead(head, predicted, nested.folds, chosen)


def fit_head_validated(
    train: TrainingCases,
    validation: TrainingCases,
    facts: Mapping[str, Any],
    *,
    task: Task,
    calibration: CalibrationMethod | None = None,
    n_trials: int = DEFAULT_TRIALS,
    seed: int = 0,
    settings: Mapping[str, float] | None = None,
) -> Head:
    """Fit a head with the C, calibration and threshold that suit a validation set.

    Parameters
    ----------
    train, validation : TrainingCases
        To fit to, and to choose by; no case and no patient may be in both.
    facts, task, calibration, n_trials, seed, settings
        As of `fit_head`; the seed is of the trials and the bootstrap.

    Returns
    -------
    Head
        Its card holds the figures of the validation set.

    Raises
    ------
    EvaluationError
        If features or labels cannot be fitted to, or the two sets overlap.
    HeadInvalidError
        If the facts do not make a card.
    MissingExtraError
        Without scikit-learn.
    """
    require_disjoint(train, validation)
    x = _usable(np.concatenate([train.features, validation.features]))
    groups = None
    if train.groups is not None and validation.groups is not None:
        groups = [*train.groups, *validation.groups]
    material = Material(
        x=x,
        problem=make_problem(task, [*train.labels, *validation.labels], len(x)),
        units=unit_numbers(groups, len(x)),
        method=method_for(task, calibration),
        seed=seed,
        data=str(facts.get("data", "")),
    )
    if n_trials < 1:
        raise EvaluationError(f"{n_trials} trials were asked for; take 1 or more.")
    rows, others = np.split(np.arange(len(x)), [len(train.features)])
    _require_classes(material.problem, rows, others)
    choice = _choose_c(material, [(rows, others)], _trials(n_trials, seed))
    measured = figures(
        material,
        choice.seen,
        choice.predicted(material),
        how="validation set that C was chosen on, hence optimistic",
        calibrated="calibrated on it too",
    )
    return make_head(
        material,
        choice,
        facts,
        rows=rows,
        folds=plain_folds(material.units[rows], DEFAULT_FOLDS, seed),
        held_out="the validation set",
        settings={
            "C": choice.c,
            "n_trials": n_trials,
            "n_validation": len(others),
            "seed": seed,
            **(settings or {}),
        },
        n_groups=None if groups is None else len(np.unique(material.units[rows])),
        measured={"validation": measured},
    )


# --- the choice of C -----------------------------------------------------------------------

_Splits = Iterable[tuple[np.ndarray, np.ndarray]]
"""Rows to train with, and rows to hold out."""


def _trials(n_trials: int, seed: int) -> np.ndarray:
    low, high = (math.log(c) for c in _C_RANGE)
    return np.sort(np.exp(np.random.default_rng(seed).uniform(low, high, n_trials)))


def _splits(material: Material, rows: np.ndarray, cv: int) -> _Splits:
    return stratified_folds(material.problem.strata, material.units, rows, cv, material.seed)


def _choose_c(material: Material, splits: _Splits, cs: np.ndarray) -> Choice:
    """Choose the C that does best on what is held out, the smallest of equals."""
    problem, x = material.problem, material.x
    rows, folds, scores = [], [], []
    for number, (train, test) in enumerate(splits):
        layers = problem.fit(x[train], problem.target[train], [float(c) for c in cs])
        rows.append(test)
        folds.append(np.full(len(test), number))
        scores.append(np.stack([layer(x[test]) for layer in layers]))
    order = np.argsort(np.concatenate(rows))
    of_rows, of_folds = (np.concatenate(parts)[order] for parts in (rows, folds))
    of_cs = np.concatenate(scores, axis=1)[:, order]
    statistic = next(iter(problem.ranks.values()))
    values = [
        exact(statistic(problem.target[of_rows], of_c, of_folds), len(of_rows)) for of_c in of_cs
    ]
    if np.isnan(values).any():
        raise EvaluationError(
            "No two held-out cases can be compared; take fewer folds, or more cases to validate on."
        )
    best = int(np.argmax(values))
    return Choice(float(cs[best]), HeldOut(of_rows, of_folds, of_cs[best]))


def _nested(
    material: Material, cs: np.ndarray, cv: int, advance: Callable[[], None]
) -> tuple[HeldOut, np.ndarray, tuple[float, ...]]:
    """Hold out every case from all that it is predicted with; also what is predicted, and C."""
    problem, x = material.problem, material.x
    rows = np.arange(len(x))
    folds = np.empty(len(x), dtype=np.int64)
    scores = np.empty((len(x), problem.n_scores))
    predicted = np.empty((len(x), problem.n_outputs))
    chosen = []
    for number, (train, test) in enumerate(_splits(material, rows, cv)):
        choice = _choose_c(material, _splits(material, train, cv - 1), cs)
        (layer,) = problem.fit(x[train], problem.target[train], [choice.c])
        folds[test], scores[test] = number, layer(x[test])
        predicted[test] = choice.predicted(material, scores[test])
        chosen.append(choice.c)
        advance()
    return HeldOut(rows, folds, scores), predicted, tuple(chosen)


def _usable(features: np.ndarray) -> np.ndarray:
    x = finite_matrix(features, "features")
    if (largest := float(np.abs(x).max())) > _LARGEST_FEATURE:
        raise EvaluationError(
            f"The features reach {largest:g}, which cannot be fitted to; compute them anew."
        )
    return x


def _require_classes(problem: Problem, rows: np.ndarray, others: np.ndarray) -> None:
    if absent := set(problem.strata[others]) - set(problem.strata[rows]):
        name = problem.names[min(absent)]
        raise EvaluationError(f"No training case is {name!r}, as some of the validation set are.")
