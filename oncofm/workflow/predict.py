"""Predictions from a table of features that an earlier run wrote."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from oncofm.biomarkers.head import Head, require_fit
from oncofm.biomarkers.predictions import PREDICTION_COLUMNS, prediction_rows
from oncofm.errors import HeadMismatchError, InputNotFoundError
from oncofm.results.table import FEATURE_PREFIX, ResultTable, table_from_rows

_MADE_FROM = ("model", "profile", "weights_sha256")
_FEATURE = re.compile(re.escape(FEATURE_PREFIX) + r"(\d+)")


def predict_table(path: Path, heads: Sequence[Head]) -> ResultTable:
    """Apply heads to every lesion of a table of features.

    Parameters
    ----------
    path : pathlib.Path
        ``features.parquet`` or ``features.csv`` of a run, or the folder that holds one.
    heads : sequence of Head
        What to predict.

    Returns
    -------
    ResultTable
        The table's other columns, and those of `oncofm.biomarkers.predictions`; a row per
        lesion, head and output. A lesion without features has a row without a prediction.

    Raises
    ------
    InputNotFoundError
        If there is no such table.
    HeadMismatchError
        If the table does not say what its features are, or a head was made for others.
    """
    table = _read(path / "features.parquet" if path.is_dir() else path)
    numbers = [_FEATURE.fullmatch(name) for name in table.column_names]
    names = [match.group() for match in numbers if match]
    if names != [f"{FEATURE_PREFIX}{index}" for index in range(len(names))] or not names:
        raise HeadMismatchError(
            f"{path} does not hold the columns {FEATURE_PREFIX}0, {FEATURE_PREFIX}1 ... in their "
            "order; give the table of a run."
        )
    model, profile, weights_sha256 = (_only_value(table, name, path) for name in _MADE_FROM)
    features = np.column_stack(
        [table[name].cast(pa.float32()).to_numpy(zero_copy_only=False) for name in names]
    )
    present: np.ndarray = np.isfinite(features).min(axis=1)
    identities = table.drop_columns(names)
    rows: list[int] = []
    said: list[dict] = []
    for head in heads:
        if head.card.model != model:
            raise HeadMismatchError(
                f"Head {head.card.name} is for the model {head.card.model}, not {model}."
            )
        require_fit(head, weights_sha256, profile, len(names))
        predicted = iter(prediction_rows(head, features[present]) if present.any() else ())
        for row, has_features in enumerate(present.tolist()):
            outputs = next(predicted) if has_features else [{"head": head.card.name}]
            rows += [row] * len(outputs)
            said += outputs
    return ResultTable(
        columns=identities.take(pa.array(rows, pa.int64())),
        trailing=table_from_rows(said, PREDICTION_COLUMNS),
    )


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputNotFoundError(f"{path} does not exist; name the features of a run.")
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path)
        import pyarrow.csv as pcsv

        return pcsv.read_csv(path)
    except pa.ArrowException as error:
        raise InputNotFoundError(f"{path} is no readable table of features.") from error


def _only_value(table: pa.Table, name: str, path: Path) -> str:
    values = set(table[name].to_pylist()) - {None} if name in table.column_names else set()
    if len(values) != 1:
        found = "several values of" if values else "no"
        raise HeadMismatchError(
            f"{path} has {found} {name}; give the table of one run, whose features are alike."
        )
    return str(values.pop())
