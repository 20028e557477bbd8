"""Outcomes as tables: ``features`` (one row per lesion done) and ``cases`` (everything seen)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from oncofm.results.manifest import Provenance
from oncofm.results.table import ResultTable, table_from_rows
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.workflow.case import CaseOutcome, InputVerdict, LesionOutcome

_LESION_COLUMNS: dict[str, type] = {
    "case_id": str,
    "study_uid": str,
    "series_uid": str,
    "lesion_id": str,
    "seed_source": str,
    "seg_uid": str,
    "seg_series_uid": str,
    "seed_file": str,
    "segment_number": int,
    "segment_label": str,
    "segment_description": str,
    "tracking_uid": str,
    "component": int,
    "seed_x_mm": float,
    "seed_y_mm": float,
    "seed_z_mm": float,
    "extent_x_mm": float,
    "extent_y_mm": float,
    "extent_z_mm": float,
    "volume_mm3": float,
    "padded_fraction": float,
    "warnings": str,
}
_CASE_COLUMNS: dict[str, type] = {
    "level": str,
    "case_id": str,
    "lesion_id": str,
    "state": str,
    "reason": str,
    "message": str,
    "n_lesions": int,
    "n_done": int,
    "modality": str,
    "study_uid": str,
    "series_uid": str,
    "seg_uid": str,
    "seed_file": str,
    "segment_number": int,
    "segment_label": str,
    "warnings": str,
}
_PROVENANCE_COLUMNS: dict[str, type] = dict.fromkeys(Provenance.model_fields, str)


def tabulate_features(
    outcomes: Sequence[CaseOutcome], provenance: Provenance, n_features: int
) -> ResultTable:
    """One row per lesion that has features, case by case.

    Parameters
    ----------
    outcomes : sequence of CaseOutcome
        What ran.
    provenance : Provenance
        Repeated in every row.
    n_features : int
        Number of feature columns, also if there is no row.
    """
    done = [(outcome, lesion) for outcome in outcomes for lesion in outcome.done]
    rows = [lesion_row(outcome, lesion) | provenance.model_dump() for outcome, lesion in done]
    vectors = [lesion.features for _, lesion in done if lesion.features is not None]
    features = np.stack(vectors) if vectors else np.empty((0, n_features), np.float32)
    return ResultTable(table_from_rows(rows, _LESION_COLUMNS | _PROVENANCE_COLUMNS), features)


def tabulate_predictions(outcomes: Sequence[CaseOutcome], provenance: Provenance) -> ResultTable:
    """One row per lesion, head and output: see `oncofm.biomarkers.predictions`.

    Parameters
    ----------
    outcomes : sequence of CaseOutcome
        What ran, with predictions.
    provenance : Provenance
        Repeated in every row.
    """
    from oncofm.biomarkers.predictions import PREDICTION_COLUMNS, prediction_rows

    rows = [
        lesion_row(outcome, lesion) | provenance.model_dump() | row
        for outcome in outcomes
        for lesion in outcome.done
        for prediction in lesion.predictions
        for row in prediction_rows(prediction)
    ]
    columns = _LESION_COLUMNS | PREDICTION_COLUMNS | _PROVENANCE_COLUMNS
    return ResultTable(table_from_rows(rows, columns))


def tabulate_cases(
    outcomes: Sequence[CaseOutcome], verdicts: Sequence[InputVerdict], provenance: Provenance
) -> ResultTable:
    """Every case, every lesion under its case, then every series and file that was left out."""
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        rows.append(_case_row(outcome))
        rows.extend(_case_lesion_row(outcome, lesion) for lesion in outcome.lesions)
    rows.extend(_verdict_row(verdict) for verdict in verdicts)
    rows = [row | provenance.model_dump() for row in rows]
    return ResultTable(table_from_rows(rows, _CASE_COLUMNS | _PROVENANCE_COLUMNS))


def join_warnings(lesion: LesionOutcome) -> str:
    """Put the sentences of all notices in one cell, each behind its code."""
    return "; ".join(f"{notice.code}: {notice.message}" for notice in lesion.notices)


def lesion_row(outcome: CaseOutcome, lesion: LesionOutcome) -> dict[str, Any]:
    """Describe a lesion, all but its state and its features."""
    seed = lesion.seed
    row = _case_identity(outcome) | _seed_identity(seed)
    row["padded_fraction"] = lesion.padded_fraction
    row["warnings"] = join_warnings(lesion)
    if isinstance(seed, Seed):
        row |= dict(zip(("seed_x_mm", "seed_y_mm", "seed_z_mm"), seed.position_mm, strict=True))
        row["volume_mm3"] = seed.volume_mm3
        if seed.extent_mm is not None:
            axes = ("extent_x_mm", "extent_y_mm", "extent_z_mm")
            row |= dict(zip(axes, seed.extent_mm, strict=True))
    return row


def _case_row(outcome: CaseOutcome) -> dict[str, Any]:
    notices = outcome.case.notices
    return _case_identity(outcome) | {
        "level": "case",
        "state": outcome.state.value,
        "reason": outcome.reason,
        "message": outcome.message,
        "n_lesions": len(outcome.lesions),
        "n_done": len(outcome.done),
        "modality": outcome.case.modality,
        "warnings": "; ".join(f"{notice.code}: {notice.message}" for notice in notices),
    }


def _case_lesion_row(outcome: CaseOutcome, lesion: LesionOutcome) -> dict[str, Any]:
    return (
        _case_identity(outcome)
        | _seed_identity(lesion.seed)
        | {
            "level": "lesion",
            "state": lesion.state.value,
            "reason": lesion.reason,
            "message": lesion.message,
            "modality": outcome.case.modality,
            "warnings": join_warnings(lesion),
        }
    )


def _verdict_row(verdict: InputVerdict) -> dict[str, Any]:
    return {
        "level": verdict.level,
        "case_id": verdict.name,
        "state": "rejected",
        "reason": verdict.error.code,
        "message": str(verdict.error),
        "modality": verdict.modality,
        "study_uid": verdict.study_uid,
        "series_uid": verdict.name if verdict.level == "series" else None,
    }


def _case_identity(outcome: CaseOutcome) -> dict[str, Any]:
    case = outcome.case
    return {
        "case_id": case.case_id,
        "study_uid": case.study_uid or None,
        "series_uid": case.series_uid or None,
    }


def _seed_identity(seed: Seed | RejectedSeed) -> dict[str, Any]:
    source = seed.source
    return {
        "lesion_id": seed.lesion_id,
        "seed_source": source.kind,
        "seg_uid": source.sop_instance_uid or None,
        "seg_series_uid": source.series_uid or None,
        "seed_file": source.file_name or None,
        "segment_number": source.segment_number,
        "segment_label": source.segment_label or None,
        "segment_description": source.segment_description or None,
        "tracking_uid": source.tracking_uid or None,
        "component": source.component,
    }
