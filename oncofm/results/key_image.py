"""A lesion as a picture that every DICOM viewer shows (Secondary Capture, PS3.3 A.8.1).

The picture carries its text in the pixels, so that it is read wherever it is sent: three planes
through the seed, what the heads say, and that this is for research only.
"""

import dataclasses
import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from oncofm.imaging.volume import Volume
from oncofm.results.files import atomic_path
from oncofm.results.overlay import draw_panels
from oncofm.results.overlay_drawing import add_bands, compose
from oncofm.results.sr_codes import RESEARCH_ONLY, derived_uid, one_line
from oncofm.results.sr_header import instance_uids, patient_and_study, study_datetime, uid_text
from oncofm.results.sr_values import ReportProvenance
from oncofm.seeds.seed import Seed

SERIES_NUMBER = 9004
SERIES_DESCRIPTION = "Key images of lesions, research use only"
HEADING = "RESEARCH USE ONLY · not for diagnosis or treatment"

_LO_BYTES = 64
_EMPTY_IF_UNKNOWN = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "PatientOrientation",
    "Laterality",
)
"""Attributes that must be there, and may be without a value (Type 2)."""


def write_key_image(
    path: Path,
    ct_image_headers: Sequence[Dataset],
    volume: Volume,
    seed: Seed,
    *,
    lines: Sequence[str],
    provenance: ReportProvenance,
    number: int,
) -> str:
    """Write the picture of one lesion as an uncompressed colour image.

    Same arguments, same bytes and UIDs. The Series Instance UID follows from source study, series,
    model and configuration, so that the lesions of a run are one series; the SOP Instance UID
    also from the picture. Patient and study are those of the source series; the pixels hold the
    lesion id and the lines, and nothing of the patient.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    ct_image_headers : sequence of pydicom.dataset.Dataset
        Headers of the source series, all of it, in any order.
    volume : Volume
        That series; only the voxels that the planes touch are read.
    seed : Seed
        The lesion.
    lines : sequence of str
        What stands below the planes, such as a prediction each.
    provenance : ReportProvenance
        What made the results.
    number : int
        Instance Number in the series, from 1.

    Returns
    -------
    str
        SOP Instance UID.

    Raises
    ------
    UnreadableFileError
        If an image has no valid UIDs.
    SeedOutsideVolumeError
        If the seed lies beyond the outer edges of the voxels.
    SliceUndecodableError
        If a slice that a plane needs cannot be decoded.
    OutputNotWritableError
        If the file cannot be written.
    ValueError
        If there is no image, or the images are of several series.
    """
    headers = sorted(ct_image_headers, key=lambda image: uid_text(image, "SOPInstanceUID"))
    images = _source_images(headers)
    pixels = key_picture(volume, seed, lines)
    # A copy of the series in another study has pictures there, under UIDs of their own.
    source = (str(images[0].StudyInstanceUID), str(images[0].SeriesInstanceUID))
    made_from = (*source, dataclasses.asdict(provenance))
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = derived_uid(
        "key image",
        *made_from,
        [image.SOPInstanceUID for image in images],
        number,
        pixels.shape,
        hashlib.sha256(pixels.tobytes()).hexdigest(),
    )
    dataset.SeriesInstanceUID = derived_uid("key images", *made_from)
    _set_patient_and_study(dataset, headers[0])
    _set_series(dataset, provenance, number)
    _set_origin(dataset, images, provenance, study_datetime(headers[0]))
    dataset.LossyImageCompression = "01" if any(map(_is_lossy, headers)) else "00"
    _set_pixels(dataset, pixels)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with atomic_path(path) as temporary:
        pydicom.dcmwrite(temporary, dataset, enforce_file_format=True)
    return str(dataset.SOPInstanceUID)


def key_picture(volume: Volume, seed: Seed, lines: Sequence[str]) -> np.ndarray:
    """Draw the planes of `oncofm.results.overlay.draw_overlay` with heading and lines.

    Returns
    -------
    numpy.ndarray
        uint8, shape (rows, columns, 3), RGB; errors as of `write_key_image`.
    """
    picture = compose(draw_panels(volume, seed), seed, volume.volume_id, "")
    return np.asarray(add_bands(picture, HEADING, lines))


def _source_images(headers: Sequence[Dataset]) -> list[Dataset]:
    if not headers:
        raise ValueError("a key image needs the images that it shows")
    name = f"An image of series {uid_text(headers[0], 'SeriesInstanceUID') or '(no UID)'}"
    images = [instance_uids(header, name) for header in headers]
    if len({image.SeriesInstanceUID for image in images}) > 1:
        raise ValueError("a key image shows the images of one series")
    return images


def _set_patient_and_study(dataset: Dataset, header: Dataset) -> None:
    for keyword in _EMPTY_IF_UNKNOWN:
        setattr(dataset, keyword, "")
    for element in patient_and_study(header):
        dataset.add(element)


def _set_series(dataset: Dataset, provenance: ReportProvenance, number: int) -> None:
    dataset.Modality = "OT"
    dataset.SeriesNumber = SERIES_NUMBER
    dataset.SeriesDescription = SERIES_DESCRIPTION
    dataset.InstanceNumber = number
    dataset.ConversionType = "WSD"
    for keyword, value in _maker(provenance).items():
        setattr(dataset, keyword, value)


def _set_origin(
    dataset: Dataset,
    images: Sequence[Dataset],
    provenance: ReportProvenance,
    written_at: datetime.datetime,
) -> None:
    """Say what the picture was made from, by what and how (C.7.6.1, C.12.1)."""
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.ContentDate, dataset.ContentTime = f"{written_at:%Y%m%d}", f"{written_at:%H%M%S}"
    dataset.DerivationDescription = (
        "Axial, coronal and sagittal plane through the seed of a lesion, interpolated linearly, "
        f"with marks and text by {one_line(provenance.software, _LO_BYTES)}. "
        f"{RESEARCH_ONLY.meaning}."
    )
    dataset.DerivationCodeSequence = [_code(codes.DCM.MultiplanarReformatting)]
    dataset.SourceImageSequence = [_reference(image) for image in images]
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code(codes.DCM.ProcessingEquipment)]
    for keyword, value in _maker(provenance).items():
        setattr(equipment, keyword, value)
    equipment.ContributionDateTime = f"{written_at:%Y%m%d%H%M%S}"
    equipment.ContributionDescription = RESEARCH_ONLY.meaning
    dataset.ContributingEquipmentSequence = [equipment]


def _maker(provenance: ReportProvenance) -> dict[str, str]:
    return {
        "Manufacturer": one_line(provenance.software, _LO_BYTES),
        "ManufacturerModelName": one_line(provenance.model, _LO_BYTES),
        "SoftwareVersions": one_line(provenance.version, _LO_BYTES),
    }


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item


def _is_lossy(header: Dataset) -> bool:
    return uid_text(header, "LossyImageCompression") == "01"


def _set_pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = pixels.shape
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()  # an even number: three panels are evenly wide
    dataset["PixelData"].VR = "OB"
