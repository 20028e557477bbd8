"""What there is in the inputs: volumes, and the files that say where lesions are in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from oncofm.errors import (
    InputNotFoundError,
    SeedFileInvalidError,
    SeedsElsewhereError,
    SeriesAbsentError,
    SeriesAmbiguousError,
    SetupError,
    UnreadableFileError,
)
from oncofm.imaging.formats import is_volume_file
from oncofm.imaging.scan import (
    DicomScan,
    InstanceRecord,
    SeriesRecord,
    SkippedFile,
    scan_dicom,
)
from oncofm.seeds.table import SeedTable
from oncofm.workflow.case import InputVerdict
from oncofm.workflow.drafts import Draft, Pool, find_volumes
from oncofm.workflow.settings import SeedKind
from oncofm.workflow.structure import StructureFile, StructureInstance, match_structure

KIND_OF_MODALITY: dict[str, SeedKind] = {"SEG": "seg", "RTSTRUCT": "rtstruct", "SR": "sr"}
"""Modality (0008,0060) -> how its lesions are read, in the order of trust."""

_TABLE_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")
_VOLUME_TYPES = ("nrrd", "nifti", "mha")


@dataclass(frozen=True)
class Annotation:
    """A file or DICOM object that says where lesions are, not read yet.

    Attributes
    ----------
    kind : str
        How it is read: ``seg``, ``rtstruct``, ``sr``, ``points``, ``mask`` or ``table``.
    origin : InstanceRecord, pathlib.Path or SeedTable
        DICOM object, file, or a table that was read already.
    case_id : str
        The case that it was filed under. Empty: its references decide, or its name.
    by_name : bool
        A file that belongs to the series that it is named after, and to no other.
    """

    kind: SeedKind
    origin: InstanceRecord | Path | SeedTable
    case_id: str = ""
    by_name: bool = False

    @property
    def name(self) -> str:
        """For messages: SOP Instance UID or file name."""
        if isinstance(self.origin, Path):
            return self.origin.name
        if isinstance(self.origin, SeedTable):
            return self.origin.path.name
        return f"{self.kind.upper()} {self.origin.sop_instance_uid}"


@dataclass(frozen=True)
class Survey:
    """Everything that was seen in the inputs.

    Attributes
    ----------
    pool : Pool
        The volumes.
    annotations : tuple of Annotation
        What says where lesions are.
    verdicts : tuple of InputVerdict
        Series and broken files that are no cases.
    skipped : tuple of SkippedFile
        Files that are no DICOM.
    only_asked : bool
        The user listed the lesions: volumes that the list does not name are not asked for.
    """

    pool: Pool
    annotations: tuple[Annotation, ...] = ()
    verdicts: tuple[InputVerdict, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    only_asked: bool = False


def survey_inputs(inputs: Sequence[Path], seeds: Path | SeedTable | None = None) -> Survey:
    """Look at folders, archives and files; nothing but headers is read.

    Parameters
    ----------
    inputs : sequence of pathlib.Path
        Folders, zip archives, DICOM files, or volume files (NIfTI, NRRD, MetaImage).
    seeds : pathlib.Path, SeedTable or None
        Seed table (also one in memory), label mask, point file or DICOM object (or a folder of
        those) that lists the lesions. None takes the SEG, RTSTRUCT, SR and JSON files among the
        inputs.

    Returns
    -------
    Survey
        Everything that was seen is in it.

    Raises
    ------
    InputNotFoundError
        If an input does not exist.
    """
    for path in (*inputs, *([seeds] if isinstance(seeds, Path) else [])):
        _require(path)
    files = [path for path in inputs if path.is_file() and is_volume_file(path)]
    scan = scan_dicom([path for path in inputs if path not in files])
    return survey_scan(scan, files, seeds)


def _require(path: Path) -> None:
    try:
        exists = path.exists()
    except OSError as error:
        raise InputNotFoundError(
            f"{path} cannot be looked at ({error.strerror}); correct it, or mend the permissions "
            "of its folders."
        ) from error
    if not exists:
        raise InputNotFoundError(f"{path} does not exist; name a folder, file or zip archive.")


def survey_scan(
    scan: DicomScan, files: Sequence[Path] = (), seeds: Path | SeedTable | None = None
) -> Survey:
    """Survey what was scanned already.

    Parameters
    ----------
    scan : DicomScan
        Of the DICOM files among the inputs.
    files : sequence of pathlib.Path
        The volume files among them.
    seeds : pathlib.Path, SeedTable or None
        As for `survey_inputs`, or a table in memory.
    """
    pool = find_volumes(scan.series, files)
    found = _objects(scan.series)
    verdicts = [*pool.left_out.values(), *_broken(scan.skipped)]
    skipped = [file for file in scan.skipped if file.error is None]
    if seeds is None:
        points = [file for file in skipped if file.name.lower().endswith(".json")]
        skipped = [file for file in skipped if file not in points]
        found += [Annotation("points", Path(file.name), by_name=True) for file in points]
        return Survey(pool, tuple(found), tuple(verdicts), tuple(skipped))
    verdicts += [
        not_read(annotation.origin, annotation.kind, "--seeds names the lesions")
        for annotation in found
        if isinstance(annotation.origin, InstanceRecord)
    ]
    listed = [Annotation("table", seeds)] if isinstance(seeds, SeedTable) else annotations_at(seeds)
    return Survey(pool, tuple(listed), tuple(verdicts), tuple(skipped), only_asked=True)


def survey_structure(folder: Path, patterns: Sequence[str], import_id: str) -> Survey:
    """Look at a folder with one sub-folder per case, laid out as patterns say.

    Parameters
    ----------
    folder : pathlib.Path
        Holds the cases.
    patterns : sequence of str
        As for `oncofm.workflow.structure.match_structure`.
    import_id : str
        Name of the attribute that identifies a case.

    Returns
    -------
    Survey
        One case per instance; files that no pattern takes are in `Survey.skipped`.

    Raises
    ------
    InputNotFoundError
        If the folder does not exist.
    StructurePatternError
        If a pattern cannot be parsed.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"{folder} does not exist; name a folder with a case in each.")
    match = match_structure(folder, patterns, import_id)
    drafts: dict[str, Draft] = {}
    annotations: list[Annotation] = []
    for instance in match.instances:
        draft = drafts[instance.instance_id] = draft_of(instance)
        annotations += [found for file in instance.files for found in filed(file, draft)]
    skipped = tuple(SkippedFile(str(path), "not_in_structure") for path in match.unmatched)
    verdicts = [
        InputVerdict("file", folder_notice.message, UnreadableFileError(folder_notice.message))
        for folder_notice in match.notices
    ]
    return Survey(Pool(drafts, {}), tuple(annotations), tuple(verdicts), skipped)


def annotations_at(path: Path, case_id: str = "") -> list[Annotation]:
    """Find what a file, or a folder of DICOM objects, says about lesions.

    Parameters
    ----------
    path : pathlib.Path
        Mask, point file, table, or DICOM.
    case_id : str
        The case it was filed under, if it was.

    Returns
    -------
    list of Annotation
        Of a DICOM file or folder its SEG, RTSTRUCT and SR objects.

    Raises
    ------
    InputNotFoundError
        If there are none.
    """
    from oncofm.seeds.table import is_json_table

    name = path.name.lower()
    if is_volume_file(path):
        return [Annotation("mask", path, case_id)]
    if name.endswith(".json"):
        return [Annotation("table" if is_json_table(path) else "points", path, case_id)]
    if name.endswith(_TABLE_SUFFIXES):
        return [Annotation("table", path, case_id)]
    found = [
        Annotation(annotation.kind, annotation.origin, case_id)
        for annotation in _objects(scan_dicom(path).series)
    ]
    if not found:
        raise InputNotFoundError(
            f"{path} is neither a seed table, a label mask, a JSON file of points nor a DICOM "
            "SEG, RTSTRUCT or SR; name one of those."
        )
    return found


def filed(file: StructureFile, draft: Draft) -> list[Annotation]:
    """Find what a file in a case's folder says about lesions; if it is broken, the case is."""
    if is_image(file):
        return []
    try:
        return annotations_at(file.path, draft.case_id)
    except SetupError as error:
        draft.error = draft.error or SeedFileInvalidError(str(error))
        return []


def is_image(file: StructureFile) -> bool:
    """Whether a file of a structure is the case's volume, and no annotation."""
    modality = file.meta.get("mod", "").lower()
    if file.file_type in _VOLUME_TYPES:
        return modality != "seg"
    return file.file_type == "dicom" and modality not in ("seg", "rtstruct", "sr")


def not_read(instance: InstanceRecord, kind: SeedKind, because: str) -> InputVerdict:
    """Say that a DICOM object was seen and not read."""
    modality = kind.upper()
    error = SeedsElsewhereError(
        f"{modality} {instance.sop_instance_uid} was not read because {because}."
    )
    return InputVerdict("series", instance.series_uid, error, modality, instance.study_uid)


def _objects(series: Iterable[SeriesRecord]) -> list[Annotation]:
    return [
        Annotation(kind, instance)
        for modality, kind in KIND_OF_MODALITY.items()
        for record in series
        if record.modality == modality
        for instance in record.instances
    ]


def _broken(skipped: Iterable[SkippedFile]) -> list[InputVerdict]:
    return [InputVerdict("file", file.name, file.error) for file in skipped if file.error]


def draft_of(instance: StructureInstance) -> Draft:
    """Open the one volume of an instance; without one, or with several, the draft says so."""
    case_id = instance.instance_id
    images = [file for file in instance.files if is_image(file)]
    drafts: list[Draft] = []
    for image in images:
        pool = _look_at(image)
        drafts += pool.drafts.values()
        if not pool.drafts:
            errors = [verdict.error for verdict in pool.left_out.values()]
            absent = SeriesAbsentError(f"{image.path.name} of case {case_id} holds no CT volume.")
            drafts.append(Draft(case_id, error=errors[0] if errors else absent))
    if not drafts:
        error = SeriesAbsentError(
            f"Case {case_id} has no CT file; add it where the others have it."
        )
        return Draft(case_id, error=error)
    if len(drafts) > 1:
        names = ", ".join(sorted(image.path.name for image in images))
        error = SeriesAmbiguousError(
            f"Case {case_id} has {len(drafts)} CT volumes ({names}); keep one of them."
        )
        return Draft(case_id, error=error)
    return replace(drafts[0], case_id=case_id)


def _look_at(image: StructureFile) -> Pool:
    if image.file_type in _VOLUME_TYPES:
        return find_volumes((), (image.path,))
    return find_volumes(scan_dicom(image.path).series, ())
