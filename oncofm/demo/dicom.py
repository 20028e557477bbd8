"""Phantom scans as DICOM: a CT series and a scout view.

Names, UIDs, dates and times are fixed or derived from the arguments, so the same call writes
the same bytes. Every writer takes an ``edit`` hook that is called on each dataset just before
it is written: that is how a test makes a file with one defect.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from oncofm.demo.encode import set_pixels
from oncofm.demo.headers import (
    EditSlice,
    ct_header,
    decimal,
    decimals,
    describe_pixels,
    finish,
    orientation,
    phantom_uid,
    pixel_spacing,
    slice_normal,
    stored_values,
)
from oncofm.demo.phantom import Scene, regular_geometry, sample_scene
from oncofm.imaging.geometry import Geometry

AXIAL = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


def write_ct_series(
    folder: Path,
    scene: Scene,
    *,
    shape: tuple[int, int, int] = (96, 80, 40),
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 5.0),
    direction: Sequence[Sequence[float]] | np.ndarray = AXIAL,
    centre_mm: tuple[float, float, float] | None = None,
    slice_origins_mm: np.ndarray | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    slope: float = 1.0,
    intercept: float = -1024.0,
    signed: bool = False,
    uid_seed: str = "ct",
    study_uid: str | None = None,
    series_uid: str | None = None,
    frame_of_reference_uid: str | None = None,
    file_name: str = "slice-{:04d}.dcm",
    edit: EditSlice | None = None,
) -> list[Path]:
    """Scan a scene and write it as a series of single-frame CT images.

    Parameters
    ----------
    folder : pathlib.Path
        Where to write; made if absent.
    scene : Scene
        What to scan.
    shape : tuple of int
        Columns, rows, slices.
    spacing_mm : tuple of float
        Between columns, rows and slices.
    direction : array_like
        Shape (3, 3); columns are the directions along a row, along a column, slice to slice.
    centre_mm : tuple of float or None
        Middle of the scan in LPS; the middle of the scene if None.
    slice_origins_mm : numpy.ndarray or None
        Shape (slices, 3): position of each slice's first voxel instead of the even stack, for
        missing slices, uneven steps and gantry tilt.
    transfer_syntax : str
        One of `oncofm.demo.encode.TRANSFER_SYNTAXES`.
    slope, intercept : float
        Rescale to Hounsfield units.
    signed : bool
        Pixel Representation.
    uid_seed : str
        Every UID that is not given follows from it. Series whose seeds agree up to the first
        ``/`` share study and frame of reference: ``ct/early`` and ``ct/late``.
    study_uid, series_uid, frame_of_reference_uid : str or None
        UIDs to use.
    file_name : str
        Format string that takes the 0-based index of the slice.
    edit : callable or None
        ``edit(dataset, index)`` just before a slice is written.

    Returns
    -------
    list of pathlib.Path
        The files in the order of the slices.
    """
    geometry = ct_geometry(scene, shape, spacing_mm, direction, centre_mm, slice_origins_mm)
    stored = stored_values(sample_scene(scene, geometry), slope, intercept, signed)
    series_uid = series_uid or phantom_uid(uid_seed, "series")
    paths = []
    for index, pixels in enumerate(stored):
        dataset = ct_header(uid_seed, study_uid, series_uid, frame_of_reference_uid)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = phantom_uid(series_uid, "instance", index)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = decimals(geometry.origins_mm[index])
        dataset.ImageOrientationPatient = orientation(geometry)
        dataset.PixelSpacing = pixel_spacing(geometry)
        dataset.SliceThickness = decimal(spacing_mm[2])
        dataset.SliceLocation = decimal(geometry.origins_mm[index] @ slice_normal(geometry))
        dataset.RescaleIntercept = decimal(intercept)
        dataset.RescaleSlope = decimal(slope)
        dataset.RescaleType = "HU"
        describe_pixels(dataset, pixels, signed)
        set_pixels(dataset, pixels, transfer_syntax)
        paths.append(folder / file_name.format(index))
        finish(dataset, paths[-1], index, edit)
    return paths


def ct_geometry(
    scene: Scene,
    shape: tuple[int, int, int] = (96, 80, 40),
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 5.0),
    direction: Sequence[Sequence[float]] | np.ndarray = AXIAL,
    centre_mm: tuple[float, float, float] | None = None,
    slice_origins_mm: np.ndarray | None = None,
) -> Geometry:
    """Work out the grid that `write_ct_series` scans with the same arguments."""
    geometry = regular_geometry(shape, spacing_mm, centre_mm or scene.centre_mm, direction)
    if slice_origins_mm is None:
        return geometry
    return Geometry(
        column_step_mm=geometry.column_step_mm,
        row_step_mm=geometry.row_step_mm,
        origins_mm=np.asarray(slice_origins_mm, dtype=np.float64),
        n_columns=geometry.n_columns,
        n_rows=geometry.n_rows,
    )


def write_localizer(
    path: Path,
    scene: Scene,
    *,
    shape: tuple[int, int] = (128, 96),
    spacing_mm: tuple[float, float] = (3.0, 3.0),
    uid_seed: str = "ct",
    study_uid: str | None = None,
    series_uid: str | None = None,
    frame_of_reference_uid: str | None = None,
    edit: EditSlice | None = None,
) -> Path:
    """Write a scout view from the front: one image that must never become a slice.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    scene : Scene
        What to look at; the image shows the coronal plane through its middle.
    shape : tuple of int
        Columns, rows.
    spacing_mm : tuple of float
        Between columns and rows.
    uid_seed, study_uid, series_uid, frame_of_reference_uid, edit
        As for `write_ct_series`; the series is another one unless its UID is given.

    Returns
    -------
    pathlib.Path
        The file.
    """
    coronal = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    geometry = regular_geometry((*shape, 1), (*spacing_mm, 1.0), scene.centre_mm, coronal)
    pixels = stored_values(sample_scene(scene, geometry), 1.0, -1024.0, signed=False)[0]
    series_uid = series_uid or phantom_uid(uid_seed, "localizer series")
    dataset = ct_header(uid_seed, study_uid, series_uid, frame_of_reference_uid)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = phantom_uid(series_uid, "localizer")
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "Topogram"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.InstanceNumber = 1
    dataset.ImagePositionPatient = decimals(geometry.origins_mm[0])
    dataset.ImageOrientationPatient = orientation(geometry)
    dataset.PixelSpacing = pixel_spacing(geometry)
    dataset.SliceThickness = "1"
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    describe_pixels(dataset, pixels, signed=False)
    set_pixels(dataset, pixels, ExplicitVRLittleEndian)
    finish(dataset, path, 0, edit)
    return path
