"""Seeds from DICOM Segmentation objects: BINARY, FRACTIONAL and LABELMAP."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, SegmentationStorage

from oncofm.errors import Rejected, SegmentationInvalidError
from oncofm.imaging.items import uids_of_items
from oncofm.imaging.sources import Source
from oncofm.seeds.annotation import AnnotationSeeds, SeedGroup
from oncofm.seeds.measure import SEED_MAKERS, Per
from oncofm.seeds.references import Reference
from oncofm.seeds.runs import Runs, find_runs, join_runs
from oncofm.seeds.seed import SeedSource
from oncofm.seeds.seg_frames import SegFrames, frame_source_uids, read_frames

_LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""Newer than the UID dictionary of pydicom 3.0."""

_SOURCE_IMAGES = Tag("SourceImageSequence")
_REFERENCED_INSTANCES = Tag("ReferencedInstanceSequence")
_SOP_INSTANCE = Tag("ReferencedSOPInstanceUID")

FRACTION_THRESHOLD = 0.5
"""From which share of Maximum Fractional Value (0062,000E) on a voxel belongs to a segment."""


def read_seg(
    source: Source,
    *,
    per: Per = "segment",
    threshold: float = FRACTION_THRESHOLD,
    min_volume_mm3: float = 0.0,
) -> AnnotationSeeds:
    """Read the lesions of a segmentation.

    Frames are decoded one after the other and kept as runs of voxels, so memory stays near the
    size of the file. Positions come from the segmentation's own frames (PS3.3 C.7.6.16), not
    from the CT.

    Parameters
    ----------
    source : Source
        The file.
    per : {"segment", "component"}
        One seed per segment, or per 26-connected component of it.
    threshold : float
        For FRACTIONAL: share of Maximum Fractional Value, above 0 and up to 1, from which on a
        voxel belongs to the segment.
    min_volume_mm3 : float
        Smaller segments or components count as empty.

    Returns
    -------
    AnnotationSeeds
        One group, seeds in LPS mm. A segment without voxels is a `RejectedSeed` with
        `SegmentEmptyError`.

    Raises
    ------
    SegmentationInvalidError
        If the object as a whole cannot be read.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    with _readable(source.name), source.open() as file:
        dataset = pydicom.dcmread(file)
    name = f"SEG {dataset.get('SOPInstanceUID', source.name)}"
    if dataset.get("SOPClassUID") not in (SegmentationStorage, _LABEL_MAP_SEGMENTATION_STORAGE):
        raise SegmentationInvalidError(f"{name} is no segmentation by its SOP Class UID.")
    with _readable(name):
        frames = read_frames(dataset, name)
        segments = _segments(dataset, name)
        voxels = _decode(dataset, frames, threshold)
        undescribed = voxels.keys() - segments.keys()
        if undescribed or not segments:
            numbers = ", ".join(map(str, sorted(undescribed))) or "any"
            raise SegmentationInvalidError(
                f"{name} does not describe its segment {numbers}; export it again."
            )
        seeds = [
            seed
            for number, item in segments.items()
            for seed in SEED_MAKERS[per](
                join_runs([runs for _, runs in voxels.get(number, [])]),
                frames.grid,
                f"segment-{number}",
                _seed_source(dataset, number, item),
                min_volume_mm3,
            )
        ]
        reference = _reference(dataset, name, voxels)
    return AnnotationSeeds(
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        study_uid=str(dataset.get("StudyInstanceUID", "")),
        groups=(SeedGroup(reference, tuple(seeds)),),
    )


def _segments(dataset: Dataset, name: str) -> dict[int, Dataset]:
    """Items of the Segment Sequence by number, without the background of a LABELMAP."""
    segments = {int(item.SegmentNumber): item for item in dataset.SegmentSequence}
    if len(segments) != len(dataset.SegmentSequence):
        raise SegmentationInvalidError(
            f"{name} gives one segment number to two segments; export it again."
        )
    if dataset.get("SegmentationType") == "LABELMAP":
        segments.pop(_background(dataset), None)
    return segments


_FrameRuns = list[tuple[int, Runs]]
"""Frame number and what it shows of a segment."""


def _decode(dataset: Dataset, frames: SegFrames, threshold: float) -> dict[int, _FrameRuns]:
    """Turn the frames into runs, by segment number."""
    voxels: dict[int, _FrameRuns] = {}
    n_decoded = 0
    for index, pixels in enumerate(_frame_pixels(dataset)):
        n_decoded += 1
        plane = int(frames.plane[index])
        if frames.segment is None:
            shown = find_runs(pixels, plane, _background(dataset))
        else:
            if dataset.SegmentationType == "FRACTIONAL":
                pixels = pixels >= threshold * float(dataset.MaximumFractionalValue)
            runs = find_runs(pixels, plane)
            shown = {frames.segment[index]: next(iter(runs.values()))} if runs else {}
        for number, found in shown.items():
            voxels.setdefault(number, []).append((index, found))
    if n_decoded != len(frames.plane):
        raise ValueError(f"{n_decoded} of {len(frames.plane)} frames have pixel data")
    return voxels


def _frame_pixels(dataset: Dataset) -> Iterator[np.ndarray]:
    """Decode frame by frame; shape (rows, columns) each."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if dataset.BitsAllocated != 1 or syntax.is_encapsulated:
        yield from iter_pixels(dataset)
        return
    # Packed bits run on from frame to frame without padding (PS3.5 8.1.1). pydicom 3.0 fails on
    # some frames that begin or end inside a byte, hence this unpacking of our own.
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    if syntax == ExplicitVRBigEndian and dataset["PixelData"].VR == "OW":
        packed = packed.view(np.uint16).byteswap().view(np.uint8)
    n_pixels = dataset.Rows * dataset.Columns
    for first in range(0, int(dataset.NumberOfFrames) * n_pixels, n_pixels):
        enclosing = packed[first // 8 : -(-(first + n_pixels) // 8)]
        bits = np.unpackbits(enclosing, bitorder="little")[first % 8 :][:n_pixels]
        yield bits.reshape(dataset.Rows, dataset.Columns)


def _background(dataset: Dataset) -> int:
    """Value of a LABELMAP that is no segment: its Pixel Padding Value (PS3.3 C.8.20.2)."""
    return int(dataset.get("PixelPaddingValue", 0))


def _seed_source(dataset: Dataset, number: int, item: Dataset) -> SeedSource:
    return SeedSource(
        kind="seg",
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        sop_class_uid=str(dataset.get("SOPClassUID", "")),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        segment_number=number,
        segment_label=str(item.get("SegmentLabel") or ""),
        segment_description=str(item.get("SegmentDescription") or ""),
        algorithm_type=str(item.get("SegmentAlgorithmType") or ""),
        tracking_id=str(item.get("TrackingID") or ""),
        tracking_uid=str(item.get("TrackingUID") or ""),
    )


def _reference(dataset: Dataset, name: str, voxels: dict[int, _FrameRuns]) -> Reference:
    series = [*dataset.get("ReferencedSeriesSequence", [])]
    for study in dataset.get("StudiesContainingOtherReferencedInstancesSequence", []):
        series += study.get("ReferencedSeriesSequence", [])
    images = uids_of_items(dataset, _SOURCE_IMAGES, _SOP_INSTANCE)
    for item in series:
        images += uids_of_items(item, _REFERENCED_INSTANCES, _SOP_INSTANCE)
    drawn_on: set[str] = set()
    for shown in voxels.values():
        largest, _ = max(shown, key=lambda frame: int(np.sum(frame[1].stop - frame[1].start)))
        drawn_on |= frame_source_uids(dataset, largest)
    return Reference(
        name=name,
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
        series_uids=frozenset(str(item.SeriesInstanceUID) for item in series),
        sop_instance_uids=frozenset(images),
        drawn_on_uids=frozenset(drawn_on),
    )


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn whatever a garbled object makes pydicom raise into one sentence without its values."""
    try:
        yield
    except (Rejected, MemoryError):
        raise
    except Exception as error:
        raise SegmentationInvalidError(
            f"{name} is truncated or damaged and cannot be read ({type(error).__name__}); "
            "export it again."
        ) from error
