"""Every error a user can meet: one class per cause, one sentence per instance.

Three families decide what an error does to a run:

- `SetupError`: the command cannot start (exit code 1);
- `Rejected`: this input or lesion cannot be used, its neighbours go on (state ``rejected``);
- any other exception inside a case is a failure of ours (state ``failed``).

`code` is the stable reason code written to ``cases.csv``. Messages name a UID or a file, say
what is wrong and what to do, and never carry patient data.
"""

from typing import ClassVar


class OncofmError(Exception):
    """Base of all errors raised on purpose."""

    code: ClassVar[str] = "error"


# --- the command cannot start -------------------------------------------------------------


class SetupError(OncofmError):
    """The command cannot start as it was asked to."""

    code = "setup"


class InputNotFoundError(SetupError):
    """An input path does not exist or holds nothing to work on."""

    code = "input_not_found"


class OutputNotWritableError(SetupError):
    """The output folder cannot be written."""

    code = "output_not_writable"


class SeedTableError(SetupError):
    """A seed table lacks columns or cannot be parsed at all."""

    code = "seed_table_invalid"


class SettingInvalidError(SetupError):
    """A setting has a value that it cannot have."""

    code = "setting_invalid"


class StructurePatternError(SetupError):
    """A pattern that describes a folder structure cannot be parsed."""

    code = "structure_pattern"


class WorkflowUnknownError(SetupError):
    """No workflow, module or configuration key of that name exists."""

    code = "workflow_unknown"


class WorkflowInvalidError(SetupError):
    """A workflow file cannot be read as one."""

    code = "workflow_invalid"


class DeviceError(SetupError):
    """The requested compute device or precision is not available."""

    code = "device_unavailable"


class DeviceMemoryError(DeviceError):
    """The compute device has no memory left, even for one patch."""

    code = "device_memory"


class DeviceLostError(DeviceError):
    """The compute device failed while it worked."""

    code = "device_lost"


class ModelUnknownError(SetupError):
    """No model of that name is described under ``models/``."""

    code = "model_unknown"


class WeightsMissingError(SetupError):
    """No weights file was given or found."""

    code = "weights_missing"


class WeightsInvalidError(SetupError):
    """A weights file does not hold exactly the expected tensors."""

    code = "weights_invalid"


class WeightsChecksumError(SetupError):
    """A weights file has another SHA-256 than the expected one."""

    code = "weights_checksum"


class EngineError(SetupError):
    """The engine that was asked for is not installed or has no model that fits."""

    code = "engine_unavailable"


class HeadUnknownError(SetupError):
    """No head of that name exists."""

    code = "head_unknown"


class HeadInvalidError(SetupError):
    """The card or the arrays of a head cannot be used."""

    code = "head_invalid"


class HeadMismatchError(SetupError):
    """A head was made for other features."""

    code = "head_mismatch"


class EvaluationError(SetupError):
    """Predictions and labels do not give the statistic that was asked for."""

    code = "evaluation_invalid"


class MissingExtraError(SetupError):
    """An optional group of dependencies is not installed."""

    code = "extra_missing"


class BatchError(SetupError):
    """A batch cannot be planned, resumed or merged."""

    code = "batch_invalid"


class DownloadError(SetupError):
    """A download did not complete."""

    code = "download_failed"


class WebError(SetupError):
    """Something could not be had from a DICOMweb server."""

    code = "web"


class WebAddressError(WebError):
    """What should be the address of something on a DICOMweb server is none."""

    code = "web_address_invalid"


class WebUnavailableError(WebError):
    """A DICOMweb server does not answer now; it may later, after the seconds that it asks for."""

    code = "web_unavailable"

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WebRefusedError(WebError):
    """A DICOMweb server does not give what it was asked for."""

    code = "web_refused"


class WebAnswerError(WebError):
    """The answer of a DICOMweb server is not what was asked for, or too large."""

    code = "web_answer_invalid"


# --- an input or a lesion cannot be used --------------------------------------------------


class Rejected(OncofmError):
    """An input or lesion that cannot be used; its neighbours go on."""

    code = "rejected"


class UnreadableFileError(Rejected):
    """A file that claims to be an image but cannot be read."""

    code = "unreadable_file"


class NotCTError(Rejected):
    """A series of a modality the model was not made for."""

    code = "not_ct"


class LocalizerError(Rejected):
    """A scout view (topogram), not a volume."""

    code = "localizer"


class SecondaryCaptureError(Rejected):
    """A secondary capture or a derived screen image, not a volume."""

    code = "secondary_capture"


class MissingGeometryError(Rejected):
    """Image Position, Image Orientation or Pixel Spacing is absent or invalid."""

    code = "missing_geometry"


class MissingRescaleError(Rejected):
    """No Rescale Slope / Intercept: the pixel values are not Hounsfield units."""

    code = "missing_rescale"


class SingleSliceError(Rejected):
    """A series with one slice has no depth to sample."""

    code = "single_slice"


class DuplicatePositionError(Rejected):
    """Two slices claim one position with different pixels."""

    code = "duplicate_position"


class SeriesGapError(Rejected):
    """Slices are missing inside the patch."""

    code = "gap_in_patch"


class SliceUndecodableError(Rejected):
    """Pixel data that a patch needs is truncated or cannot be decoded."""

    code = "slice_undecodable"


class VolumeUnsupportedError(Rejected):
    """A volume file with more than one component, more than 3 axes, or no geometry."""

    code = "volume_unsupported"


class SeedInvalidError(Rejected):
    """A seed row without a readable image or finite coordinates."""

    code = "seed_invalid"


class SeedOutsideVolumeError(Rejected):
    """The seed does not lie inside the volume."""

    code = "seed_outside_volume"


class VoxelsNotFiniteError(Rejected):
    """NaN or infinite voxels around the seed."""

    code = "voxels_not_finite"


class NoSeedsError(Rejected):
    """A CT volume that no segmentation, mask or seed table points at."""

    code = "no_seeds"


class SegmentEmptyError(Rejected):
    """A segment or label without voxels (above the minimum volume)."""

    code = "segment_empty"


class SegmentationInvalidError(Rejected):
    """A SEG object or mask that cannot be read."""

    code = "segmentation_invalid"


class SegmentationUnreferencedError(Rejected):
    """A SEG that names no source series and fits none, or more than one."""

    code = "segmentation_unreferenced"


class SeriesAbsentError(Rejected):
    """The series a seed or SEG refers to is not in the input."""

    code = "series_absent"


class SeriesAmbiguousError(Rejected):
    """More than one volume fits a seed that names none."""

    code = "series_ambiguous"


class FrameOfReferenceError(Rejected):
    """A SEG in another frame of reference than the series it refers to."""

    code = "frame_of_reference_mismatch"


class RTStructInvalidError(Rejected):
    """An RTSTRUCT that cannot be read."""

    code = "rtstruct_invalid"


class ContourUnsupportedError(Rejected):
    """Contours that are not closed, planar and axial, so that they enclose no measurable volume."""

    code = "contour_unsupported"


class ReportInvalidError(Rejected):
    """A DICOM SR that cannot be read, or holds no measurement group with a place."""

    code = "report_invalid"


class PointFileInvalidError(Rejected):
    """A JSON file that is neither Slicer markups nor MHub coordinates."""

    code = "point_file_invalid"


class SeedFileInvalidError(Rejected):
    """A file of seeds in a case's own folder that cannot be read."""

    code = "seed_file_invalid"


class SeedsElsewhereError(Rejected):
    """A SEG, RTSTRUCT or SR that is not read because the lesions come from elsewhere."""

    code = "seeds_given"
