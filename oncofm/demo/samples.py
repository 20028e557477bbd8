"""Sample data for every MHub workflow: the same phantom lesions, marked in each possible way."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.markups import write_centroids, write_markups
from oncofm.demo.phantom import Scene, chest_scene, lesion_mask, sample_scene
from oncofm.demo.rtstruct import lesion_contours, write_rtstruct
from oncofm.demo.segmentation import lesion_segments, write_seg
from oncofm.imaging.geometry import Geometry

_SHAPE = (150, 108, 60)
_SPACING_MM = (2.4, 2.4, 4.0)


@dataclass(frozen=True)
class Sample:
    """Where a sample is and what is true about it.

    Attributes
    ----------
    folder : pathlib.Path
        The input folder of the workflow.
    case_id : str
        The case that the workflow makes of it: a Series Instance UID or a folder name.
    scene : Scene
        The phantom; its lesions, in order, are the rows to be expected.
    """

    folder: Path
    case_id: str
    scene: Scene


def write_sample(workflow: str, folder: Path, seed: int = 0) -> Sample:
    """Write the input of a workflow.

    Parameters
    ----------
    workflow : str
        Name of a file in ``config/``, without its suffix.
    folder : pathlib.Path
        Input folder to write.
    seed : int
        Texture and UIDs follow from it.

    Raises
    ------
    KeyError
        If there is no sample of that name.
    """
    scene = chest_scene(seed, centre_mm=(14.0, -95.0, -230.0))
    return Sample(folder, _WRITERS[workflow](folder, scene, f"sample-{seed}"), scene)


def write_volume(path: Path, scene: Scene) -> Geometry:
    """Write the phantom as NIfTI, NRRD or MetaImage, by its suffix."""
    geometry = ct_geometry(scene, _SHAPE, _SPACING_MM)
    _write_image(path, sample_scene(scene, geometry).astype(np.int16), geometry)
    return geometry


def write_mask(path: Path, scene: Scene) -> None:
    """Write the lesions of the phantom as labels 1, 2, 3 ... of a mask."""
    geometry = ct_geometry(scene, _SHAPE, _SPACING_MM)
    labels = np.zeros(geometry.shape[::-1], np.uint8)
    for label, lesion in enumerate(scene.lesions, start=1):
        labels[lesion_mask(lesion, geometry)] = label
    _write_image(path, labels, geometry)


def _seg(folder: Path, scene: Scene, name: str) -> str:
    ct_files, geometry = _ct(folder, scene, name)
    segments = lesion_segments(scene, geometry)
    write_seg(folder / "seg" / "lesions.dcm", ct_files, segments, uid_seed=f"{name}/seg")
    return _series_uid(ct_files)


def _rtstruct(folder: Path, scene: Scene, name: str) -> str:
    ct_files, geometry = _ct(folder, scene, name)
    contours = lesion_contours(scene, geometry)
    path = folder / "rtstruct" / "contours.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rtstruct(path, ct_files, contours, uid_seed=f"{name}/rtstruct")
    return _series_uid(ct_files)


def _json(folder: Path, scene: Scene, name: str) -> str:
    ct_files, _ = _ct(folder, scene, name)
    series_uid = _series_uid(ct_files)
    _centroids(folder / f"{series_uid}.json", scene)
    return series_uid


def _nifti_mask(folder: Path, scene: Scene, name: str) -> str:
    case = folder / name
    write_volume(case / "CT.nii.gz", scene)
    write_mask(case / "masks" / "GTV.nii.gz", scene)
    return name


def _slicer(folder: Path, scene: Scene, name: str) -> str:
    case = folder / name
    write_volume(case / "CT.nrrd", scene)
    points = [lesion.centre_mm for lesion in scene.lesions]
    write_markups(case / "F.mrk.json", points, coordinate_system="RAS")
    return name


def _centroid_file(folder: Path, scene: Scene, name: str) -> str:
    case = folder / name
    write_volume(case / "CT.nrrd", scene)
    _centroids(case / "centroids.json", scene)
    return name


_WRITERS: dict[str, Callable[[Path, Scene, str], str]] = {
    "default": _seg,
    "biomarkers": _seg,
    "from_rtstruct": _rtstruct,
    "from_json": _json,
    "from_nifti_mask": _nifti_mask,
    "from_slicer": _slicer,
    "from_centroids": _centroid_file,
}
SAMPLES = tuple(_WRITERS)
"""The workflows that there are samples for."""


def _ct(folder: Path, scene: Scene, name: str) -> tuple[list[Path], Geometry]:
    ct_files = write_ct_series(
        folder / "ct", scene, shape=_SHAPE, spacing_mm=_SPACING_MM, uid_seed=name
    )
    return ct_files, ct_geometry(scene, _SHAPE, _SPACING_MM)


def _centroids(path: Path, scene: Scene) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    points = [lesion.centre_mm for lesion in scene.lesions]
    write_centroids(path, points, [lesion.label for lesion in scene.lesions])


def _series_uid(ct_files: list[Path]) -> str:
    return str(pydicom.dcmread(ct_files[0], stop_before_pixels=True).SeriesInstanceUID)


def _write_image(path: Path, voxels: np.ndarray, geometry: Geometry) -> None:
    import SimpleITK as sitk

    affine = geometry.affine
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((affine[:3, :3] / spacing_mm).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)
