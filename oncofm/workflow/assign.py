"""Which volume a given seed belongs to: rows of a seed table, labels of a mask file."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from oncofm.errors import (
    Rejected,
    SeedFileInvalidError,
    SeedOutsideVolumeError,
    SeriesAbsentError,
    SeriesAmbiguousError,
)
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.imaging.volume import Volume
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.seeds.table import SeedTable, read_seed_table
from oncofm.workflow.drafts import Draft, Pool
from oncofm.workflow.settings import Settings
from oncofm.workflow.survey import Annotation


def assign_file(annotation: Annotation, pool: Pool, settings: Settings) -> list[Draft]:
    """Hand the lesions of a seed table, a label mask or a point file to the cases of a pool.

    Parameters
    ----------
    annotation : Annotation
        Of kind ``table``, ``mask`` or ``points``.
    pool : Pool
        Its drafts receive the lesions.
    settings : Settings
        How a mask becomes seeds.

    Returns
    -------
    list of Draft
        Lesions that belong to no volume of the pool, as cases of their own.

    Raises
    ------
    SetupError
        If a table cannot be read as one.
    """
    if isinstance(annotation.origin, SeedTable):
        return _assign_table(annotation.origin, pool, annotation.case_id)
    assert isinstance(annotation.origin, Path), "DICOM objects are assigned by their references"
    path = annotation.origin
    if annotation.kind == "table":
        return _assign_table(read_seed_table(path), pool, annotation.case_id)
    orphan = Draft(case_id=path.name)
    try:
        lesions = _read(annotation.kind, path, settings)
    except Rejected as error:
        if annotation.case_id:
            _refuse(pool.drafts[annotation.case_id], error)
            return []
        orphan.error = error
        return [orphan]
    for lesion in lesions:
        try:
            _draft_of(annotation, path, lesion, pool).lesions.append(lesion)
        except Rejected as error:
            orphan.lesions.append(reject(lesion, error))
            orphan.error = error if len(orphan.lesions) == len(lesions) else None
    return [orphan] if orphan.lesions else []


def choose_draft(
    candidates: Sequence[Draft], position_mm: tuple[float, float, float], hint: str
) -> Draft:
    """Choose the case of a point that names a place but no volume.

    Parameters
    ----------
    candidates : sequence of Draft
        Cases at that place.
    position_mm : tuple of float
        LPS millimetres. Only decides between volumes of one series.
    hint : str
        What the user can do, for the sentence.

    Raises
    ------
    SeriesAbsentError
        If there is no candidate.
    SeriesAmbiguousError
        If there are several that the point does not tell apart: a guess might be another
        patient's scan.
    SeedOutsideVolumeError
        If a series has several volumes and the point is in none of them.
    """
    if not candidates:
        raise SeriesAbsentError(f"There is no CT volume for this seed in the input; {hint}.")
    if len(candidates) == 1:
        return candidates[0]
    if len({draft.series_uid for draft in candidates}) > 1:
        raise SeriesAmbiguousError(
            f"{len(candidates)} CT volumes could be meant by this seed; {hint}."
        )
    inside = [
        draft for draft in candidates if draft.volume and draft.volume.geometry.holds(position_mm)
    ]
    if len(inside) == 1:
        return inside[0]
    series_uid = candidates[0].series_uid
    if inside:
        raise SeriesAmbiguousError(
            f"{len(inside)} volumes of series {series_uid} hold this seed; give them as inputs "
            "of their own."
        )
    raise SeedOutsideVolumeError(
        f"The seed lies in none of the {len(candidates)} volumes of series {series_uid}; check "
        "that it is in LPS millimetres and belongs to this scan."
    )


def _read(kind: str, path: Path, settings: Settings) -> list[Seed | RejectedSeed]:
    """Read a mask or point file; every lesion knows which file it is from."""
    if not path.is_file():  # the scan saw it, so it is somewhere
        raise SeedFileInvalidError(f"{path.name} lies in an archive; unpack it to have it read.")
    if kind == "points":
        from oncofm.seeds.points import read_points

        lesions = read_points(path)
    else:
        from oncofm.seeds.label_mask import read_label_mask

        size = {"per": settings.per, "min_volume_mm3": settings.min_volume_mm3}
        lesions = read_label_mask(path, **size)
    return [
        replace(lesion, source=replace(lesion.source, file_name=path.name)) for lesion in lesions
    ]


def _draft_of(annotation: Annotation, path: Path, lesion: Seed | RejectedSeed, pool: Pool) -> Draft:
    """Find the case by the folder that the file was filed under, or by the file's name."""
    if annotation.case_id:
        return pool.drafts[annotation.case_id]
    name = path.name.removesuffix(".json").removesuffix(".mrk")
    drafts = list(pool.drafts.values())
    named = [draft for draft in drafts if name in (draft.series_uid, draft.case_id)]
    if not named and (annotation.by_name or _looks_like_uid(name)):
        raise SeriesAbsentError(
            f"{path.name} is not named after a CT series of the input; add the series, or name the "
            "file <SeriesInstanceUID>.json."
        )
    hint = f"give exactly one volume together with {path.name}, or name it after its series"
    return choose_draft(named or drafts, _position_mm(lesion), hint)


def _looks_like_uid(name: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+){2,}", name) is not None


def _position_mm(lesion: Seed | RejectedSeed) -> tuple[float, float, float]:
    return lesion.position_mm if isinstance(lesion, Seed) else (0.0, 0.0, 0.0)


def _refuse(draft: Draft, error: Rejected) -> None:
    """Let a file that cannot be read be seen in the case it was filed under."""
    draft.error = draft.error or error


def _assign_table(table: SeedTable, pool: Pool, case_id: str) -> list[Draft]:
    if case_id:
        pool.drafts[case_id].lesions.extend(table.seeds)
        return []
    orphans: dict[str, Draft] = {}
    for seed, image_path, series_uid in zip(
        table.seeds, table.image_paths, table.series_uids, strict=True
    ):
        place = series_uid or image_path
        candidates = [
            draft
            for draft in pool.drafts.values()
            if (not series_uid or draft.series_uid == series_uid)
            and (not image_path or _lies_at(draft, image_path, table.path.parent))
        ]
        try:
            if series_uid in pool.left_out and not candidates:
                raise pool.left_out[series_uid].error
            position_mm = _position_mm(seed)
            hint = f"add a column series_uid to {table.path.name}, or correct it"
            choose_draft(candidates, position_mm, hint).lesions.append(seed)
        except Rejected as error:
            orphan = orphans.setdefault(place, Draft(case_id=place or table.path.name))
            orphan.lesions.append(reject(seed, error))
    return list(orphans.values())


def reject(seed: Seed | RejectedSeed, error: Rejected) -> RejectedSeed:
    """Turn a seed down; one that already is keeps its own reason."""
    if isinstance(seed, RejectedSeed):
        return seed
    return RejectedSeed(seed.lesion_id, seed.source, error)


def _lies_at(draft: Draft, image_path: str, table_folder: Path) -> bool:
    """Whether a case's files lie at or below a path of a seed table."""
    places = [Path(image_path).resolve(), (table_folder / image_path).resolve()]
    return any(file.is_relative_to(place) for file in _files(draft.volume) for place in places)


def _files(volume: Volume | None) -> Iterable[Path]:
    if isinstance(volume, DicomSeries):
        return [Path(volume.frames[0].instance.source.name).resolve()]
    path = getattr(volume, "path", None)
    return [] if path is None else [path.resolve()]
