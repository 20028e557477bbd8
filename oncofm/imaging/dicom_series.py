"""CT volumes out of a DICOM series: judged by their headers, decoded slice by slice on demand.

The policy, with the code of each error (the series or volume is rejected) or notice (it is used):

- another modality, or no CT image: ``not_ct``; localizers: ``localizer``; secondary captures and
  screen shots: ``secondary_capture``; no Image Position, Image Orientation or Pixel Spacing:
  ``missing_geometry``. Among other images they are left out: ``..._left_out``.
- no Rescale Slope or Intercept in any one image: ``missing_rescale``.
- two slices in one place: equal pixels ``duplicate_dropped``; different pixels are split by
  acquisition (``series_split``) or, if that does not explain them, ``duplicate_position``.
- several orientations, sizes, spacings or frames of reference: ``series_split``; one slice only:
  ``single_slice``.
- ``missing_slices``, ``varying_spacing``, ``gantry_tilt``: every slice is used where it lies. A
  patch over a hole of more than 2.5 median steps is rejected by `sample_patch`.
- a slice that cannot be decoded: ``slice_undecodable``, for boxes that need it only.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oncofm.errors import (
    DuplicatePositionError,
    LocalizerError,
    MissingGeometryError,
    MissingRescaleError,
    NotCTError,
    Rejected,
    SecondaryCaptureError,
    SingleSliceError,
    SliceUndecodableError,
)
from oncofm.imaging.cache import ByteCache
from oncofm.imaging.ct_frames import CTFrame, LeftOut, ct_frames
from oncofm.imaging.ct_stacks import Stack, group_by_plane, separate
from oncofm.imaging.decode import PixelLocation, decode_frame, locate_pixels
from oncofm.imaging.geometry import Geometry
from oncofm.imaging.scan import InstanceRecord, SeriesRecord
from oncofm.imaging.sources import Source
from oncofm.notices import Notice

_VARYING_STEP = 0.01
"""Relative deviation from the median step that counts as uneven spacing."""
_MISSING_STEP = 1.5
"""A step of more than this many medians means that slices are missing."""
_TILT_DEGREES = 0.1
"""Angle between the stack and the slice normal that counts as gantry tilt."""
_COMPARED_BYTES = 1024 * 1024


class DicomSeries:
    """A stack of CT slices, a `Volume` that decodes only the slices it is asked for.

    Attributes
    ----------
    volume_id : str
        Series Instance UID, with ``#2``, ``#3`` ... behind it for further volumes of a series.
    geometry : Geometry
        True position of every slice.
    notices : tuple of Notice
        What was odd about the series.
    series_uid, study_uid, frame_of_reference_uid : str
        As in the headers.
    frames : tuple of CTFrame
        The slices in the order of the geometry.
    """

    def __init__(self, volume_id: str, stack: Stack, notices: Sequence[Notice]) -> None:
        first = stack.frames[0].instance
        self.volume_id = volume_id
        self.geometry: Geometry = stack.geometry()
        self.notices: tuple[Notice, ...] = tuple(notices)
        self.series_uid = first.series_uid
        self.study_uid = first.study_uid
        self.frame_of_reference_uid = first.frame_of_reference_uid
        self.frames = stack.frames
        self._decoder = _Decoder()

    def __getstate__(self) -> dict[str, Any]:
        """Go to another process without what was decoded."""
        return {name: value for name, value in self.__dict__.items() if name != "_decoder"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process."""
        self.__dict__ |= state | {"_decoder": _Decoder()}

    def __repr__(self) -> str:
        return f"DicomSeries({self.volume_id!r}, shape={self.geometry.shape})"

    def read_box(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> np.ndarray:
        """Read the voxels ``[start, stop)`` and nothing else; see `Volume`.

        Raises
        ------
        SliceUndecodableError
            If a slice inside the box cannot be decoded.
        """
        size = np.subtract(stop, start)
        box = np.empty((size[2], size[1], size[0]), np.float32)
        rows, columns = slice(start[1], stop[1]), slice(start[0], stop[0])
        for frame, plane in zip(self.frames[start[2] : stop[2]], box, strict=True):
            plane[:] = _hounsfield(frame, self._decoder.stored(frame)[rows, columns])
        return box

    def release(self) -> None:
        """Give back the memory of the decoded slices; see `Volume`."""
        _SLICES.drop(self._decoder)


_SLICES: ByteCache[np.ndarray] = ByteCache(192 * 1024 * 1024, lambda array: array.nbytes)
"""Decoded slices of all volumes: 384 of 512 x 512, more than three patches of 50 mm need."""


class _Decoder:
    """Stored values of frames, each decoded once as long as it is in the cache.

    The lock is held while a frame is decoded, so that two threads do not decode the same one.
    Nothing is lost by that: the decoders keep Python's global lock and never run in parallel.
    """

    def __init__(self) -> None:
        self._locations: dict[Source, PixelLocation] = {}
        self._lock = threading.Lock()

    def stored(self, frame: CTFrame) -> np.ndarray:
        key = (self, frame.instance.source, frame.index)
        with self._lock:
            array = _SLICES.get(key)
            if array is None:
                array = self._decode(frame)
                _SLICES.put(key, array)
            return array

    def _decode(self, frame: CTFrame) -> np.ndarray:
        source = frame.instance.source
        try:
            location = self._locations.get(source)
            if location is None:
                location = self._locations.setdefault(source, locate_pixels(source))
            array = decode_frame(source, location, frame.index)
            expected = (frame.instance.rows, frame.instance.columns)
            if array.shape != expected:
                raise ValueError(f"it decodes to {array.shape} instead of {expected} pixels")
        except MemoryError:
            raise
        except Exception as error:
            # Decoders raise anything; their words may be long and may quote the header.
            raise SliceUndecodableError(
                f"Instance {frame.name} of series {frame.instance.series_uid} cannot be decoded "
                f"({type(error).__name__}: {_first_line(error)}); copy the file again."
            ) from error
        return array


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or ["no details"]
    return lines[0][:120].rstrip(".:")


def _hounsfield(frame: CTFrame, stored: np.ndarray) -> np.ndarray:
    assert frame.slope is not None
    assert frame.intercept is not None
    return stored * np.float64(frame.slope) + np.float64(frame.intercept)


# --- judging a series ---------------------------------------------------------------------


@dataclass(frozen=True)
class CTVolumes:
    """What a series gives.

    Attributes
    ----------
    volumes : tuple of DicomSeries
        The volumes, largest first.
    rejected : tuple of (str, Rejected)
        Volume ids that cannot be used, and why; the Series Instance UID if it is the series.
    """

    volumes: tuple[DicomSeries, ...]
    rejected: tuple[tuple[str, Rejected], ...]


def ct_volumes(series: SeriesRecord) -> CTVolumes:
    """Make volumes of a CT series, or say why not.

    Everything follows from Image Position and Image Orientation (Patient); Slice Thickness and
    Instance Number are never looked at. Pixels are decoded only where two slices lie in one
    place.

    Parameters
    ----------
    series : SeriesRecord
        From `oncofm.imaging.scan.scan_dicom`, of any modality.

    Returns
    -------
    CTVolumes
        Nothing is raised for a bad series; it is in `rejected`.
    """
    try:
        frames, notices = _usable_frames(series)
        stacks, rejected = _stacks(series.series_uid, frames)
    except Rejected as error:
        return CTVolumes((), ((series.series_uid, error),))
    if len(stacks) > 1:
        text = f"Series {series.series_uid} holds {len(stacks)} volumes, each used on its own."
        notices.append(Notice("series_split", text))
    volumes = []
    for volume_id, stack in stacks:
        own = [*notices, *_stack_notices(volume_id, stack)]
        volumes.append(DicomSeries(volume_id, stack, own))
    return CTVolumes(tuple(volumes), tuple(rejected))


def _usable_frames(series: SeriesRecord) -> tuple[list[CTFrame], list[Notice]]:
    uid = series.series_uid
    if series.modality != "CT":
        modality = series.modality or "no modality"
        raise NotCTError(f"Series {uid} is {modality}, not CT; give the CT series.")
    copies, others = _compare_duplicates(series)
    frames, left_out = ct_frames((*series.instances, *others))
    if not frames:
        raise _nothing_left(uid, left_out)
    n_unscaled = sum(1 for frame in frames if not frame.slope or frame.intercept is None)
    if n_unscaled:
        raise MissingRescaleError(
            f"Series {uid} has no valid Rescale Slope and Intercept in {n_unscaled} of "
            f"{len(frames)} images, so its values are not Hounsfield units; export it again."
        )
    notices = _left_out_notices(uid, left_out)
    if copies:
        notices.append(_dropped_notice(uid, copies))
    return frames, notices


def _compare_duplicates(series: SeriesRecord) -> tuple[int, list[InstanceRecord]]:
    """Count the files that are copies to the byte, and return those that are not."""
    originals = {instance.sop_instance_uid: instance for instance in series.instances}
    copies, others = 0, []
    for duplicate in series.duplicates:
        original = originals[duplicate.sop_instance_uid]
        if _same_bytes(original.source, duplicate.source):
            copies += 1
        elif duplicate.position_mm != original.position_mm:
            raise DuplicatePositionError(
                f"Series {series.series_uid} has two different images with one SOP Instance UID "
                f"({duplicate.sop_instance_uid}); export it again."
            )
        else:
            others.append(duplicate)
    return copies, others


def _same_bytes(a: Source, b: Source) -> bool:
    try:
        with a.open() as file_a, b.open() as file_b:
            while True:
                part_a, part_b = file_a.read(_COMPARED_BYTES), file_b.read(_COMPARED_BYTES)
                if part_a != part_b:
                    return False
                if not part_a:
                    return True
    except Exception:
        return False  # decoding it fails likewise, and then tells which of the two is bad


_LEFT_OUT = {
    LocalizerError: ("localizer_left_out", "localizer"),
    SecondaryCaptureError: ("secondary_capture_left_out", "secondary capture"),
    NotCTError: ("not_ct_left_out", "object that is no CT image"),
    MissingGeometryError: ("missing_geometry_left_out", "image without a place in the patient"),
}
"""Code and words for what is left out of a series, gravest last."""


def _nothing_left(uid: str, left_out: Sequence[LeftOut]) -> Rejected:
    reason = max((item.error for item in left_out), key=list(_LEFT_OUT).index)
    if reason is LocalizerError:
        return reason(f"Series {uid} is a localizer, not a volume; give the axial series.")
    if reason is SecondaryCaptureError:
        return reason(f"Series {uid} is a secondary capture, not a volume; give the original.")
    if reason is NotCTError:
        return reason(f"Series {uid} holds no CT image; give the CT series.")
    return reason(
        f"Series {uid} has no valid Image Position, Image Orientation or Pixel Spacing; "
        "export it again from its origin."
    )


def _left_out_notices(uid: str, left_out: Sequence[LeftOut]) -> list[Notice]:
    notices = []
    for error, (code, words) in _LEFT_OUT.items():
        names = [item.name for item in left_out if item.error is error]
        if names:
            text = f"Left out of series {uid}: {len(names)} x {words}, the first being {names[0]}."
            notices.append(Notice(code, text))
    return notices


def _dropped_notice(uid: str, count: int) -> Notice:
    return Notice("duplicate_dropped", f"Series {uid} holds {count} x a copy of another image.")


def _stacks(
    uid: str, frames: Sequence[CTFrame]
) -> tuple[list[tuple[str, Stack]], list[tuple[str, Rejected]]]:
    """Name the volumes of a series: the largest gets the bare UID."""
    decoder = _Decoder()

    def pixels(frame: CTFrame) -> np.ndarray | None:
        try:
            return _hounsfield(frame, decoder.stored(frame))
        except SliceUndecodableError:
            return None

    found: list[tuple[int, Stack | Rejected]] = []
    for group in group_by_plane(frames):
        try:
            found += [(len(stack.frames), stack) for stack in separate(group, pixels)]
        except DuplicatePositionError as error:
            found.append((len(group), error))
    found.sort(key=lambda item: -item[0])

    stacks: list[tuple[str, Stack]] = []
    rejected: list[tuple[str, Rejected]] = []
    for number, (size, result) in enumerate(found, 1):
        volume_id = uid if number == 1 else f"{uid}#{number}"
        if isinstance(result, Rejected):
            rejected.append((volume_id, result))
        elif size == 1:
            text = f"Volume {volume_id} has one slice and so no depth; give the whole series."
            rejected.append((volume_id, SingleSliceError(text)))
        else:
            stacks.append((volume_id, result))
    return stacks, rejected


def _stack_notices(volume_id: str, stack: Stack) -> list[Notice]:
    notices = []
    if stack.n_dropped:
        notices.append(_dropped_notice(volume_id, stack.n_dropped))
    geometry = stack.geometry()
    steps_mm = np.diff(geometry.positions_mm)
    median_mm = float(np.median(steps_mm))
    n_gaps = int((steps_mm > _MISSING_STEP * median_mm).sum())
    if n_gaps:
        text = (
            f"Volume {volume_id} misses slices in {n_gaps} places; the widest step is "
            f"{steps_mm.max():.2f} mm, the usual one {median_mm:.2f} mm."
        )
        notices.append(Notice("missing_slices", text))
    regular_mm = steps_mm[steps_mm <= _MISSING_STEP * median_mm]
    if np.abs(regular_mm / median_mm - 1).max() > _VARYING_STEP:
        text = (
            f"Volume {volume_id} has steps of {regular_mm.min():.2f} to {regular_mm.max():.2f} mm "
            "between slices; each slice is used where it lies."
        )
        notices.append(Notice("varying_spacing", text))
    step_mm = geometry.origins_mm[-1] - geometry.origins_mm[0]
    along = abs(step_mm @ geometry.normal) / np.linalg.norm(step_mm)
    tilt = float(np.degrees(np.arccos(min(1.0, along))))
    if tilt > _TILT_DEGREES:
        text = f"Volume {volume_id} is tilted by {tilt:.1f} degrees; it is sampled as it lies."
        notices.append(Notice("gantry_tilt", text))
    return notices
