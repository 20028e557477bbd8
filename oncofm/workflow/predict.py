"""What heads say: about the lesions of a case, and about a table that an earlier run wrote."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from oncofm.biomarkers.head import Head, require_fit
from oncofm.biomarkers.predictions import (
    OUTLIER_PERCENTILE,
    PREDICTION_COLUMNS,
    Prediction,
    predict_lesions,
    prediction_rows,
)
from oncofm.errors import HeadMismatchError, InputNotFoundError
from oncofm.notices import Notice
from oncofm.results.table import FEATURE_PREFIX, ResultTable, table_from_rows
from oncofm.workflow.case import CaseOutcome, LesionOutcome

_MADE_FROM = ("model", "profile", "weights_sha256")
_FEATURE = re.compile(re.escape(FEATURE_PREFIX) + r"(\d+)")


def predict_case(outcome: CaseOutcome, heads: Sequence[Head]) -> CaseOutcome:
    """Let heads speak about every lesion of a case that is done.

    Parameters
    ----------
    outcome : CaseOutcome
        With features.
    heads : sequence of Head
        Made for these features; see `oncofm.biomarkers.head.require_fit`.

    Returns
    -------
    CaseOutcome
        The same with `LesionOutcome.predictions`, and with the notice ``out_of_distribution``
        where a lesion is unlike what a head was trained on.
    """
    lesions = (_predict_lesion(lesion, heads) for lesion in outcome.lesions)
    return replace(outcome, lesions=tuple(lesions))


def _predict_lesion(lesion: LesionOutcome, heads: Sequence[Head]) -> LesionOutcome:
    if lesion.features is None:
        return lesion
    shifted = [] if lesion.shifted is None else [lesion.shifted]
    predictions = [predict_lesions(head, lesion.features[None], shifted)[0] for head in heads]
    notices = [
        _outlier_notice(lesion, prediction) for prediction in predictions if prediction.is_outlier
    ]
    return replace(
        lesion,
        predictions=tuple(predictions),
        notices=(*lesion.notices, *notices),
        shifted=None,  # they have said what they can; kept, they would fill the memory
    )


def _outlier_notice(lesion: LesionOutcome, prediction: Prediction) -> Notice:
    return Notice(
        "out_of_distribution",
        f"The features of lesion {lesion.seed.lesion_id} are farther from the training data of "
        f"head {prediction.card.name} than {OUTLIER_PERCENTILE:g} % of such features; its "
        "prediction cannot be relied on.",
    )


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
    in_folder = path / "features.parquet"
    table = _read(in_folder if in_folder.exists() else path)
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
    for head in heads:
        if head.card.model != model:
            raise HeadMismatchError(
                f"Head {head.card.name} is for the model {head.card.model}, not {model}."
            )
        require_fit(head, weights_sha256, profile, len(names))
    by_head = [_rows_of_head(head, features, present) for head in heads]
    rows: list[int] = []
    said: list[dict] = []
    for row, of_row in enumerate(zip(*by_head, strict=True)):
        outputs = [output for of_head in of_row for output in of_head]
        rows += [row] * len(outputs)
        said += outputs
    return ResultTable(
        columns=identities.take(pa.array(rows, pa.int64())),
        trailing=table_from_rows(said, PREDICTION_COLUMNS),
    )


def _rows_of_head(head: Head, features: np.ndarray, present: np.ndarray) -> list[list[dict]]:
    """Of each lesion a row per output, or one without a prediction where it has no features."""
    predictions = iter(predict_lesions(head, features[present]) if present.any() else ())
    absent = [{"head": head.card.name}]
    return [
        list(prediction_rows(next(predictions))) if has_features else absent
        for has_features in present.tolist()
    ]


def _read(path: Path) -> pa.Table:
    is_divided = path.is_dir() and path.suffix == ".parquet"  # see oncofm.results.table_files
    if not (path.is_file() or is_divided):
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
