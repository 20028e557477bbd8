"""What all phantom files share: identity, dates, and geometry as DICOM writes it."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import SupportsFloat

import numpy as np
from pydicom.dataset import Dataset

from oncofm.demo.encode import save
from oncofm.imaging.geometry import Geometry

EditSlice = Callable[[Dataset, int], None]
FIXED_DATE, FIXED_TIME = "20200102", "030405"


def phantom_uid(*parts: object) -> str:
    """Derive a UID from words: the same words give the same UID, everywhere."""
    digest = hashlib.sha256("/".join(map(str, ("oncofm phantom", *parts))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def ct_header(
    uid_seed: str, study_uid: str | None, series_uid: str, frame_of_reference_uid: str | None
) -> Dataset:
    """Patient to equipment modules (PS3.3 A.3), which all images of a study share."""
    patient_seed = uid_seed.split("/")[0]
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = FIXED_DATE, FIXED_TIME
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = (
        FIXED_DATE
    )
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = (
        FIXED_TIME
    )
    dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = "oncofm"
    dataset.ManufacturerModelName = "phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Phantom chest"
    dataset.SeriesDescription = "Chest"
    dataset.PatientName = "PHANTOM^ONCOFM"
    dataset.PatientID = "PHANTOM"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = study_uid or phantom_uid(patient_seed, "study")
    dataset.SeriesInstanceUID = series_uid
    dataset.FrameOfReferenceUID = frame_of_reference_uid or phantom_uid(patient_seed, "frame")
    dataset.PositionReferenceIndicator = ""
    dataset.StudyID = "1"
    dataset.SeriesNumber = 2
    dataset.AcquisitionNumber = 1
    dataset.KVP = "120"
    return dataset


def stored_values(hu: np.ndarray, slope: float, intercept: float, signed: bool) -> np.ndarray:
    """Turn Hounsfield units into 16-bit stored values."""
    stored = np.rint((hu - intercept) / slope)
    limits = np.iinfo(np.int16 if signed else np.uint16)
    if stored.min() < limits.min or stored.max() > limits.max:
        raise ValueError(f"slope {slope} and intercept {intercept} do not fit 16 bits")
    return stored.astype(limits.dtype)


def describe_pixels(dataset: Dataset, pixels: np.ndarray, signed: bool) -> None:
    """Fill the Image Pixel module (PS3.3 C.7.6.3)."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(signed)


def finish(dataset: Dataset, path: Path, index: int, edit: EditSlice | None) -> None:
    """Let the hook have its way with a dataset, then write it."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if edit is not None:
        edit(dataset, index)
    save(dataset, path)


def orientation(geometry: Geometry) -> list[str]:
    """Image Orientation (0020,0037): the way along a row, then along a column."""
    columns_mm, rows_mm = geometry.column_step_mm, geometry.row_step_mm
    return decimals([*columns_mm / np.linalg.norm(columns_mm), *rows_mm / np.linalg.norm(rows_mm)])


def pixel_spacing(geometry: Geometry) -> list[str]:
    """Pixel Spacing (0028,0030) names the distance between ROWS first."""
    return decimals([np.linalg.norm(geometry.row_step_mm), np.linalg.norm(geometry.column_step_mm)])


def slice_normal(geometry: Geometry) -> np.ndarray:
    """Compute the unit vector across the slices, from the orientation alone."""
    normal = np.cross(geometry.column_step_mm, geometry.row_step_mm)
    return normal / np.linalg.norm(normal)


def decimals(values: Iterable[SupportsFloat]) -> list[str]:
    """Decimal Strings as exact as their 16 characters allow."""
    return [decimal(value) for value in values]


def decimal(value: SupportsFloat) -> str:
    """Write a Decimal String: at most 16 characters (PS3.5 6.2)."""
    for digits in range(17, 0, -1):
        text = f"{float(value):.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(f"{value} does not fit a Decimal String")
