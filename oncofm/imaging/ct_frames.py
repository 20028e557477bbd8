"""Which images of a CT series can be slices, and where each of them lies.

A frame is one plane of pixels: a single-frame image, or one frame of an enhanced multi-frame
image. From here on both are the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from oncofm.errors import (
    LocalizerError,
    MissingGeometryError,
    NotCTError,
    Rejected,
    SecondaryCaptureError,
    UnreadableFileError,
)
from oncofm.imaging.scan import InstanceRecord

_MULTI_FRAME_CLASSES = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_CT_CLASSES = (CTImageStorage, *_MULTI_FRAME_CLASSES)
_SECONDARY_CAPTURE_CLASSES = "1.2.840.10008.5.1.4.1.1.7"
"""Root of the single-frame and the multi-frame Secondary Capture classes (PS3.4 B.5)."""
_SCREEN_WORDS = frozenset(("SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE", "DOSE_INFO"))
"""Values of Image Type by which scanners mark pictures of a screen stored as CT images."""
_ORTHONORMAL_TOLERANCE = 1e-3
"""How far direction cosines may be from unit length and a right angle."""


@dataclass(frozen=True, slots=True)
class CTFrame:
    """One plane of CT pixels with a place in the patient.

    Attributes
    ----------
    instance : InstanceRecord
        The file it is in.
    index : int
        0-based number of the frame in the file.
    position_mm, orientation, pixel_spacing_mm : tuple of float
        Image Position, Image Orientation (Patient), Pixel Spacing (PS3.3 C.7.6.2, C.7.6.16).
    slope, intercept : float or None
        Stored value -> Hounsfield units; None if the file does not say.
    acquisition : tuple of float or None
        Acquisition number, temporal position, trigger time: what may tell two scans of one
        place apart.
    """

    instance: InstanceRecord
    index: int
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    slope: float | None
    intercept: float | None
    acquisition: tuple[float | None, ...]

    @property
    def name(self) -> str:
        """SOP Instance UID, with the frame number as DICOM counts where there are several."""
        uid = self.instance.sop_instance_uid
        return uid if self.instance.n_frames == 1 else f"{uid} frame {self.index + 1}"


@dataclass(frozen=True)
class LeftOut:
    """Something in a CT series that cannot be a slice.

    Attributes
    ----------
    name : str
        SOP Instance UID, with the frame number where there are several.
    error : type of Rejected
        Why; the series is rejected with it if nothing else is there.
    """

    name: str
    error: type[Rejected]


def ct_frames(instances: Iterable[InstanceRecord]) -> tuple[list[CTFrame], list[LeftOut]]:
    """Sort the images of a series into frames and what cannot be a slice.

    Parameters
    ----------
    instances : iterable of InstanceRecord
        Images of one series.

    Returns
    -------
    list of CTFrame, list of LeftOut
        In the order of the instances.

    Raises
    ------
    UnreadableFileError
        If the functional groups of a multi-frame image cannot be read.
    """
    frames: list[CTFrame] = []
    left_out: list[LeftOut] = []
    for instance in instances:
        error = _why_no_slice(instance)
        if error is not None:
            left_out.append(LeftOut(instance.sop_instance_uid, error))
            continue
        if instance.sop_class_uid in _MULTI_FRAME_CLASSES:
            found = _multi_frames(instance)
        else:
            found = [_single_frame(instance)]
        frames += [item for item in found if isinstance(item, CTFrame)]
        left_out += [item for item in found if isinstance(item, LeftOut)]
    return frames, left_out


def _why_no_slice(instance: InstanceRecord) -> type[Rejected] | None:
    if instance.sop_class_uid.startswith(_SECONDARY_CAPTURE_CLASSES):
        return SecondaryCaptureError
    if instance.modality != "CT" or instance.sop_class_uid not in _CT_CLASSES:
        return NotCTError
    if "LOCALIZER" in instance.image_type:
        return LocalizerError
    is_colour = instance.samples_per_pixel not in (None, 1)
    if is_colour or not _SCREEN_WORDS.isdisjoint(instance.image_type):
        return SecondaryCaptureError
    return None


def _single_frame(instance: InstanceRecord) -> CTFrame | LeftOut:
    position, orientation = instance.position_mm, instance.orientation
    spacing = instance.pixel_spacing_mm
    if position is None or not _is_valid(instance, orientation, spacing):
        is_secondary = "SECONDARY" in instance.image_type
        error = SecondaryCaptureError if is_secondary else MissingGeometryError
        return LeftOut(instance.sop_instance_uid, error)
    assert orientation is not None
    assert spacing is not None
    return CTFrame(
        instance,
        0,
        position,
        orientation,
        spacing,
        instance.rescale_slope,
        instance.rescale_intercept,
        (instance.acquisition_number, instance.temporal_position, instance.trigger_time_ms),
    )


def _multi_frames(instance: InstanceRecord) -> list[CTFrame | LeftOut]:
    """Read the functional groups of an enhanced image (PS3.3 C.7.6.16, C.8.15.3)."""
    try:
        with instance.source.open() as file:
            dataset = dcmread(
                file,
                stop_before_pixels=True,
                force=True,
                specific_tags=[
                    "SharedFunctionalGroupsSequence",
                    "PerFrameFunctionalGroupsSequence",
                ],
            )
        shared = _item(dataset, "SharedFunctionalGroupsSequence")
        per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
        per_frame += [Dataset()] * (instance.n_frames - len(per_frame))
        return [_multi_frame(instance, k, per_frame[k], shared) for k in range(instance.n_frames)]
    except Exception as error:
        raise UnreadableFileError(
            f"Instance {instance.sop_instance_uid} of series {instance.series_uid} has functional "
            f"groups that cannot be read ({type(error).__name__}); export the series again."
        ) from error


def _multi_frame(
    instance: InstanceRecord, index: int, per_frame: Dataset, shared: Dataset
) -> CTFrame | LeftOut:
    def group(keyword: str) -> Dataset:
        return _item(per_frame, keyword) or _item(shared, keyword)

    name = f"{instance.sop_instance_uid} frame {index + 1}"
    if "LOCALIZER" in (group("CTImageFrameTypeSequence").get("FrameType") or ()):
        return LeftOut(name, LocalizerError)
    position = _floats(group("PlanePositionSequence"), "ImagePositionPatient", 3)
    orientation = _floats(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    spacing = _floats(group("PixelMeasuresSequence"), "PixelSpacing", 2)
    if position is None or not _is_valid(instance, orientation, spacing):
        return LeftOut(name, MissingGeometryError)
    assert orientation is not None
    assert spacing is not None
    content = group("FrameContentSequence")
    transformation = group("PixelValueTransformationSequence")
    trigger = group("CardiacSynchronizationSequence")
    return CTFrame(
        instance,
        index,
        position,
        orientation,
        spacing,
        _float(transformation, "RescaleSlope"),
        _float(transformation, "RescaleIntercept"),
        (
            _float(content, "FrameAcquisitionNumber"),
            _float(content, "TemporalPositionIndex"),
            _float(trigger, "NominalCardiacTriggerDelayTime"),
        ),
    )


def _is_valid(
    instance: InstanceRecord,
    orientation: tuple[float, ...] | None,
    spacing: tuple[float, ...] | None,
) -> bool:
    if orientation is None or spacing is None or not (instance.rows and instance.columns):
        return False
    along_row, along_column = orientation[:3], orientation[3:]
    deviations = (
        _dot(along_row, along_row) - 1,
        _dot(along_column, along_column) - 1,
        _dot(along_row, along_column),
    )
    return min(spacing) > 0 and all(abs(each) < _ORTHONORMAL_TOLERANCE for each in deviations)


def _dot(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    # Three products, for every slice: numpy would spend ten times as long on its calls.
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _item(dataset: Dataset, keyword: str) -> Dataset:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else Dataset()


def _floats(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    value = dataset.get(keyword)
    if value is None:
        return None
    values = tuple(float(number) for number in (value if count > 1 else (value,)))
    return values if len(values) == count and np.isfinite(values).all() else None


def _float(dataset: Dataset, keyword: str) -> float | None:
    values = _floats(dataset, keyword, 1)
    return values[0] if values else None
