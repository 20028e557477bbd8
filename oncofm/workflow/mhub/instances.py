"""Cases as mhubio instances, and instances of other origin as cases.

mhubio's modules hand files to each other: an instance per case, a typed file per image, mask or
list of points. Publishing ours lets modules of other origin work on them; adopting theirs lets
our seed extractor take the mask that, say, a segmentation model has just made.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from oncofm.imaging.dicom_series import DicomSeries
from oncofm.imaging.scan import InstanceRecord
from oncofm.imaging.sources import FileSource
from oncofm.imaging.volume import Volume
from oncofm.seeds.references import referenced_series
from oncofm.seeds.seed import Seed
from oncofm.workflow.case import Case
from oncofm.workflow.drafts import Pool
from oncofm.workflow.gather import Worklist
from oncofm.workflow.mhub.table import mhub_roi
from oncofm.workflow.structure import StructureFile, StructureInstance
from oncofm.workflow.survey import Annotation, Survey, draft_of, filed, is_image

_ANNOTATION_TYPES = {
    "seg": "dicomseg:mod=seg",
    "rtstruct": "rtstruct:mod=seg",
    "sr": "none:format=sr",
    "points": "json:type=fmcibcoordinates",
    "mask": "nifti:mod=seg",
    "table": "csv:type=seeds",
}
_SEEDS_TYPE = "json:type=fmcibcoordinates"
_VOLUME_TYPES = {".nrrd": "nrrd", ".nhdr": "nrrd", ".mha": "mha", ".mhd": "mha"}


def publish_cases(data: Any, survey: Survey, scratch: Path, id_name: str = "sid") -> None:
    """Make an mhubio instance of every case of a survey, with the files where they lie.

    Parameters
    ----------
    data : mhubio.core.DataHandler
        Receives the instances.
    survey : Survey
        Its cases; annotations are joined by the case or the series they name.
    scratch : pathlib.Path
        Folder for files that modules make.
    id_name : str
        Attribute that holds the case's id, besides ``id``.
    """
    from mhubio.core import Instance

    series_of = {
        annotation: referenced_series(annotation.origin.source)
        for annotation in survey.annotations
        if isinstance(annotation.origin, InstanceRecord)
    }
    for number, draft in enumerate(survey.pool.drafts.values(), start=len(data.instances) + 1):
        instance = Instance(path=str(scratch / str(number)))
        instance.attr |= {"id": draft.case_id, id_name: draft.case_id}
        data.addInstance(instance)
        if draft.volume is not None:
            _add_file(instance, *_place(draft.volume))
        for annotation in survey.annotations:
            named = series_of.get(annotation, frozenset())
            if annotation.case_id == draft.case_id or draft.series_uid in named:
                path = _file_of(annotation)
                _add_file(instance, path, _ANNOTATION_TYPES[annotation.kind])


def publish_seeds(data: Any, worklist: Worklist, scratch: Path) -> None:
    """Write the seeds of every case as a JSON list in MHub's form, for modules of other origin."""
    cases = {case.case_id: case for case in worklist.cases}
    for number, instance in enumerate(data.instances, start=1):
        case = cases.get(_case_id(instance))
        if case is None or not any(isinstance(lesion, Seed) for lesion in case.seeds):
            continue
        path = scratch / f"{number}-seeds.json"
        path.write_text(json.dumps(list(_points(case))), encoding="utf-8")
        _add_file(instance, path, _SEEDS_TYPE)


def publish_features(data: Any, files: dict[str, Path]) -> None:
    """Name every case's table of features, ``csv:features=fmcib``."""
    for instance in data.instances:
        if (path := files.get(_case_id(instance))) is not None:
            _add_file(instance, path, "csv:features=fmcib")


def adopt_instances(data: Any, survey: Survey | None) -> Survey:
    """Add what modules of other origin have put into the instances.

    Parameters
    ----------
    data : mhubio.core.DataHandler
        Its instances; files of the types ``nifti | nrrd | mha | dicom`` with ``mod=ct`` are
        volumes, masks (``mod=seg``), ``dicomseg``, ``rtstruct`` and
        ``json:type=fmcibcoordinates`` are annotations.
    survey : Survey or None
        What an importer of ours found.

    Returns
    -------
    Survey
        With their cases and annotations.
    """
    survey = survey or Survey(Pool({}, {}))
    known = {_file_of(annotation) for annotation in survey.annotations}
    drafts = dict(survey.pool.drafts)
    annotations = list(survey.annotations)
    for instance in data.instances:
        case_id = _case_id(instance)
        files = [file for file in _files(instance) if file.path not in known]
        if case_id not in drafts:
            images = tuple(file for file in files if is_image(file))
            drafts[case_id] = draft_of(StructureInstance(case_id, {}, images))
        for file in files:
            annotations += filed(file, drafts[case_id])
    pool = Pool(drafts, survey.pool.left_out)
    return replace(survey, pool=pool, annotations=tuple(annotations))


def _files(instance: Any) -> Iterable[StructureFile]:
    """Files of an instance that are there and that we know how to read."""
    for item in instance.data:
        file = StructureFile(
            Path(item.abspath), item.type.ftype.name.lower(), dict(item.type.meta.items())
        )
        is_points = file.file_type == "json" and file.meta.get("type") == "fmcibcoordinates"
        is_object = file.file_type in ("dicomseg", "rtstruct")
        is_voxels = file.meta.get("mod", "").lower() in ("ct", "seg")
        if (is_points or is_object or is_voxels) and file.path.exists():
            yield file


def _case_id(instance: Any) -> str:
    """Of mhubio's file importer the reference that the workflow chose; its ``id`` is random."""
    attributes = instance.attr
    return str(attributes.get("sid") or attributes.get("_ref") or attributes.get("id"))


def _points(case: Case) -> Iterable[dict[str, Any]]:
    for lesion in case.seeds:
        if isinstance(lesion, Seed):
            x, y, z = lesion.position_mm
            yield {"Mhub ROI": str(mhub_roi(lesion)), "coordX": x, "coordY": y, "coordZ": z}


def _place(volume: Volume) -> tuple[Path, str]:
    """Path and data type of a volume; of a DICOM series the folder of its first file."""
    if isinstance(volume, DicomSeries):
        return _path_of(volume.frames[0].instance).parent, "dicom:mod=ct"
    path: Path = getattr(volume, "path", Path(volume.volume_id))
    return path, f"{_VOLUME_TYPES.get(path.suffix.lower(), 'nifti')}:mod=ct"


def _file_of(annotation: Annotation) -> Path:
    origin = annotation.origin
    if isinstance(origin, InstanceRecord):
        return _path_of(origin)
    return origin if isinstance(origin, Path) else origin.path


def _path_of(instance: InstanceRecord) -> Path:
    source = instance.source
    return source.path if isinstance(source, FileSource) else Path(source.name)


def _add_file(instance: Any, path: Path, data_type: str) -> None:
    from mhubio.core import DataType, InstanceData

    item = InstanceData(
        str(path), DataType.fromString(data_type), instance=instance, auto_increment=False
    )
    item.confirm()
