"""``<case>/features.csv``: the table that users of MHub's ``fmcib_radiomics`` read."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from oncofm.imaging.dicom_series import DicomSeries
from oncofm.results.table import ResultTable, table_from_rows, write_table
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.workflow.case import CaseOutcome

_OTHER_OUTPUTS = ("features.parquet", "features.csv", "cases.csv", "run.json", "skipped.csv")
_LONGEST_NAME = 255
_COLUMNS = {"Mhub ROI": str, "Centroid": str, "Image": str, "MHub Metadata": str}


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
    """
    target = output / folder_name(outcome.case.case_id) / "features.csv"
    features = [lesion.features for lesion in outcome.done if lesion.features is not None]
    if not features:
        target.unlink(missing_ok=True)
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = [_row(outcome, lesion.seed) for lesion in outcome.done]
    write_table(
        ResultTable(
            columns=table_from_rows([], {}),
            features=np.stack(features),
            trailing=table_from_rows(rows, _COLUMNS),
            feature_prefix="feature_",
        ),
        target,
    )
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


def _row(outcome: CaseOutcome, seed: Seed | RejectedSeed) -> dict[str, Any]:
    case, source = outcome.case, seed.source
    return {
        "Mhub ROI": str(mhub_roi(seed)),
        "Centroid": source.sop_instance_uid or f"{source.kind}:{seed.lesion_id}",
        "Image": case.series_uid if isinstance(case.volume, DicomSeries) else case.case_id,
        "MHub Metadata": f"type=fmcibcoordinates:origin={source.kind}",
    }
