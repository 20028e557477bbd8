"""From the coordinates of a report to places in the patient, whatever they are relative to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oncofm.errors import ReportInvalidError, SeriesAbsentError
from oncofm.seeds.sr_content import Coordinates
from oncofm.seeds.sr_regions import Graphic, Vector


@dataclass(frozen=True)
class ImagePlane:
    """Where the pixels of one image lie in the patient.

    Attributes
    ----------
    series_uid, frame_of_reference_uid : str
        Of the image.
    origin_mm : tuple of float
        LPS position of the centre of the first pixel: Image Position (0020,0032).
    column_step_mm, row_step_mm : tuple of float
        From one pixel to the next along a row, and along a column.
    """

    series_uid: str
    frame_of_reference_uid: str
    origin_mm: Vector
    column_step_mm: Vector
    row_step_mm: Vector


def find_planes(
    coordinates: Sequence[Coordinates], images: Mapping[str, ImagePlane], name: str
) -> list[ImagePlane]:
    """Find the image that each SCOORD is selected from.

    Parameters
    ----------
    coordinates : sequence of Coordinates
        The SCOORD items of one lesion.
    images : mapping of str to ImagePlane
        As for `oncofm.seeds.dicom_sr.read_sr`.
    name : str
        The lesion, for messages.

    Returns
    -------
    list of ImagePlane
        One for each item.

    Raises
    ------
    SeriesAbsentError
        If an image is not in the input.
    ReportInvalidError
        If an item is not selected from exactly one image.
    """
    return [_plane(item, images, name) for item in coordinates]


def _plane(item: Coordinates, images: Mapping[str, ImagePlane], name: str) -> ImagePlane:
    keys = [
        "#".join(map(str, (image.sop_instance_uid, *frame)))
        for image in item.images
        for frame in ([(number,) for number in image.frames] or [()])
    ]
    if len(keys) != 1:
        raise ReportInvalidError(
            f"{name} has coordinates that are selected from {len(keys)} images instead of one; "
            "export the report again with coordinates for each image."
        )
    if keys[0] not in images:
        raise SeriesAbsentError(
            f"{name} was drawn on image {keys[0]}, which is not in the input; add the series of "
            "that image."
        )
    return images[keys[0]]


def one_frame_of_reference(uids: Iterable[str], name: str) -> str:
    """Make sure that coordinates may be put together; gives the UID that they share.

    Raises
    ------
    ReportInvalidError
        If there is more than one UID.
    """
    different = set(uids)
    if len(different) > 1:
        raise ReportInvalidError(
            f"{name} has coordinates in {len(different)} frames of reference; give each a group of "
            "its own."
        )
    return different.pop()


def in_patient(item: Coordinates, plane: ImagePlane) -> Graphic:
    """Place a SCOORD in the patient; the centre of the first pixel is at 0.5, 0.5."""
    steps_mm = np.array([plane.column_step_mm, plane.row_step_mm])
    with np.errstate(invalid="ignore"):  # what is not finite is refused when it is measured
        points_mm = plane.origin_mm + (item.values - 0.5) @ steps_mm
    if item.graphic_type != "CIRCLE" or len(points_mm) != 2:
        return Graphic(item.graphic_type, points_mm)
    # A circle is its centre and a point on it (PS3.3 C.18.6.1.2): two equal axes of an ellipse.
    centre_mm, radius_mm = points_mm[0], points_mm[1] - points_mm[0]
    normal = np.cross(*steps_mm)
    across_mm = np.cross(normal / np.linalg.norm(normal), radius_mm)
    axes_mm = np.stack([-radius_mm, radius_mm, -across_mm, across_mm])
    return Graphic("ELLIPSE", centre_mm + axes_mm)
