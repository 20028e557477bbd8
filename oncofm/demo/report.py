"""Phantom lesions as a DICOM structured report (PS3.16 TID 1500), written by highdicom."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from oncofm.demo.encode import save
from oncofm.demo.headers import FIXED_DATE, FIXED_TIME, phantom_uid
from oncofm.demo.phantom import Lesion

Style = Literal["point", "ellipsoid", "polygon", "segment"]

_CORNERS = 64
"""Vertices of the outline of a lesion on one slice."""


def write_sr(
    path: Path,
    ct_files: Sequence[Path],
    lesions: Sequence[Lesion],
    *,
    style: Style,
    seg_file: Path | None = None,
    uid_seed: str = "sr",
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write a measurement report with one Measurement Group per lesion.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    ct_files : sequence of pathlib.Path
        The series that the lesions are in.
    lesions : sequence of Lesion
        Of the scene that was scanned.
    style : {"point", "ellipsoid", "polygon", "segment"}
        How to say where they are: a point in the patient (planar group, TID 1410); or, as
        volumetric groups (TID 1411), an ellipsoid, outlines on the slices, or segments 1, 2 ...
        of a SEG.
    seg_file : pathlib.Path or None
        The SEG, for ``segment``.
    uid_seed : str
        Series and instance UID follow from it.
    edit : callable or None
        ``edit(dataset)`` just before the file is written.

    Returns
    -------
    pathlib.Path
        The file.
    """
    cts = [pydicom.dcmread(file, stop_before_pixels=True) for file in ct_files]
    evidence = list(cts)
    if style == "segment":
        if seg_file is None:
            raise ValueError("a report of segments needs seg_file")
        evidence.append(pydicom.dcmread(seg_file))
    groups = [
        _GROUP_MAKERS[style](lesion, number, cts, evidence[-1])
        for number, lesion in enumerate(lesions, start=1)
    ]
    return write_report(path, evidence, groups, uid_seed=uid_seed, edit=edit)


def write_report(
    path: Path,
    evidence: Sequence[Dataset],
    groups: Sequence,
    *,
    uid_seed: str = "sr",
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write a Comprehensive 3D SR around measurement groups.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    evidence : sequence of pydicom.dataset.Dataset
        The images and segmentations that the groups refer to.
    groups : sequence
        highdicom's templates for TID 1410, 1411 or 1501.
    uid_seed, edit
        As for `write_sr`.

    Returns
    -------
    pathlib.Path
        The file.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=phantom_uid("device"), name="oncofm phantom"
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    dataset = hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        series_instance_uid=phantom_uid(uid_seed, "series"),
        series_number=20,
        sop_instance_uid=phantom_uid(uid_seed, "instance"),
        instance_number=1,
        manufacturer="oncofm",
        is_complete=True,
        series_description="Phantom measurements",
    )
    _make_reproducible(dataset)
    save(dataset, path)
    if edit is not None:  # read again, because highdicom's sequences take highdicom's items only
        dataset = pydicom.dcmread(path)
        edit(dataset)
        save(dataset, path)
    return path


def group_names(lesion: Lesion) -> dict:
    """Name a lesion as every group does, in keyword arguments of highdicom's templates."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=phantom_uid("tracking", lesion.label),
            identifier=f"oncofm phantom {lesion.label}",
        ),
        "finding_type": codes.SCT.Neoplasm,
        "finding_sites": [hd.sr.FindingSite(codes.SCT.Chest)],
    }


def outlines_mm(lesion: Lesion, cts: Sequence[Dataset]) -> list[np.ndarray]:
    """Outline a lesion on every slice that cuts it: LPS mm, shape (n, 3), first point = last."""
    return [outline_mm for ct in cts if (outline_mm := _outline_mm(lesion, ct)) is not None]


def _point_group(lesion: Lesion, number: int, cts: Sequence[Dataset], seg: Dataset):
    import highdicom as hd

    region = hd.sr.ImageRegion3D(
        graphic_type="POINT",
        graphic_data=np.array([lesion.centre_mm]),
        frame_of_reference_uid=cts[0].FrameOfReferenceUID,
    )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=region, **group_names(lesion)
    )


def _ellipsoid_group(lesion: Lesion, number: int, cts: Sequence[Dataset], seg: Dataset):
    ends_mm = np.repeat([lesion.centre_mm], 6, axis=0)
    ends_mm[0::2] -= np.diag(lesion.radii_mm)
    ends_mm[1::2] += np.diag(lesion.radii_mm)
    return _surface_group(lesion, cts, "ELLIPSOID", [ends_mm])


def _polygon_group(lesion: Lesion, number: int, cts: Sequence[Dataset], seg: Dataset):
    return _surface_group(lesion, cts, "POLYGON", outlines_mm(lesion, cts))


def _surface_group(
    lesion: Lesion, cts: Sequence[Dataset], graphic_type: str, graphics_mm: list[np.ndarray]
):
    import highdicom as hd

    surface = hd.sr.VolumeSurface(
        graphic_type=graphic_type,
        graphic_data=graphics_mm,
        frame_of_reference_uid=cts[0].FrameOfReferenceUID,
        source_series=hd.sr.SourceSeriesForSegmentation(cts[0].SeriesInstanceUID),
    )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_volume_surface=surface,
        measurements=[_volume(lesion)],
        **group_names(lesion),
    )


def _segment_group(lesion: Lesion, number: int, cts: Sequence[Dataset], seg: Dataset):
    import highdicom as hd

    if len(seg.SegmentSequence) > 1:
        segment = hd.sr.ReferencedSegment.from_segmentation(seg, segment_number=number)
    else:  # its frames share their segment, where highdicom does not look for it
        segment = hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(cts[0].SeriesInstanceUID),
        )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=segment,
        measurements=[_volume(lesion)],
        **group_names(lesion),
    )


_GROUP_MAKERS: dict[Style, Callable] = {
    "point": _point_group,
    "ellipsoid": _ellipsoid_group,
    "polygon": _polygon_group,
    "segment": _segment_group,
}


def _volume(lesion: Lesion):
    import highdicom as hd
    from pydicom.sr.codedict import codes

    volume_mm3 = round(float(4 / 3 * np.pi * np.prod(lesion.radii_mm)), 3)
    return hd.sr.Measurement(
        name=codes.SCT.Volume, value=volume_mm3, unit=codes.UCUM.CubicMillimeter
    )


def _outline_mm(lesion: Lesion, ct: Dataset) -> np.ndarray | None:
    """Cut an ellipsoid with the plane of a slice, which gives an ellipse in that plane."""
    in_plane = np.reshape(ct.ImageOrientationPatient, (2, 3)).astype(np.float64)
    offset_mm = np.array(ct.ImagePositionPatient, dtype=np.float64) - lesion.centre_mm
    weights = np.array(lesion.radii_mm) ** -2.0
    matrix, slope = (in_plane * weights) @ in_plane.T, (in_plane * weights) @ offset_mm
    middle = -np.linalg.solve(matrix, slope)
    squared_radius = 1 - offset_mm @ (weights * offset_mm) - slope @ middle
    if squared_radius <= 0:
        return None
    angles = np.linspace(0, 2 * np.pi, _CORNERS + 1)
    unit_circle = np.stack([np.cos(angles), np.sin(angles)])
    unit_circle[:, -1] = unit_circle[:, 0]
    ellipse = np.linalg.solve(np.linalg.cholesky(matrix).T, unit_circle)
    on_plane = middle + np.sqrt(squared_radius) * ellipse.T
    return lesion.centre_mm + offset_mm + on_plane @ in_plane


def _make_reproducible(dataset: Dataset) -> None:
    """Replace the clock readings that highdicom put in."""
    for element in dataset.iterall():
        if element.keyword == "PatientBirthDate" or not element.value:
            continue
        if element.VR == "DA":
            element.value = FIXED_DATE
        elif element.VR == "TM":
            element.value = FIXED_TIME
        elif element.VR == "DT":
            element.value = FIXED_DATE + FIXED_TIME
