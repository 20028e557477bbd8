"""A seed: the point a patch is centred on, and where it came from."""

from dataclasses import dataclass

from oncofm.errors import Rejected
from oncofm.notices import Notice


@dataclass(frozen=True)
class SeedSource:
    """What a seed was derived from.

    Attributes
    ----------
    kind : str
        ``seg``, ``rtstruct``, ``sr``, ``mask``, ``markup``, ``json`` or ``table``.
    sop_instance_uid, sop_class_uid, series_uid : str
        The DICOM object and its series, empty for other kinds; its class is known of a SEG.
    segment_number : int or None
        Segment Number (0062,0004), ROI Number (3006,0022) or the label value of a mask.
    segment_label, segment_description : str
        Segment Label (0062,0005), ROI Name (3006,0026) or the label of a point; Segment
        Description (0062,0006) or ROI Description (3006,0028).
    algorithm_type : str
        Segment Algorithm Type (0062,0008): ``AUTOMATIC``, ``SEMIAUTOMATIC`` or ``MANUAL``.
    tracking_id, tracking_uid : str
        Tracking ID (0062,0020) and UID (0062,0021) where the segment has them.
    file_name : str
        Name of the mask or point file, empty for other kinds.
    component : int or None
        1-based rank by size of the connected component, with ``per="component"``.
    """

    kind: str
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    series_uid: str = ""
    segment_number: int | None = None
    segment_label: str = ""
    segment_description: str = ""
    algorithm_type: str = ""
    tracking_id: str = ""
    tracking_uid: str = ""
    file_name: str = ""
    component: int | None = None


@dataclass(frozen=True)
class Seed:
    """One lesion to be encoded.

    Attributes
    ----------
    lesion_id : str
        Unique inside its source: ``segment-1``, ``segment-1-component-2``, ``label-3``, or the
        table's own ``lesion_id``.
    position_mm : tuple of float
        LPS millimetres (x, y, z).
    source : SeedSource
        Where the seed came from.
    extent_mm : tuple of float or None
        Size of the lesion's world-axis-aligned bounding box (x, y, z), voxels included.
    volume_mm3 : float or None
        Volume of the lesion's voxels.
    notices : tuple of Notice
        For example ``multifocal_segment`` or ``lesion_exceeds_patch``.
    """

    lesion_id: str
    position_mm: tuple[float, float, float]
    source: SeedSource
    extent_mm: tuple[float, float, float] | None = None
    volume_mm3: float | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class RejectedSeed:
    """A lesion that was asked for but has no usable seed; it never disappears.

    Attributes
    ----------
    lesion_id : str
        As for `Seed`.
    source : SeedSource
        Where it was looked for.
    error : Rejected
        Reason code and sentence.
    """

    lesion_id: str
    source: SeedSource
    error: Rejected
