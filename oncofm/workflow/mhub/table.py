"""``<case>/features.csv``: the table that users of MHub's ``fmcib_radiomics`` read."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from oncofm.errors import OutputNotWritableError
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.results.files import atomic_path
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.workflow.case import CaseOutcome

_OTHER_OUTPUTS = (
    "features.parquet",
    "features.csv",
    "predictions.csv",
    "cases.csv",
    "skipped.csv",
    "run.json",
)
_LONGEST_NAME = 255


def write_mhub_features(outcome: CaseOutcome, output: Path) -> Path | None:
    """Write ``<case id>/features.csv``: ``feature_0 ...``, then what the row is about.

    Parameters
    ----------
    outcome : CaseOutcome
        A case; lesions without features have no row.
    output : pathlib.Path
        Folder for the results.

    Returns
    -------
    pathlib.Path or None
        The file, or None if no lesion of the case has features. An older file is then removed:
        it would look like a result of this run.

    Raises
    ------
    OutputNotWritableError
        If the folder or the file cannot be written.
    """
    target = output / folder_name(outcome.case.case_id) / "features.csv"
    features = [lesion.features for lesion in outcome.done if lesion.features is not None]
    if not features:
        target.unlink(missing_ok=True)
        return None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputNotWritableError(
            f"Folder {target.parent} cannot be made ({error.strerror or error}); free space or "
            "choose another output, then run again."
        ) from error
    rows = [_row(outcome, lesion.seed) for lesion in outcome.done]
    with atomic_path(target) as temporary:
        _write_csv(np.stack(features), rows, temporary)
    return target


def folder_name(case_id: str) -> str:
    """Name a case's folder; that is its id, unless a hostile header makes that lead elsewhere."""
    is_name = Path(case_id).name == case_id and case_id not in ("..", *_OTHER_OUTPUTS)
    if is_name and len(case_id.encode()) <= _LONGEST_NAME:
        return case_id
    return "case-" + hashlib.sha256(case_id.encode()).hexdigest()[:16]


def mhub_roi(seed: Seed | RejectedSeed) -> str | int:
    """Say what ``Mhub ROI`` says: the label, or for points their place in the file, from 0."""
    source = seed.source
    unnamed = source.kind == "markup" or (source.kind == "json" and not source.segment_label)
    if unnamed and source.segment_number is not None:
        return source.segment_number - 1
    return source.segment_label or seed.lesion_id


def _write_csv(features: np.ndarray, rows: Sequence[dict[str, str]], path: Path) -> None:
    """Write a table of few rows; arrow's own writer takes 0.1 s for 4096 columns of any length."""
    n_features = features.shape[1]
    buffer = pa.py_buffer(np.ascontiguousarray(features, np.float32))
    values = pa.Array.from_buffers(pa.float32(), features.size, [None, buffer])
    # The fewest digits that read back to the same float32, as in features.csv of the run.
    texts = values.cast(pa.string()).to_pylist()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(f"feature_{number}" for number in range(n_features)), *rows[0]])
        for number, row in enumerate(rows):
            start = number * n_features
            writer.writerow([*texts[start : start + n_features], *row.values()])


def _row(outcome: CaseOutcome, seed: Seed | RejectedSeed) -> dict[str, str]:
    case, source = outcome.case, seed.source
    return {
        "Mhub ROI": str(mhub_roi(seed)),
        "Centroid": source.sop_instance_uid or f"{source.file_name}:{seed.lesion_id}",
        "Image": case.series_uid if isinstance(case.volume, DicomSeries) else case.case_id,
        "MHub Metadata": f"type=fmcibcoordinates:origin={source.kind}",
    }
