"""Predictions next to what came true: two tables joined by id.

Predictions come as ``oncofm`` writes them, a row per lesion, head and class (``head``, ``class``,
``probability``), or per lesion and head for survival (``head``, ``risk``); heads of another sort
in the same table, and other columns, are left out. Labels have a row per lesion: ``label``, or
``time`` and ``event``.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oncofm.errors import EvaluationError, InputNotFoundError

HEAD_COLUMN, CLASS_COLUMN = "head", "class"
PROBABILITY_COLUMN, RISK_COLUMN, VALUE_COLUMN = "probability", "risk", "value"
LABEL_COLUMN, TIME_COLUMN, EVENT_COLUMN = "label", "time", "event"

Columns = Mapping[str, Sequence[Any]]
"""Name to values, one per row; None or empty text where there is none."""


@dataclass(frozen=True, eq=False)
class ClassCohort:
    """Cases with a class, and what the models said.

    Attributes
    ----------
    classes : tuple of str
        In the order of the probabilities; of two, the second is the positive one.
    labels : numpy.ndarray
        Shape (n,) int64: index into `classes`.
    probabilities : dict of str to numpy.ndarray
        Shape (n, n_classes) float64 for each model.
    groups : numpy.ndarray or None
        Shape (n,) of text: the patient or scan of each case.
    n_unlabelled : int
        Cases with predictions but no label; they are left out.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: dict[str, np.ndarray]
    groups: np.ndarray | None
    n_unlabelled: int


@dataclass(frozen=True, eq=False)
class SurvivalCohort:
    """Cases with a survival time, and what the models said.

    Attributes
    ----------
    times : numpy.ndarray
        Shape (n,) float64, in the unit of the table.
    events : numpy.ndarray
        Shape (n,) float64: 1 where the event came, else 0.
    risks : dict of str to numpy.ndarray
        Shape (n,) float64 for each model.
    groups, n_unlabelled
        As of `ClassCohort`.
    """

    times: np.ndarray
    events: np.ndarray
    risks: dict[str, np.ndarray]
    groups: np.ndarray | None
    n_unlabelled: int


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Read a table of predictions or labels.

    Parameters
    ----------
    path : pathlib.Path
        ``.csv`` (UTF-8, commas) or ``.parquet``.

    Returns
    -------
    dict of str to list
        Columns in their order; the cells of a CSV file are text.

    Raises
    ------
    InputNotFoundError
        If the file does not exist.
    EvaluationError
        If it cannot be parsed or has no rows.
    """
    if not path.is_file():
        raise InputNotFoundError(f"The table {path} does not exist.")
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise EvaluationError(f"The table {path} is none of {', '.join(readers)}; convert it.")
    columns = readers[path.suffix.lower()](path)
    if not columns or not len(next(iter(columns.values()))):
        raise EvaluationError(f"The table {path} has no rows.")
    return columns


def class_cohort(
    predictions: Columns, labels: Columns, ids: Sequence[str], group: str | None = None
) -> ClassCohort:
    """Join probabilities with labels.

    Parameters
    ----------
    predictions : mapping of str to sequence
        With the columns of `ids`, ``head``, ``class`` and ``probability``.
    labels : mapping of str to sequence
        With the columns of `ids` and ``label``: the name of a class, or its number from 0.
    ids : sequence of str
        Columns that together name a case.
    group : str, optional
        Column of the labels that names the patient or scan.

    Raises
    ------
    EvaluationError
        If columns or values are missing, a case or a prediction comes twice, a labelled case has
        no prediction, or models have different classes.
    """
    _require(predictions, (*ids, HEAD_COLUMN, CLASS_COLUMN, PROBABILITY_COLUMN), "predictions")
    cases = _cases(labels, ids, LABEL_COLUMN)
    said = _by_model(predictions, ids, PROBABILITY_COLUMN)
    classes = _common_classes(said)
    found = {
        model: np.array([_values(table, cases, name, model) for name in classes]).T
        for model, table in said.items()
    }
    return ClassCohort(
        classes=classes,
        labels=_class_numbers(labels[LABEL_COLUMN], classes),
        probabilities=found,
        groups=_groups(labels, group),
        n_unlabelled=_n_unlabelled(predictions, ids, cases),
    )


def survival_cohort(
    predictions: Columns, labels: Columns, ids: Sequence[str], group: str | None = None
) -> SurvivalCohort:
    """Join risks with survival times.

    Parameters
    ----------
    predictions : mapping of str to sequence
        With the columns of `ids`, ``head`` and ``risk``.
    labels : mapping of str to sequence
        With the columns of `ids`, ``time`` and ``event``.
    ids, group
        As of `class_cohort`.

    Raises
    ------
    EvaluationError
        As `class_cohort`.
    """
    _require(predictions, (*ids, HEAD_COLUMN, RISK_COLUMN), "predictions")
    cases = _cases(labels, ids, TIME_COLUMN, EVENT_COLUMN)
    said = _by_model(predictions, ids, RISK_COLUMN)
    return SurvivalCohort(
        times=np.array([_number(value, TIME_COLUMN) for value in labels[TIME_COLUMN]]),
        events=np.array([_number(value, EVENT_COLUMN) for value in labels[EVENT_COLUMN]]),
        risks={model: _values(table, cases, "", model) for model, table in said.items()},
        groups=_groups(labels, group),
        n_unlabelled=_n_unlabelled(predictions, ids, cases),
    )


def values_by_head(
    predictions: Columns, ids: Sequence[str]
) -> dict[str, dict[tuple[tuple[str, ...], str], float]]:
    """Order what heads of any sort say by head, then by case and class ("" but for classes).

    Raises
    ------
    EvaluationError
        If columns are missing, a prediction comes twice or is no number, or a head has none.
    """
    numbers = [name for name in (RISK_COLUMN, VALUE_COLUMN) if name in predictions]
    if PROBABILITY_COLUMN in predictions or not numbers:
        _require(predictions, (*ids, HEAD_COLUMN, CLASS_COLUMN, PROBABILITY_COLUMN), "predictions")
        numbers.append(PROBABILITY_COLUMN)
    _require(predictions, (*ids, HEAD_COLUMN), "predictions")
    found = {head: said for name in numbers for head, said in _said(predictions, ids, name).items()}
    heads = dict.fromkeys(map(_text, predictions[HEAD_COLUMN]))
    for head in heads:
        if head not in found:
            raise EvaluationError(
                f"Head {head!r} of the predictions has no {', '.join(numbers)}; predict anew."
            )
    return {head: found[head] for head in heads}


# --- the parts of a join -------------------------------------------------------------------

_Case = tuple[str, ...]
_Said = dict[tuple[_Case, str], float]
"""What one model said of a case and a class ("" for survival)."""


def _require(columns: Columns, names: Sequence[str], what: str) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise EvaluationError(
            f"The table of {what} lacks {', '.join(missing)}; it has the columns "
            f"{', '.join(map(repr, columns)) or 'none'}."
        )
    if not len(columns[names[0]]):
        raise EvaluationError(f"The table of {what} has no rows.")


def _cases(labels: Columns, ids: Sequence[str], *needed: str) -> list[_Case]:
    _require(labels, (*ids, *needed), "labels")
    cases = _keys(labels, ids, "labels")
    seen: dict[_Case, int] = {}
    for row, case in enumerate(cases, start=1):
        if case in seen:
            raise EvaluationError(
                f"Rows {seen[case]} and {row} of the labels are the same case by "
                f"{', '.join(ids)}; remove one or name the columns that tell them apart."
            )
        seen[case] = row
    return cases


def _keys(columns: Columns, ids: Sequence[str], what: str) -> list[_Case]:
    keys = list(zip(*([_text(value) for value in columns[name]] for name in ids), strict=True))
    for row, key in enumerate(keys, start=1):
        if not all(key):
            raise EvaluationError(f"Row {row} of the {what} has no {', '.join(ids)}; fill it in.")
    return keys


def _by_model(predictions: Columns, ids: Sequence[str], value: str) -> dict[str, _Said]:
    said = _said(predictions, ids, value)
    if not said:
        raise EvaluationError(
            f"No head of the predictions has a {value}; give predictions that fit the labels."
        )
    return said


def _said(predictions: Columns, ids: Sequence[str], value: str) -> dict[str, _Said]:
    """Collect what heads say in the column `value`, without those that say nothing there."""
    keys = _keys(predictions, ids, "predictions")
    models = [_text(name) for name in predictions[HEAD_COLUMN]]
    classes = [""] * len(keys)
    if value == PROBABILITY_COLUMN:
        classes = [_text(name) for name in predictions[CLASS_COLUMN]]
    numbers = predictions[value]
    of_this_sort = {
        model for model, number in zip(models, numbers, strict=True) if _text(number) != ""
    }
    said: dict[str, _Said] = {}
    rows = zip(keys, models, classes, numbers, strict=True)
    for row, (case, model, name, number) in enumerate(rows, start=1):
        if model not in of_this_sort:
            continue
        table = said.setdefault(model, {})
        if (case, name) in table:
            raise EvaluationError(
                f"Row {row} of the predictions repeats a case of head {model!r} by "
                f"{', '.join(ids)}; remove it or name the columns that tell them apart."
            )
        table[case, name] = _number(number, value)
    return said


def _common_classes(said: dict[str, _Said]) -> tuple[str, ...]:
    orders = {tuple(dict.fromkeys(name for _, name in table)) for table in said.values()}
    if len(orders) > 1:
        raise EvaluationError(
            "The heads of the predictions have different classes; evaluate them one by one."
        )
    classes = orders.pop()
    if len(classes) < 2:
        raise EvaluationError("The predictions have one class only; each case needs all classes.")
    return classes


def _values(table: _Said, cases: list[_Case], name: str, model: str) -> np.ndarray:
    missing = [row for row, case in enumerate(cases, start=1) if (case, name) not in table]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(cases)} labelled cases have no prediction of head {model!r}, "
            f"the first in row {missing[0]} of the labels; predict them or remove their labels."
        )
    return np.array([table[case, name] for case in cases])


def _class_numbers(labels: Sequence[Any], classes: tuple[str, ...]) -> np.ndarray:
    texts = [_text(label) for label in labels]
    names = classes if set(texts) & set(classes) else tuple(map(str, range(len(classes))))
    for row, text in enumerate(texts, start=1):
        if text not in names:
            raise EvaluationError(
                f"The label of row {row} is no class of the predictions, which are "
                f"{', '.join(map(repr, classes))}; write a class, or all by number from 0."
            )
    return np.array([names.index(text) for text in texts])


def _groups(labels: Columns, group: str | None) -> np.ndarray | None:
    if group is None:
        return None
    _require(labels, (group,), "labels")
    return np.array([key[0] for key in _keys(labels, (group,), "labels")])


def _n_unlabelled(predictions: Columns, ids: Sequence[str], cases: list[_Case]) -> int:
    return len(set(_keys(predictions, ids, "predictions")) - set(cases))


def _text(value: Any) -> str:
    """Write a cell as text; whole numbers that a file kept as floats lose their point."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _number(value: Any, column: str) -> float:
    try:
        return float(value if value is not None and value != "" else "nan")
    except (TypeError, ValueError, OverflowError) as error:
        raise EvaluationError(
            f"The column {column} holds text that is no number; correct the table."
        ) from error


def _read_csv(path: Path) -> dict[str, list[Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"The table {path} is no UTF-8 CSV file: {error}.") from error
    if not rows:
        return {}
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise EvaluationError(f"The table {path} has a column twice.")
    for line, row in enumerate(rows[1:], start=1):
        if len(row) != len(names):
            raise EvaluationError(
                f"Row {line} of the table {path} has {len(row)} cells, the header {len(names)}."
            )
    return {name: [row[index] for row in rows[1:]] for index, name in enumerate(names)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise EvaluationError(f"The table {path} is no readable Parquet file.") from error
    return table.to_pydict()
