"""From a survey to cases: the lesions are read, and each is handed to its volume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from oncofm.errors import (
    NoSeedsError,
    Rejected,
    ReportInvalidError,
    SeedFileInvalidError,
    SetupError,
)
from oncofm.imaging.ct_frames import CTFrame
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.imaging.scan import InstanceRecord, SkippedFile
from oncofm.imaging.sources import Source
from oncofm.notices import Notice
from oncofm.seeds.annotation import AnnotationSeeds, SeedGroup
from oncofm.seeds.references import VolumeRecord, choose_volume
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.workflow.assign import assign_file
from oncofm.workflow.case import Case, InputVerdict
from oncofm.workflow.drafts import Draft, Pool
from oncofm.workflow.settings import Settings
from oncofm.workflow.survey import KIND_OF_MODALITY, Annotation, Survey, not_read

if TYPE_CHECKING:
    from oncofm.seeds.dicom_sr import ImagePlane

_OBJECT_KINDS = tuple(KIND_OF_MODALITY.values())


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


@dataclass
class _Gathering:
    """What has come together so far."""

    survey: Survey
    settings: Settings
    volumes: Sequence[VolumeRecord]
    segmentations: Mapping[str, Source]
    orphans: list[Draft] = field(default_factory=list)
    verdicts: list[InputVerdict] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)

    @property
    def pool(self) -> Pool:
        return self.survey.pool


def gather(survey: Survey, settings: Settings) -> Worklist:
    """Read the lesions of a survey and make its cases.

    Parameters
    ----------
    survey : Survey
        Its drafts receive the lesions.
    settings : Settings
        Which annotations count, and how they become seeds.

    Returns
    -------
    Worklist
        Every volume and every annotation of the survey is in it.

    Raises
    ------
    SetupError
        If a file that the user named cannot be read at all.
    """
    gathering = _Gathering(
        survey,
        settings,
        volumes=_records(survey.pool),
        segmentations=_sources(survey.annotations, "seg"),
        verdicts=list(survey.verdicts),
        skipped=list(survey.skipped),
    )
    for annotation in survey.annotations:
        if not _is_asked(annotation, survey, settings):
            _leave_unread(annotation, gathering)
        elif isinstance(annotation.origin, InstanceRecord):
            _assign_object(annotation, annotation.origin, gathering)
        else:
            _assign_file(annotation, gathering)
    for draft in survey.pool.drafts.values():
        if not (settings.seed_kinds or survey.only_asked):
            _keep_first_kind(draft)
        _keep_labels(draft, settings.labels)
    if survey.only_asked:
        gathering.verdicts += _leave_out_unasked(survey.pool)
    return Worklist(
        cases=tuple(d.finish() for d in (*survey.pool.drafts.values(), *gathering.orphans)),
        verdicts=tuple(gathering.verdicts),
        skipped=tuple(gathering.skipped),
    )


# --- what is read -------------------------------------------------------------------------


def _is_asked(annotation: Annotation, survey: Survey, settings: Settings) -> bool:
    if survey.only_asked:
        return True
    if settings.seed_kinds:
        return annotation.kind in settings.seed_kinds
    # A JSON file among the images may be anything; one in a case's own folder is meant.
    return annotation.kind in _OBJECT_KINDS or bool(annotation.case_id)


def _leave_unread(annotation: Annotation, gathering: _Gathering) -> None:
    if isinstance(annotation.origin, InstanceRecord):
        because = f"the lesions come from {', '.join(gathering.settings.seed_kinds)}"
        verdict = not_read(annotation.origin, annotation.kind, because)
        gathering.verdicts.append(verdict)
    else:
        gathering.skipped.append(SkippedFile(str(annotation.origin), _reason(annotation)))


def _reason(annotation: Annotation) -> str:
    """Why a file was passed over: one among the images may be anything, another was meant."""
    return "not_dicom" if annotation.by_name else "not_asked"


def _read_object(
    annotation: Annotation, instance: InstanceRecord, gathering: _Gathering
) -> AnnotationSeeds:
    settings = gathering.settings
    size = {"per": settings.per, "min_volume_mm3": settings.min_volume_mm3}
    if annotation.kind == "rtstruct":
        from oncofm.seeds.rtstruct import read_rtstruct

        return read_rtstruct(instance.source, **size)
    if annotation.kind == "sr":
        from oncofm.seeds.dicom_sr import read_sr

        return read_sr(
            instance.source,
            segmentations=gathering.segmentations,
            images=_image_planes(gathering.pool),
            threshold=settings.seg_threshold,
            **size,
        )
    from oncofm.seeds.dicom_seg import read_seg

    return read_seg(instance.source, threshold=settings.seg_threshold, **size)


# --- which volume -------------------------------------------------------------------------


def _assign_object(annotation: Annotation, instance: InstanceRecord, gathering: _Gathering) -> None:
    """Hand the lesions of a DICOM object to their cases, or make it a case without a volume."""
    orphan = Draft(
        case_id=instance.sop_instance_uid,
        study_uid=instance.study_uid,
        series_uid=instance.series_uid,
        modality=annotation.kind.upper(),
    )
    try:
        found = _read_object(annotation, instance, gathering)
    except ReportInvalidError as error:
        if not gathering.settings.seed_kinds and not gathering.survey.only_asked:
            # Dose reports and the like: nobody expects lesions in every SR of a study.
            uid, study_uid = instance.series_uid, instance.study_uid
            gathering.verdicts.append(InputVerdict("series", uid, error, "SR", study_uid))
            return
        orphan.error = error
    except Rejected as error:
        orphan.error = error
    else:
        for group in found.groups:
            try:
                _assign_group(group, annotation, gathering)
            except Rejected as error:
                orphan.error = error
                orphan.lesions.extend(group.seeds)
    if orphan.error is None:
        return
    if annotation.case_id:
        draft = gathering.pool.drafts[annotation.case_id]
        draft.error = draft.error or orphan.error
    else:
        gathering.orphans.append(orphan)


def _assign_file(annotation: Annotation, gathering: _Gathering) -> None:
    try:
        gathering.orphans += assign_file(annotation, gathering.pool, gathering.settings)
    except SetupError as error:
        if gathering.survey.only_asked:
            raise
        rejected = SeedFileInvalidError(str(error))
        if annotation.case_id:
            draft = gathering.pool.drafts[annotation.case_id]
            draft.error = draft.error or rejected
        else:  # found beside the images, for example inside an archive
            gathering.orphans.append(Draft(case_id=annotation.name, error=rejected))


def _assign_group(group: SeedGroup, annotation: Annotation, gathering: _Gathering) -> None:
    pool = gathering.pool
    if annotation.case_id:
        pool.drafts[annotation.case_id].lesions.extend(group.seeds)
        return
    for draft in pool.drafts.values():
        if draft.error is not None and draft.series_uid in group.reference.series_uids:
            draft.lesions.extend(group.seeds)
            return
    unusable = {uid: verdict.error for uid, verdict in pool.left_out.items()}
    chosen = choose_volume(group.reference, gathering.volumes, unusable)
    draft = pool.drafts[chosen.volume.volume_id]
    draft.lesions.extend(group.seeds)
    draft.notices.extend(notice for notice in chosen.notices if notice not in draft.notices)


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


def _sources(annotations: Sequence[Annotation], kind: str) -> dict[str, Source]:
    return {
        annotation.origin.sop_instance_uid: annotation.origin.source
        for annotation in annotations
        if annotation.kind == kind and isinstance(annotation.origin, InstanceRecord)
    }


def _image_planes(pool: Pool) -> "dict[str, ImagePlane]":
    """Where the slices lie, for reports that name a place in an image."""
    from oncofm.seeds.dicom_sr import ImagePlane

    return {
        _image_name(frame): ImagePlane(
            series_uid=volume.series_uid,
            frame_of_reference_uid=volume.frame_of_reference_uid,
            origin_mm=tuple(origin_mm.tolist()),
            column_step_mm=tuple(volume.geometry.column_step_mm.tolist()),
            row_step_mm=tuple(volume.geometry.row_step_mm.tolist()),
        )
        for volume in pool.volumes.values()
        if isinstance(volume, DicomSeries)
        for frame, origin_mm in zip(volume.frames, volume.geometry.origins_mm, strict=True)
    }


def _image_name(frame: CTFrame) -> str:
    """UID of the image, with the frame's number behind it where there are several."""
    uid = frame.instance.sop_instance_uid
    return f"{uid}#{frame.index + 1}" if frame.instance.n_frames > 1 else uid


# --- which lesions ------------------------------------------------------------------------


def _keep_first_kind(draft: Draft) -> None:
    """Of a lesion that SEG, RTSTRUCT and SR all describe, keep one description."""
    kinds = {lesion.source.kind for lesion in draft.lesions}
    first = next((kind for kind in _OBJECT_KINDS if kind in kinds), None)
    kept = [lesion for lesion in draft.lesions if lesion.source.kind == first]
    others = [
        lesion
        for lesion in draft.lesions
        if lesion.source.kind in _OBJECT_KINDS and lesion.source.kind != first
    ]
    if not others:
        return
    message = (
        f"{len(others)} lesions of {_kinds(others)} were left out because volume "
        f"{draft.case_id} has {_kinds(kept)}; choose another kind with --from."
    )
    draft.notices.append(Notice("other_annotations_left_out", message))
    draft.lesions[:] = [lesion for lesion in draft.lesions if lesion not in others]


def _kinds(lesions: Sequence[Seed | RejectedSeed]) -> str:
    return " and ".join(sorted({lesion.source.kind.upper() for lesion in lesions}))


def _keep_labels(draft: Draft, patterns: Sequence[str]) -> None:
    """Keep the lesions whose label matches one of the patterns, if there are any."""
    if not patterns or not draft.lesions:
        return
    wanted = [pattern.casefold() for pattern in patterns]
    kept = [
        lesion
        for lesion in draft.lesions
        if any(fnmatchcase(lesion.source.segment_label.casefold(), each) for each in wanted)
    ]
    n_left_out = len(draft.lesions) - len(kept)
    if not kept and draft.error is None:
        draft.error = NoSeedsError(
            f"None of the {n_left_out} labels of volume {draft.case_id} is asked for; look at "
            "them with `oncofm seeds` and correct --label."
        )
    if n_left_out:
        message = f"{n_left_out} lesions have a label that was not asked for."
        draft.notices.append(Notice("labels_left_out", message))
    draft.lesions[:] = kept


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
