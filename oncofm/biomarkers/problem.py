"""What differs between the tasks that a head can be fitted for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from oncofm.biomarkers.checks import finite_matrix
from oncofm.biomarkers.head import Layer
from oncofm.biomarkers.metrics import Statistic, brier_statistic, multiclass_brier_statistic
from oncofm.biomarkers.ridge import fit_cox, fit_logistic
from oncofm.biomarkers.survival import survival_times
from oncofm.biomarkers.within_folds import (
    accuracy,
    auc_within_folds,
    balanced_accuracy,
    c_index_within_folds,
)
from oncofm.errors import EvaluationError

Task = Literal["binary", "multiclass", "survival"]

_Ranks = Callable[[np.ndarray, np.ndarray, np.ndarray], Statistic]


@dataclass(frozen=True, eq=False)
class Problem:
    """A task with its labels.

    Attributes
    ----------
    task, kind : str
        Of the card.
    target : numpy.ndarray
        Shape (n,) int: number of the class; for survival (n, 2) float64: time, event.
    strata : numpy.ndarray
        Shape (n,) int: folds hold equal shares of each.
    names : tuple of str
        Of the strata, by number.
    n_scores, n_outputs : int
        Scores that the one layer of the head gives, and what is predicted from them.
    fit : callable
        From features, targets and ascending values of C to a layer for each C.
    ranks : dict of str to callable
        From targets, scores and folds to a statistic; the first one chooses C.
    brier : callable or None
        From targets and probabilities to a statistic, where there are probabilities.
    facts : dict
        For the card.
    """

    task: Task
    kind: Literal["logistic", "cox"]
    target: np.ndarray
    strata: np.ndarray
    names: tuple[str, ...]
    n_scores: int
    n_outputs: int
    fit: Callable[[np.ndarray, np.ndarray, Sequence[float]], list[Layer]]
    ranks: Mapping[str, _Ranks]
    brier: Callable[[np.ndarray, np.ndarray], Statistic] | None
    facts: dict[str, Any]

    def counts(self, rows: np.ndarray) -> dict[str, int]:
        """Count the cases of each class among `rows`, or those with and without an event."""
        found = np.bincount(self.strata[rows], minlength=len(self.names)).tolist()
        return dict(zip(self.names, found, strict=True))


def make_problem(task: Task, labels: Any, n_cases: int) -> Problem:
    """Read the labels of a task.

    Parameters
    ----------
    task : str
        ``binary``, ``multiclass`` or ``survival``.
    labels : array_like
        Shape (n_cases,): a class per case; for survival shape (n_cases, 2): time and event.
    n_cases : int
        How many there must be.

    Raises
    ------
    EvaluationError
        If the labels are no labels of that task.
    """
    return {"binary": _binary, "multiclass": _multiclass, "survival": _survival}[task](
        labels, n_cases
    )


def _binary(labels: Any, n_cases: int) -> Problem:
    names, target = _classes(labels, n_cases)
    if len(names) != 2:
        raise EvaluationError(f"There are {len(names)} classes; a binary head needs two.")
    return Problem(
        task="binary",
        kind="logistic",
        target=target,
        strata=target,
        names=names,
        n_scores=1,
        n_outputs=2,
        fit=fit_logistic,
        ranks={"auc": auc_within_folds},
        brier=lambda target, predicted: brier_statistic(target, predicted[:, 1]),
        facts={"classes": names},
    )


def _multiclass(labels: Any, n_cases: int) -> Problem:
    names, target = _classes(labels, n_cases)
    if len(names) < 3:
        raise EvaluationError(
            f"There are {len(names)} classes; a multiclass head needs three or more."
        )
    return Problem(
        task="multiclass",
        kind="logistic",
        target=target,
        strata=target,
        names=names,
        n_scores=len(names),
        n_outputs=len(names),
        fit=fit_logistic,
        ranks={"accuracy": accuracy, "balanced_accuracy": balanced_accuracy},
        brier=multiclass_brier_statistic,
        facts={"classes": names},
    )


def _survival(labels: Any, n_cases: int) -> Problem:
    outcomes = finite_matrix(labels, "survival times and events", n_cases)
    if outcomes.shape[1] != 2:
        raise EvaluationError(
            f"The labels have {outcomes.shape[1]} columns; survival needs a time and an event."
        )
    times, events = survival_times(*outcomes.T)
    return Problem(
        task="survival",
        kind="cox",
        target=np.column_stack([times, events]),
        strata=events.astype(np.int64),
        names=("censored", "event"),
        n_scores=1,
        n_outputs=1,
        fit=fit_cox,
        ranks={"c_index": c_index_within_folds},
        brier=None,
        facts={"quantity": "log hazard ratio", "direction": "higher_is_worse"},
    )


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
