"""Phantom lesions as a DICOM RT Structure Set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from oncofm.demo.encode import save
from oncofm.demo.headers import FIXED_DATE, FIXED_TIME, decimals, phantom_uid
from oncofm.demo.phantom import Lesion, Scene
from oncofm.imaging.geometry import Geometry

_CORNERS = 180
"""Corners of the polygon that stands for an ellipse: its area is 0.02 % too small."""
_DETACHED_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"
"""Retired, and still what Referenced SOP Class UID of a study is (PS3.3 C.8.8.5)."""


@dataclass(frozen=True, eq=False)
class RoiContours:
    """One ROI to be written.

    Attributes
    ----------
    name : str
        ROI Name.
    contours : sequence of numpy.ndarray
        Shape (n, 3) each: points in LPS mm.
    geometric_type : str
        Contour Geometric Type of all of them.
    """

    name: str
    contours: Sequence[np.ndarray]
    geometric_type: str = "CLOSED_PLANAR"


def lesion_contours(scene: Scene, geometry: Geometry) -> list[RoiContours]:
    """Outline every lesion of a scene on the slices of an axial grid.

    Parameters
    ----------
    scene : Scene
        Whose lesions.
    geometry : Geometry
        Its slices must be axial; only their z matters.

    Returns
    -------
    list of RoiContours
        The ellipse in which each slice cuts the lesion, as a fine polygon.
    """
    heights_mm = geometry.origins_mm[:, 2]
    return [RoiContours(lesion.label, _ellipses(lesion, heights_mm)) for lesion in scene.lesions]


def write_rtstruct(
    path: Path,
    ct_files: Sequence[Path],
    rois: Sequence[RoiContours],
    *,
    uid_seed: str = "rtstruct",
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write a structure set of a CT series.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    ct_files : sequence of pathlib.Path
        The series it belongs to.
    rois : sequence of RoiContours
        Numbered from 1.
    uid_seed : str
        Series and instance UID follow from it.
    edit : callable or None
        ``edit(dataset)`` just before the file is written.

    Returns
    -------
    pathlib.Path
        The file.
    """
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in ct_files]
    dataset = _header(images[0], uid_seed)
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_frame(images)]
    dataset.StructureSetROISequence = [
        _described(number, roi, images[0]) for number, roi in enumerate(rois, start=1)
    ]
    dataset.ROIContourSequence = [
        _drawn(number, roi, images) for number, roi in enumerate(rois, start=1)
    ]
    dataset.RTROIObservationsSequence = [_observed(number + 1) for number in range(len(rois))]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if edit is not None:
        edit(dataset)
    save(dataset, path)
    return path


def _ellipses(lesion: Lesion, heights_mm: np.ndarray) -> list[np.ndarray]:
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(_CORNERS)], axis=1)
    x, y, z = lesion.centre_mm
    contours = []
    for height_mm in heights_mm.tolist():
        share = 1 - ((height_mm - z) / lesion.radii_mm[2]) ** 2
        if share > 0:
            radii_mm = np.array(lesion.radii_mm) * np.sqrt(share)
            contours.append(np.array([x, y, height_mm]) + circle * radii_mm)
    return contours


def _header(image: Dataset, uid_seed: str) -> Dataset:
    """Patient to structure set modules (PS3.3 A.19)."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = FIXED_DATE, FIXED_TIME
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = phantom_uid(uid_seed, "instance")
    for keyword in (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyDescription",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyID",
        "FrameOfReferenceUID",
        "PositionReferenceIndicator",
    ):
        setattr(dataset, keyword, image[keyword].value)
    dataset.Modality = "RTSTRUCT"
    dataset.Manufacturer = "oncofm"
    dataset.ManufacturerModelName = "phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    dataset.OperatorsName = ""
    dataset.SeriesDate, dataset.SeriesTime = FIXED_DATE, FIXED_TIME
    dataset.SeriesDescription = "Phantom lesions"
    dataset.SeriesInstanceUID = phantom_uid(uid_seed, "series")
    dataset.SeriesNumber = 20
    dataset.InstanceNumber = 1
    dataset.StructureSetLabel = "LESIONS"
    dataset.StructureSetDate, dataset.StructureSetTime = FIXED_DATE, FIXED_TIME
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _referenced_frame(images: Sequence[Dataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [_image(image) for image in images]
    study = Dataset()
    study.ReferencedSOPClassUID = _DETACHED_STUDY_MANAGEMENT
    study.ReferencedSOPInstanceUID = images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item


def _described(number: int, roi: RoiContours, image: Dataset) -> Dataset:
    """Item of the Structure Set ROI Sequence."""
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = image.FrameOfReferenceUID
    item.ROIName = roi.name
    item.ROIGenerationAlgorithm = "MANUAL"
    return item


def _drawn(number: int, roi: RoiContours, images: Sequence[Dataset]) -> Dataset:
    """Item of the ROI Contour Sequence; each contour names the slice nearest in z."""
    heights_mm = np.array([float(image.ImagePositionPatient[2]) for image in images])
    item = Dataset()
    item.ROIDisplayColor = [255, 64 * number % 256, 0]
    item.ReferencedROINumber = number
    contours = []
    for points_mm in roi.contours:
        contour = Dataset()
        nearest = int(np.abs(heights_mm - points_mm[0, 2]).argmin())
        contour.ContourImageSequence = [_image(images[nearest])]
        contour.ContourGeometricType = roi.geometric_type
        contour.NumberOfContourPoints = len(points_mm)
        contour.ContourData = decimals(points_mm.ravel())
        contours.append(contour)
    if contours:
        item.ContourSequence = contours
    return item


def _observed(number: int) -> Dataset:
    """Item of the RT ROI Observations Sequence."""
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = number
    item.RTROIInterpretedType = "GTV"
    item.ROIInterpreter = ""
    return item
