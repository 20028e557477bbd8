"""What a head is fitted to: a table of features joined with a table of labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oncofm.biomarkers.cohort import EVENT_COLUMN, LABEL_COLUMN, TIME_COLUMN, Columns
from oncofm.biomarkers.folds import unit_numbers
from oncofm.errors import EvaluationError
from oncofm.results.table import FEATURE_PREFIX

_FACTS = ("model", "profile", "weights_sha256")


@dataclass(frozen=True, eq=False)
class TrainingCases:
    """Cases to fit a head to, in the order of the labels.

    Attributes
    ----------
    features : numpy.ndarray
        Shape (n, n_features) float64.
    labels : list
        Class per case; for survival, time and event.
    groups : list or None
        The patient of each case.
    facts : dict of str to str
        For the card, as far as the features name them: model, profile, weights_sha256.
    ids : list of tuple of str
        What names each case.
    n_unlabelled : int
        Cases with features but no label; they are left out.
    """

    features: np.ndarray
    labels: list[Any]
    groups: list[Any] | None
    facts: dict[str, str]
    ids: list[tuple[str, ...]]
    n_unlabelled: int


def join_cases(
    features: Columns, labels: Columns, ids: Sequence[str], task: str, group: str | None = None
) -> TrainingCases:
    """Join features with labels.

    Parameters
    ----------
    features : mapping of str to sequence
        With the columns of `ids` and ``pred_0``, ``pred_1`` ..., as ``oncofm run`` writes them.
    labels : mapping of str to sequence
        With the columns of `ids`, and ``label``; for the task ``survival`` ``time`` and ``event``.
    ids : sequence of str
        Columns that together name a case.
    task : str
        Of the head.
    group : str, optional
        Column of the labels that names the patient.

    Raises
    ------
    EvaluationError
        If columns or values are missing, a case comes twice, a labelled case has no features, or
        the features come from different models, profiles or weights.
    """
    wanted = (TIME_COLUMN, EVENT_COLUMN) if task == "survival" else (LABEL_COLUMN,)
    _require(labels, (*ids, *wanted, *([group] if group else [])), "labels")
    _require(features, (*ids, f"{FEATURE_PREFIX}0"), "features")
    rows = _rows_by_case(features, ids, "features")
    cases = _rows_by_case(labels, ids, "labels")
    if absent := [case for case in cases if case not in rows]:
        raise EvaluationError(
            f"{len(absent)} of {len(cases)} labelled cases have no features; remove their labels "
            "or compute their features."
        )
    columns = [labels[name] for name in wanted]
    return TrainingCases(
        features=_matrix(features)[[rows[case] for case in cases]],
        labels=list(zip(*columns, strict=True)) if len(columns) > 1 else _known(columns[0]),
        groups=None if group is None else list(labels[group]),
        facts={name: _one_value(features, name) for name in _FACTS if name in features},
        ids=list(cases),
        n_unlabelled=len(rows) - len(cases),
    )


def require_disjoint(train: TrainingCases, validation: TrainingCases) -> None:
    """Refuse sets that share a case or a patient.

    Raises
    ------
    EvaluationError
        With how many they share.
    """
    if shared := set(train.ids) & set(validation.ids):
        raise EvaluationError(
            f"{len(shared)} cases are in the training set and in the validation set; remove them "
            "from one."
        )
    if shared := set(map(str, train.groups or ())) & set(map(str, validation.groups or ())):
        raise EvaluationError(
            f"{len(shared)} patients are in the training set and in the validation set; remove "
            "them from one."
        )


def take_fraction(cases: TrainingCases, task: str, fraction: float, seed: int) -> TrainingCases:
    """Take a share of the cases, for a learning curve.

    Whole groups are taken, and equal shares of each class (of cases with and without an event).
    With the same seed a larger share holds a smaller one.

    Parameters
    ----------
    cases : TrainingCases
        To choose from.
    task : str
        Of the head.
    fraction : float
        Of the groups, or of the cases where there are none; above 0, up to 1.
    seed : int
        Of the choice.

    Raises
    ------
    EvaluationError
        If the fraction cannot be, or takes no case.
    """
    if not 0 < fraction <= 1:
        raise EvaluationError(f"The fraction {fraction:g} must lie above 0 and up to 1.")
    units = unit_numbers(cases.groups, len(cases.labels))
    kinds = [str(label[1] if task == "survival" else label) for label in cases.labels]
    of_unit: list[set[str]] = [set() for _ in range(int(units.max()) + 1)]
    for unit, kind in zip(units, kinds, strict=True):
        of_unit[unit].add(kind)
    taken = _spread([" ".join(sorted(found)) for found in of_unit], seed)
    taken = taken[: round(fraction * len(taken))]
    rows = np.flatnonzero(np.isin(units, taken))
    if not len(rows):
        raise EvaluationError(f"A fraction of {fraction:g} takes no case; take more.")
    return replace(
        cases,
        features=cases.features[rows],
        labels=[cases.labels[row] for row in rows],
        groups=None if cases.groups is None else [cases.groups[row] for row in rows],
        ids=[cases.ids[row] for row in rows],
    )


def _spread(strata: Sequence[str], seed: int) -> np.ndarray:
    """Order units at random so that every beginning holds equal shares of each stratum."""
    shuffled = np.random.default_rng(seed).permutation(len(strata))
    names = np.array(strata)[shuffled]
    place = np.empty(len(strata))
    for name in np.unique(names):
        of_name = np.flatnonzero(names == name)
        place[of_name] = (np.arange(len(of_name)) + 0.5) / len(of_name)
    return shuffled[np.argsort(place, kind="stable")]


def _require(columns: Columns, names: Sequence[str], what: str) -> None:
    if absent := [name for name in names if name not in columns]:
        raise EvaluationError(f"The {what} lack the column {', '.join(absent)}.")


def _rows_by_case(columns: Columns, ids: Sequence[str], what: str) -> dict[tuple[str, ...], int]:
    rows: dict[tuple[str, ...], int] = {}
    for row, values in enumerate(zip(*(columns[name] for name in ids), strict=True)):
        case = tuple("" if value is None else str(value).strip() for value in values)
        if not all(case):
            raise EvaluationError(f"Row {row + 1} of the {what} has no {' and '.join(ids)}.")
        if case in rows:
            raise EvaluationError(
                f"Rows {rows[case] + 1} and {row + 1} of the {what} name the same case; "
                "name cases by more columns, or remove one."
            )
        rows[case] = row
    return rows


def _matrix(features: Columns) -> np.ndarray:
    n_features = sum(name.startswith(FEATURE_PREFIX) for name in features)
    names = [f"{FEATURE_PREFIX}{number}" for number in range(n_features)]
    _require(features, names, "features")
    try:  # an empty cell becomes NaN, which is refused later
        parts = [np.array([_cell(value) for value in features[name]], float) for name in names]
    except (TypeError, ValueError, OverflowError) as error:
        raise EvaluationError("The features hold text that is no number.") from error
    return np.stack(parts, axis=1)


def _cell(value: Any) -> float:
    return float("nan") if value is None or value == "" else float(value)


def _known(labels: Sequence[Any]) -> list[Any]:
    """Empty cells of a CSV file are labels that are missing."""
    return [None if label == "" else label for label in labels]


def _one_value(features: Columns, name: str) -> str:
    values = {str(value) for value in features[name]}
    if len(values) > 1:
        raise EvaluationError(
            f"The features come from {len(values)} different values of {name}; never mix them."
        )
    return values.pop()
