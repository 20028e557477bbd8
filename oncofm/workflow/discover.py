"""From the inputs to cases: which volumes there are, and which lesions belong to which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oncofm.errors import (
    InputNotFoundError,
    NoSeedsError,
    Rejected,
    RTStructUnsupportedError,
    SeedsElsewhereError,
)
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.imaging.formats import is_volume_file
from oncofm.imaging.scan import InstanceRecord, SeriesRecord, SkippedFile, scan_dicom
from oncofm.seeds.dicom_seg import read_seg
from oncofm.seeds.references import VolumeRecord, choose_volume
from oncofm.workflow.assign import assign_seed_file
from oncofm.workflow.case import Case, InputVerdict
from oncofm.workflow.drafts import Draft, Pool, find_volumes
from oncofm.workflow.settings import Settings


@dataclass(frozen=True)
class Worklist:
    """What there is to do.

    Attributes
    ----------
    cases : tuple of Case
        In the order of the scan; also those that are rejected already.
    verdicts : tuple of InputVerdict
        Series and broken files that are no cases.
    skipped : tuple of SkippedFile
        Files that are no DICOM.
    """

    cases: tuple[Case, ...]
    verdicts: tuple[InputVerdict, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()


def discover(inputs: Sequence[Path], seeds: Path | None, settings: Settings) -> Worklist:
    """Find the cases in the inputs.

    Parameters
    ----------
    inputs : sequence of pathlib.Path
        Folders, zip archives, DICOM files, or volume files (NIfTI, NRRD, MetaImage).
    seeds : pathlib.Path or None
        Seed table or label mask. None reads the DICOM SEGs among the inputs.
    settings : Settings
        How SEGs become seeds.

    Returns
    -------
    Worklist
        Everything that was seen is in it.

    Raises
    ------
    InputNotFoundError
        If an input does not exist.
    SeedTableError
        If the seed table cannot be read at all.
    """
    for path in inputs:
        if not path.exists():
            raise InputNotFoundError(f"{path} does not exist; name a folder, file or zip archive.")
    files = [path for path in inputs if path.is_file() and is_volume_file(path)]
    scan = scan_dicom([path for path in inputs if path not in files])
    pool = find_volumes(scan.series, files)
    segs = [instance for series in scan.of_modality("SEG") for instance in series.instances]

    orphans: list[Draft] = []
    verdicts = list(_other_series(scan.series))
    if seeds is None:
        records = _records(pool)
        orphans = [orphan for seg in segs for orphan in _assign_seg(seg, pool, records, settings)]
    else:
        verdicts += [_seg_not_asked(seg) for seg in segs]
        orphans = assign_seed_file(seeds, pool, settings)
        verdicts += _leave_out_unasked(pool)
    broken = [file for file in scan.skipped if file.error is not None]
    verdicts += pool.left_out.values()
    verdicts += [
        InputVerdict("file", file.name, file.error) for file in broken if file.error is not None
    ]
    return Worklist(
        cases=tuple(draft.finish() for draft in (*pool.drafts.values(), *orphans)),
        verdicts=tuple(verdicts),
        skipped=tuple(file for file in scan.skipped if file.error is None),
    )


# --- what is no case ----------------------------------------------------------------------


def _other_series(series: Sequence[SeriesRecord]) -> Iterator[InputVerdict]:
    for record in series:
        if record.modality == "RTSTRUCT":
            error = RTStructUnsupportedError(
                f"Series {record.series_uid} is an RTSTRUCT, which this version does not read; "
                "convert its contours to a DICOM SEG."
            )
            yield InputVerdict("series", record.series_uid, error, "RTSTRUCT", record.study_uid)


# --- DICOM SEG ----------------------------------------------------------------------------


def _assign_seg(
    instance: InstanceRecord, pool: Pool, records: Sequence[VolumeRecord], settings: Settings
) -> list[Draft]:
    """Hand the lesions of a SEG to its case, or return them as a case without a volume."""
    orphan = Draft(
        case_id=instance.sop_instance_uid,
        study_uid=instance.study_uid,
        series_uid=instance.series_uid,
        modality="SEG",
    )
    try:
        seg = read_seg(
            instance.source,
            per=settings.per,
            threshold=settings.seg_threshold,
            min_volume_mm3=settings.min_volume_mm3,
        )
        orphan.lesions.extend(seg.seeds)
        unusable = {uid: verdict.error for uid, verdict in pool.left_out.items()}
        for draft in pool.drafts.values():
            if draft.error is not None and draft.series_uid in seg.groups[0].reference.series_uids:
                draft.lesions.extend(seg.seeds)
                return []
        chosen = choose_volume(seg.groups[0].reference, records, unusable)
    except Rejected as error:
        orphan.error = error
        return [orphan]
    draft = pool.drafts[chosen.volume.volume_id]
    draft.lesions.extend(seg.seeds)
    draft.notices.extend(chosen.notices)
    return []


def _records(pool: Pool) -> list[VolumeRecord]:
    return [
        VolumeRecord(
            volume_id=volume.volume_id,
            series_uid=volume.series_uid,
            frame_of_reference_uid=volume.frame_of_reference_uid,
            sop_instance_uids=frozenset(frame.instance.sop_instance_uid for frame in volume.frames),
        )
        for volume in pool.volumes.values()
        if isinstance(volume, DicomSeries)
    ]


# --- seeds given --------------------------------------------------------------------------


def _seg_not_asked(instance: InstanceRecord) -> InputVerdict:
    error = SeedsElsewhereError(
        f"SEG {instance.sop_instance_uid} was not read because --seeds names the lesions."
    )
    return InputVerdict("series", instance.series_uid, error, "SEG", instance.study_uid)


def _leave_out_unasked(pool: Pool) -> list[InputVerdict]:
    """Volumes that an explicit list of seeds does not name are not asked for."""
    unasked = [draft for draft in pool.drafts.values() if not draft.lesions]
    for draft in unasked:
        del pool.drafts[draft.case_id]
    return [
        InputVerdict(
            "series",
            draft.case_id,
            draft.error or NoSeedsError(f"No seed points at volume {draft.case_id}."),
            draft.modality,
            draft.study_uid,
        )
        for draft in unasked
    ]
