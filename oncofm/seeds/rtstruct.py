"""Seeds from DICOM RT Structure Sets: closed axial contours, and single points."""

from dataclasses import replace

import numpy as np
import pydicom
from pydicom.uid import RTStructureSetStorage

from oncofm.errors import ContourUnsupportedError, Rejected, RTStructInvalidError
from oncofm.imaging.sources import Source
from oncofm.notices import Notice
from oncofm.seeds.annotation import AnnotationSeeds, SeedGroup
from oncofm.seeds.contours import Outlines, empty, outline_seeds, plane_spacing_mm
from oncofm.seeds.measure import Per
from oncofm.seeds.references import Reference
from oncofm.seeds.rtstruct_rois import (
    Contours,
    ReferencedFrame,
    Roi,
    check_complete,
    read_frames,
    read_rois,
    readable,
)
from oncofm.seeds.seed import RejectedSeed, Seed

_CLOSED_PLANAR = "CLOSED_PLANAR"
_CLOSED_PLANAR_XOR = "CLOSEDPLANAR_XOR"
_POINT = "POINT"
_OPEN = ("OPEN_PLANAR", "OPEN_NONPLANAR")
"""Contour Geometric Types (PS3.3 C.8.8.6.1)."""


def read_rtstruct(
    source: Source, *, per: Per = "segment", min_volume_mm3: float = 0.0
) -> AnnotationSeeds:
    """Read the lesions of a structure set.

    Contours are measured as polygons in the world (PS3.3 C.8.8.6), so the seeds need no image
    and no raster; see `oncofm.seeds.contours.outline_seeds` and `oncofm.seeds.polygons.enclosed`
    for how planes and overlapping contours combine.

    Parameters
    ----------
    source : Source
        The file.
    per : {"segment", "component"}
        One seed per ROI, or per connected part of it.
    min_volume_mm3 : float
        Smaller ROIs or parts count as empty. Points have no volume and always count.

    Returns
    -------
    AnnotationSeeds
        One group for the ROIs of each frame of reference and set of series drawn on; ids are
        ``roi-<ROI Number>``, in the order of the Structure Set ROI Sequence. An ROI that cannot
        be used is a `RejectedSeed` with `SegmentEmptyError`, `ContourUnsupportedError` or
        `RTStructInvalidError`. An ROI of one POINT is a seed without extent. Where points or
        contours of less than three points are left out, the notice is ``contours_left_out``.

    Raises
    ------
    RTStructInvalidError
        If the object as a whole cannot be read.
    """
    with readable(source.name), source.open() as file:
        dataset = pydicom.dcmread(file)
        name = f"RTSTRUCT {dataset.get('SOPInstanceUID', source.name)}"
        if dataset.get("SOPClassUID") != RTStructureSetStorage:
            raise RTStructInvalidError(f"{name} is no RT structure set by its SOP Class UID.")
    with readable(name):
        check_complete(dataset, name)
        frames = read_frames(dataset)
        rois = read_rois(dataset, name, frames)
        groups = _groups(rois, name, frames, per, min_volume_mm3)
        return AnnotationSeeds(
            sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
            series_uid=str(dataset.get("SeriesInstanceUID", "")),
            study_uid=str(dataset.get("StudyInstanceUID", "")),
            groups=groups,
        )


def _groups(
    rois: list[Roi],
    name: str,
    frames: dict[str, ReferencedFrame],
    per: Per,
    min_volume_mm3: float,
) -> tuple[SeedGroup, ...]:
    members: dict[tuple[str, frozenset[str]], list[Roi]] = {}
    for roi in rois:
        frame = frames.get(roi.frame_of_reference_uid, ReferencedFrame({}))
        series_uids = frame.series_of(roi.drawn_on_uids) or frozenset(frame.images)
        members.setdefault((roi.frame_of_reference_uid, series_uids), []).append(roi)
    groups = []
    for (frame_uid, _), group in members.items():
        frame = frames.get(frame_uid, ReferencedFrame({}))
        reference = Reference(
            name=name,
            frame_of_reference_uid=frame_uid,
            series_uids=frozenset(frame.images),
            sop_instance_uids=frozenset().union(*frame.images.values()),
            drawn_on_uids=frozenset().union(*(roi.drawn_on_uids for roi in group)),
        )
        spacing_mm = _spacing_mm(group)
        seeds = [seed for roi in group for seed in _seeds(roi, per, min_volume_mm3, spacing_mm)]
        groups.append(SeedGroup(reference, tuple(seeds)))
    return tuple(groups)


def _spacing_mm(rois: list[Roi]) -> float | None:
    """Slice spacing of the images, from all contours that were drawn on them."""
    heights_mm = [
        roi.contours.points_mm[roi.contours.starts[drawn], 2]
        for roi in rois
        if isinstance(roi.contours, Contours)
        for drawn in [~roi.contours.are(_POINT) & (roi.contours.lengths > 0)]
    ]
    return plane_spacing_mm(np.concatenate([np.empty(0), *heights_mm]))


def _seeds(
    roi: Roi, per: Per, min_volume_mm3: float, spacing_mm: float | None
) -> list[Seed | RejectedSeed]:
    try:
        if isinstance(roi.contours, Rejected):
            raise roi.contours
        return [*_usable_seeds(roi, roi.contours, per, min_volume_mm3, spacing_mm)]
    except Rejected as error:
        return [RejectedSeed(roi.lesion_id, roi.source, error)]


def _usable_seeds(
    roi: Roi, contours: Contours, per: Per, min_volume_mm3: float, spacing_mm: float | None
) -> list[Seed]:
    n_contours = len(contours.types)
    _check_types(roi.lesion_id, contours)
    points = contours.are(_POINT)
    if n_contours and points.all():
        return [_point_seed(roi, contours, min_volume_mm3)]
    closed = ~points & (contours.lengths > 2)
    if not closed.any():
        raise empty(roi.lesion_id, min_volume_mm3)
    outlines = Outlines(
        points_mm=contours.points_mm[np.repeat(closed, contours.lengths)],
        lengths=contours.lengths[closed],
        exclusive=contours.are(_CLOSED_PLANAR_XOR)[closed],
        lone_thickness_mm=contours.slab_thickness_mm or spacing_mm,
    )
    seeds = outline_seeds(outlines, per, roi.lesion_id, roi.source, min_volume_mm3)
    n_left_out = int(np.sum(~closed))
    if n_left_out == 0:
        return seeds
    message = (
        f"{n_left_out} of {n_contours} contours of {roi.lesion_id} are points or have "
        "less than three points; they were left out."
    )
    notice = Notice("contours_left_out", message)
    return [replace(seed, notices=(notice, *seed.notices)) for seed in seeds]


def _check_types(lesion_id: str, contours: Contours) -> None:
    n_contours = len(contours.types)
    n_open = int(contours.are(*_OPEN).sum())
    if n_open:
        raise ContourUnsupportedError(
            f"{n_open} of {n_contours} contours of {lesion_id} are open and enclose no volume; "
            "close them, or export the lesion as a SEG."
        )
    n_unknown = int((~contours.are(_CLOSED_PLANAR, _CLOSED_PLANAR_XOR, _POINT)).sum())
    if n_unknown:
        raise ContourUnsupportedError(
            f"{n_unknown} of {n_contours} contours of {lesion_id} are of an unknown geometric "
            f"type; export them as {_CLOSED_PLANAR}."
        )


def _point_seed(roi: Roi, contours: Contours, min_volume_mm3: float) -> Seed:
    points_mm = contours.points_mm
    if len(points_mm) == 0:
        raise empty(roi.lesion_id, min_volume_mm3)
    if len(points_mm) > 1:
        raise ContourUnsupportedError(
            f"{roi.lesion_id} consists of {len(points_mm)} separate points; export one ROI for "
            "each."
        )
    x, y, z = points_mm[0].tolist()
    return Seed(roi.lesion_id, (x, y, z), roi.source)
