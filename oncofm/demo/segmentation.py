"""Phantom lesions as a DICOM Segmentation object, written by highdicom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from oncofm.demo.encode import save
from oncofm.demo.headers import FIXED_DATE, FIXED_TIME, decimals, orientation, phantom_uid
from oncofm.demo.phantom import Scene, lesion_mask
from oncofm.imaging.geometry import Geometry


@dataclass(frozen=True)
class SegmentMask:
    """One segment to be written.

    Attributes
    ----------
    label : str
        Segment Label; the Tracking ID and UID follow from it.
    mask : numpy.ndarray
        Shape (slices, rows, columns): bool, or float 0 to 1 for a fractional segmentation.
    """

    label: str
    mask: np.ndarray


def lesion_segments(scene: Scene, geometry: Geometry) -> list[SegmentMask]:
    """Segment every lesion of a scene on a grid."""
    return [SegmentMask(lesion.label, lesion_mask(lesion, geometry)) for lesion in scene.lesions]


def write_seg(
    path: Path,
    ct_files: Sequence[Path],
    segments: Sequence[SegmentMask],
    *,
    segmentation_type: str = "BINARY",
    geometry: Geometry | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    omit_empty_frames: bool = True,
    max_fractional_value: int = 255,
    uid_seed: str = "seg",
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write a Segmentation of a CT series.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    ct_files : sequence of pathlib.Path
        The series it belongs to, in the order of the masks' slices; one file if enhanced CT.
    segments : sequence of SegmentMask
        Numbered from 1. They may overlap, except as LABELMAP.
    segmentation_type : str
        ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
    geometry : Geometry or None
        The masks' own grid (oblique, coarser ...); None says that it is the one of the CT.
    transfer_syntax : str
        Uncompressed or deflated; also RLE, JPEG-LS and JPEG 2000 unless BINARY.
    omit_empty_frames : bool
        Leave out frames without a voxel.
    max_fractional_value : int
        Stored value that stands for 1 in a fractional segmentation.
    uid_seed : str
        Series and instance UID follow from it.
    edit : callable or None
        ``edit(dataset)`` just before the file is written.

    Returns
    -------
    pathlib.Path
        The file.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in ct_files]
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type="MANUAL",
            tracking_id=f"oncofm phantom {segment.label}",
            tracking_uid=phantom_uid("tracking", segment.label),
        )
        for number, segment in enumerate(segments, start=1)
    ]
    pixels = np.stack([segment.mask for segment in segments], axis=-1)
    deflate = transfer_syntax == DeflatedExplicitVRLittleEndian
    planes = {} if geometry is None else _planes(geometry)
    dataset = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels if pixels.dtype.kind == "f" else pixels.astype(np.uint8),
        segmentation_type=segmentation_type,
        segment_descriptions=descriptions,
        series_instance_uid=phantom_uid(uid_seed, "series"),
        series_number=10,
        sop_instance_uid=phantom_uid(uid_seed, "instance"),
        instance_number=1,
        manufacturer="oncofm",
        manufacturer_model_name="phantom",
        software_versions="1",
        device_serial_number="0",
        max_fractional_value=max_fractional_value,
        content_label="LESIONS",
        content_description="Phantom lesions",
        content_creator_name="PHANTOM^ONCOFM",
        series_description="Phantom lesions",
        transfer_syntax_uid=ExplicitVRLittleEndian if deflate else transfer_syntax,
        omit_empty_frames=omit_empty_frames,
        **planes,
    )
    if deflate:  # happens to the data set as a whole when it is written
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    _make_reproducible(dataset, uid_seed)
    if edit is not None:
        edit(dataset)
    save(dataset, path)
    return path


def _planes(geometry: Geometry) -> dict:
    """Frame geometry as highdicom takes it."""
    import highdicom as hd

    spacing_mm = [np.linalg.norm(geometry.row_step_mm), np.linalg.norm(geometry.column_step_mm)]
    gaps_mm = np.linalg.norm(np.diff(geometry.origins_mm, axis=0), axis=1)
    gap_mm = float(np.median(gaps_mm)) if len(gaps_mm) else 1.0
    return {
        "pixel_measures": hd.PixelMeasuresSequence(
            pixel_spacing=[float(value) for value in spacing_mm],
            slice_thickness=gap_mm,
            spacing_between_slices=gap_mm,
        ),
        "plane_orientation": hd.PlaneOrientationSequence(
            "PATIENT", [float(value) for value in orientation(geometry)]
        ),
        "plane_positions": [
            hd.PlanePositionSequence("PATIENT", [float(value) for value in decimals(origin_mm)])
            for origin_mm in geometry.origins_mm
        ],
    }


def _make_reproducible(dataset: Dataset, uid_seed: str) -> None:
    """Replace the clock readings and random UIDs that highdicom put in."""
    for element in dataset:
        if element.VR == "DA" and element.keyword != "PatientBirthDate" and element.value:
            element.value = FIXED_DATE
        elif element.VR == "TM" and element.value:
            element.value = FIXED_TIME
    organization_uid = phantom_uid(uid_seed, "dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization_uid
    for item in dataset.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = FIXED_DATE + FIXED_TIME
