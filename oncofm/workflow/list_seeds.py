"""What says where lesions are, without running a model: a seed table, and pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oncofm.errors import Rejected
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.imaging.patch import outside_error
from oncofm.imaging.sources import FileSource, ZipMemberSource
from oncofm.imaging.volume import Volume
from oncofm.notices import Notice
from oncofm.results.files import prepare_output_folder
from oncofm.results.table import ResultTable, table_from_rows, write_table
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.workflow.case import Case, CaseOutcome, CaseState, InputVerdict, LesionOutcome, judge
from oncofm.workflow.gather import gather
from oncofm.workflow.settings import Settings
from oncofm.workflow.survey import survey_inputs
from oncofm.workflow.tabulate import join_warnings, lesion_row

_COLUMNS: dict[str, type] = {
    "image_path": str,
    "series_uid": str,
    "lesion_id": str,
    "label": str,
    "coordX": float,
    "coordY": float,
    "coordZ": float,
    "case_id": str,
    "study_uid": str,
    "seed_source": str,
    "seg_uid": str,
    "seed_file": str,
    "segment_number": int,
    "segment_description": str,
    "tracking_uid": str,
    "component": int,
    "extent_x_mm": float,
    "extent_y_mm": float,
    "extent_z_mm": float,
    "volume_mm3": float,
    "state": str,
    "reason": str,
    "message": str,
    "warnings": str,
    "overlay": str,
}


@dataclass(frozen=True)
class SeedListing:
    """What was found.

    Attributes
    ----------
    outcomes : tuple of CaseOutcome
        A lesion is ``done`` if its seed lies in its volume; there are no features.
    verdicts : tuple of InputVerdict
        What was seen and is no case.
    """

    outcomes: tuple[CaseOutcome, ...]
    verdicts: tuple[InputVerdict, ...]


def list_seeds(
    inputs: Sequence[Path],
    table: Path,
    settings: Settings,
    *,
    seeds: Path | None = None,
    overlays: Path | None = None,
) -> SeedListing:
    """Write the seeds of the inputs to a table, and a picture of each.

    Parameters
    ----------
    inputs : sequence of pathlib.Path
        Folders, zip archives or files. Never changed.
    table : pathlib.Path
        ``.csv`` or ``.parquet`` to write; it can be used as a seed table.
    settings : Settings
        Which annotations count, and how they become seeds.
    seeds : pathlib.Path or None
        What lists the lesions, as for `oncofm.workflow.job.run_job`.
    overlays : pathlib.Path or None
        Folder for a three-plane PNG per lesion.

    Returns
    -------
    SeedListing
        Every lesion, also those without a usable seed.

    Raises
    ------
    SetupError
        If an input is absent or an output cannot be written.
    """
    for folder in (table.parent, overlays):
        if folder is not None:
            prepare_output_folder(folder)
    worklist = gather(survey_inputs(inputs, seeds), settings)
    outcomes = [_look_at(case) for case in worklist.cases]
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        rows += _rows(outcome, overlays)
    write_table(ResultTable(table_from_rows(rows, _COLUMNS)), table)
    return SeedListing(tuple(outcomes), worklist.verdicts)


def _look_at(case: Case) -> CaseOutcome:
    return judge(case, tuple(_look_at_lesion(case, seed) for seed in case.seeds))


def _look_at_lesion(case: Case, seed: Seed | RejectedSeed) -> LesionOutcome:
    error: Rejected | None = seed.error if isinstance(seed, RejectedSeed) else case.error
    if error is None and isinstance(seed, Seed) and case.volume is not None:
        if case.volume.geometry.holds(seed.position_mm):
            return LesionOutcome(seed, CaseState.DONE, notices=(*case.notices, *seed.notices))
        error = outside_error(case.volume, seed.position_mm)
    assert error is not None, "a case has neither a volume nor an error"
    return LesionOutcome(seed, CaseState.REJECTED, error.code, str(error))


def _rows(outcome: CaseOutcome, overlays: Path | None) -> list[dict[str, Any]]:
    rows = []
    for number, lesion in enumerate(outcome.lesions, start=1):
        picture = None
        if overlays is not None and lesion.state is CaseState.DONE:
            lesion, picture = _draw(outcome.case, lesion, number, overlays)
        rows.append(_row(outcome, lesion, picture))
    return rows


def _row(outcome: CaseOutcome, lesion: LesionOutcome, picture: Path | None) -> dict[str, Any]:
    row = lesion_row(outcome, lesion)
    volume = outcome.case.volume
    return row | {
        "image_path": None if volume is None else str(_place(volume)),
        "label": row["segment_label"],
        "coordX": row.get("seed_x_mm"),
        "coordY": row.get("seed_y_mm"),
        "coordZ": row.get("seed_z_mm"),
        "state": "found" if lesion.state is CaseState.DONE else lesion.state.value,
        "reason": lesion.reason or None,
        "message": lesion.message or None,
        "warnings": join_warnings(lesion) or None,
        "overlay": None if picture is None else str(picture),
    }


def _draw(
    case: Case, lesion: LesionOutcome, number: int, folder: Path
) -> tuple[LesionOutcome, Path | None]:
    """Draw a lesion; what cannot be shown is said, and is no reason to drop it."""
    from oncofm.results.overlay import draw_overlay

    assert case.volume is not None
    assert isinstance(lesion.seed, Seed)
    name = re.sub(r"[^\w.#-]", "_", f"{case.case_id}-{number}-{lesion.seed.lesion_id}")
    path = folder / f"{name}.png"
    try:
        draw_overlay(case.volume, lesion.seed, path)
    except Rejected as error:
        path.unlink(missing_ok=True)
        notice = Notice("no_overlay", f"There is no picture of {lesion.seed.lesion_id}: {error}")
        return replace(lesion, notices=(*lesion.notices, notice)), None
    return lesion, path


def _place(volume: Volume) -> Path:
    """Where a volume lies: its file, the folder of its first slice, or its archive."""
    if not isinstance(volume, DicomSeries):
        return getattr(volume, "path", Path(volume.volume_id))
    source = volume.frames[0].instance.source
    if isinstance(source, FileSource):
        return source.path.parent
    if isinstance(source, ZipMemberSource):
        return Path(str(source.archive.filename))
    return Path(source.name)
