"""A cohort of small phantom studies, some of them with a defect: what a hospital's archive is like.

Every study says how it must end, so that a run over all of them can be checked to the last row.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from oncofm.demo.dicom import ct_geometry, write_ct_series, write_localizer
from oncofm.demo.encode import save
from oncofm.demo.headers import phantom_uid
from oncofm.demo.phantom import Scene, chest_scene
from oncofm.demo.rtstruct import lesion_contours, write_rtstruct
from oncofm.demo.segmentation import lesion_segments, write_seg
from oncofm.imaging.geometry import Geometry

_EXTENT_MM = (384.0, 336.0, 180.0)
"""What a scan covers, in its own axes: all of the lesions in each of `_DIRECTIONS`."""
_DIRECTIONS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
    ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    ((0.96, -0.28, 0), (0.28, 0.96, 0), (0, 0, 1)),
)
"""Axial from the feet, from the head and prone; coronal; turned by 16 degrees."""
_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
)


@dataclass(frozen=True)
class ExpectedRow:
    """A row that ``cases.csv`` must have.

    Attributes
    ----------
    level : str
        ``case``, ``series`` or ``file``.
    case_id : str
        Series Instance UID, SOP Instance UID of an annotation without a volume, or path.
    state, reason : str
        How it ends.
    n_done : int
        Lesions of it that have features.
    """

    level: str
    case_id: str
    state: str
    reason: str
    n_done: int = 0


@dataclass(frozen=True)
class CohortCase:
    """One study of a cohort.

    Attributes
    ----------
    folder : pathlib.Path
        Holds the study and nothing else.
    study_uid : str
        Study Instance UID.
    defect : str
        One of `DEFECTS`; empty if it is healthy.
    expected : tuple of ExpectedRow
        Every row but those of single lesions.
    """

    folder: Path
    study_uid: str
    defect: str
    expected: tuple[ExpectedRow, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether it has no defect."""
        return not self.defect


def write_cohort(
    folder: Path,
    n_cases: int,
    *,
    defect_rate: float = 0.3,
    seed: int = 0,
    shape: tuple[int, int, int] = (48, 48, 20),
) -> list[CohortCase]:
    """Write a cohort; the same arguments write the same bytes.

    Parameters
    ----------
    folder : pathlib.Path
        Gets a folder per study.
    n_cases : int
        How many studies.
    defect_rate : float
        Share of them that have a defect; each of `DEFECTS` in turn.
    seed : int
        Of everything that varies: texture, voxel size, orientation, compression, number of lesions
        (1 to 3), SEG or RTSTRUCT, and which studies have a defect.
    shape : tuple of int
        Columns, rows, slices; at least 16 slices, for holes that a patch must not touch.

    Returns
    -------
    list of CohortCase
        In the order of their folders.
    """
    rng = np.random.default_rng(seed)
    n_defective = round(n_cases * defect_rate)
    chosen = rng.permutation(n_cases)[:n_defective].tolist()
    names = dict(zip(sorted(chosen), [*DEFECTS] * (n_defective // len(DEFECTS) + 1), strict=False))
    cases = []
    for number in range(n_cases):
        place, uid_seed = folder / f"case-{number:04d}", f"cohort-{seed}-{number}"
        if number in names:
            study = _write_study(place, uid_seed, number, shape)
            defect = names[number]
            expected = DEFECTS[defect](study)
        else:
            study = _write_varied(place, uid_seed, number, shape, rng)
            defect, expected = "", [study.row("done", n_done=len(study.scene.lesions))]
        cases.append(CohortCase(place, study.study_uid, defect, tuple(expected)))
    return cases


# --- healthy studies ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Study:
    """A CT series and its annotation, before or after it is spoiled."""

    folder: Path
    uid_seed: str
    scene: Scene
    geometry: Geometry
    ct_files: Sequence[Path]
    annotation: Path

    @property
    def series_uid(self) -> str:
        return phantom_uid(self.uid_seed, "series")

    @property
    def study_uid(self) -> str:
        return phantom_uid(self.uid_seed, "study")

    @property
    def annotation_uid(self) -> str:
        return phantom_uid(f"{self.uid_seed}/seg", "instance")

    def row(self, state: str, reason: str = "", n_done: int = 0) -> ExpectedRow:
        """Say how the CT series ends."""
        return ExpectedRow("case", self.series_uid, state, reason, n_done)

    def annotation_row(self, reason: str) -> ExpectedRow:
        """Say why the annotation is a case without a volume."""
        return ExpectedRow("case", self.annotation_uid, "rejected", reason)

    def slices_at(self, z_mm: float, count: int = 1) -> Sequence[Path]:
        """Get the slices nearest to a height above the middle of the chest."""
        heights_mm = self.geometry.origins_mm[:, 2] - self.scene.centre_mm[2]
        nearest = np.argsort(np.abs(heights_mm - z_mm))[:count]
        return [self.ct_files[index] for index in sorted(nearest.tolist())]


def _write_study(
    folder: Path,
    uid_seed: str,
    number: int,
    shape: tuple[int, int, int],
    *,
    n_lesions: int = 3,
    spacing_factor: float = 1.0,
    direction: Sequence[Sequence[float]] = _DIRECTIONS[0],
    transfer_syntax: str = ExplicitVRLittleEndian,
    as_contours: bool = False,
) -> _Study:
    scene = chest_scene(number)
    scene = replace(scene, lesions=scene.lesions[:n_lesions])
    x_mm, y_mm, z_mm = (
        extent / n * spacing_factor for extent, n in zip(_EXTENT_MM, shape, strict=True)
    )
    grid = {"shape": shape, "spacing_mm": (x_mm, y_mm, z_mm), "direction": direction}
    geometry = ct_geometry(scene, **grid)
    ct_files = write_ct_series(
        folder / "ct", scene, **grid, transfer_syntax=transfer_syntax, uid_seed=uid_seed
    )
    path = folder / "lesions.dcm"
    if as_contours:
        contours = lesion_contours(scene, geometry)
        write_rtstruct(path, ct_files, contours, uid_seed=f"{uid_seed}/seg")
    else:
        segments = lesion_segments(scene, geometry)
        write_seg(path, ct_files, segments, uid_seed=f"{uid_seed}/seg")
    return _Study(folder, uid_seed, scene, geometry, ct_files, path)


def _write_varied(
    folder: Path,
    uid_seed: str,
    number: int,
    shape: tuple[int, int, int],
    rng: np.random.Generator,
) -> _Study:
    turn = int(rng.integers(len(_DIRECTIONS)))
    return _write_study(
        folder,
        uid_seed,
        number,
        shape,
        n_lesions=int(rng.integers(1, 4)),
        spacing_factor=float(rng.uniform(0.95, 1.1)),
        direction=_DIRECTIONS[turn],
        transfer_syntax=_SYNTAXES[int(rng.integers(len(_SYNTAXES)))],
        as_contours=turn == 0 and bool(rng.random() < 0.5),
    )


# --- defects ------------------------------------------------------------------------------

_LOW_MM = -28.7
"""Height of the lesion in the chest wall; the patches of the other two do not reach so far down."""


def _truncated_slice(study: _Study) -> list[ExpectedRow]:
    _cut(study.slices_at(_LOW_MM)[0], 0.6)
    return [study.row("partial", "slice_undecodable", 2)]


def _noisy_slice(study: _Study) -> list[ExpectedRow]:
    path = study.slices_at(_LOW_MM)[0]
    _edit(path, lambda ds: ds.compress(JPEGLSLossless, generate_instance_uid=False))
    data = path.read_bytes()
    path.write_bytes(data[:-600] + b"\x55" * 600)
    return [study.row("partial", "slice_undecodable", 2)]


def _missing_slices(study: _Study) -> list[ExpectedRow]:
    for path in study.slices_at(_LOW_MM - 9.0, count=3):
        path.unlink()
    return [study.row("partial", "gap_in_patch", 2)]


def _slice_cut_in_header(study: _Study) -> list[ExpectedRow]:
    _cut(study.ct_files[0], 0.05)
    file_row = ExpectedRow("file", str(study.ct_files[0]), "rejected", "unreadable_file")
    return [study.row("done", n_done=3), file_row]


def _single_slice(study: _Study) -> list[ExpectedRow]:
    for path in study.ct_files[1:]:
        path.unlink()
    return [study.row("rejected", "single_slice")]


def _no_rescale(study: _Study) -> list[ExpectedRow]:
    def change(dataset: Dataset) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept

    _edit_all(study.ct_files, change)
    return [study.row("rejected", "missing_rescale")]


def _no_geometry(study: _Study) -> list[ExpectedRow]:
    def change(dataset: Dataset) -> None:
        del dataset.ImagePositionPatient

    _edit_all(study.ct_files, change)
    return [study.row("rejected", "missing_geometry")]


def _duplicate_positions(study: _Study) -> list[ExpectedRow]:
    copy = study.folder / "copy.dcm"
    shutil.copy(study.slices_at(0.0)[0], copy)
    _edit(copy, lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))))
    return [study.row("rejected", "duplicate_position")]


def _copies_of_files(study: _Study) -> list[ExpectedRow]:
    shutil.copytree(study.folder / "ct", study.folder / "again")
    return [study.row("done", n_done=3)]


def _magnetic_resonance(study: _Study) -> list[ExpectedRow]:
    def change(dataset: Dataset) -> None:
        dataset.Modality, dataset.SOPClassUID = "MR", MRImageStorage

    _edit_all(study.ct_files, change)
    series_row = ExpectedRow("series", study.series_uid, "rejected", "not_ct")
    return [study.annotation_row("not_ct"), series_row]


def _localizer_only(study: _Study) -> list[ExpectedRow]:
    shutil.rmtree(study.folder)
    series_uid = phantom_uid(study.uid_seed, "scout")
    path = study.folder / "scout.dcm"
    write_localizer(path, study.scene, uid_seed=study.uid_seed, series_uid=series_uid)
    return [ExpectedRow("series", series_uid, "rejected", "localizer")]


def _screen_in_series(study: _Study) -> list[ExpectedRow]:
    def change(dataset: Dataset) -> None:
        dataset.SOPClassUID = SecondaryCaptureImageStorage
        dataset.SOPInstanceUID = UID(phantom_uid(study.uid_seed, "screen"))
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ImageType = ["DERIVED", "SECONDARY"]
        del dataset.ImagePositionPatient

    screen = study.folder / "screen.dcm"
    shutil.copy(study.ct_files[0], screen)
    _edit(screen, change)
    return [study.row("done", n_done=3)]


def _no_annotation(study: _Study) -> list[ExpectedRow]:
    study.annotation.unlink()
    return [study.row("rejected", "no_seeds")]


def _annotation_only(study: _Study) -> list[ExpectedRow]:
    shutil.rmtree(study.folder / "ct")
    return [study.annotation_row("series_absent")]


def _annotation_of_another_series(study: _Study) -> list[ExpectedRow]:
    def change(dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = phantom_uid(study.uid_seed, "other series")

    _edit_all(study.ct_files, change)
    return [
        ExpectedRow("case", phantom_uid(study.uid_seed, "other series"), "rejected", "no_seeds"),
        study.annotation_row("series_absent"),
    ]


def _annotation_in_another_frame(study: _Study) -> list[ExpectedRow]:
    uid = phantom_uid(study.uid_seed, "another frame")
    _edit(study.annotation, lambda ds: setattr(ds, "FrameOfReferenceUID", uid))
    return [
        study.row("rejected", "no_seeds"),
        study.annotation_row("frame_of_reference_mismatch"),
    ]


def _annotation_truncated(study: _Study) -> list[ExpectedRow]:
    _cut(study.annotation, 0.9)
    return [study.row("rejected", "no_seeds"), study.annotation_row("segmentation_invalid")]


def _empty_segment(study: _Study) -> list[ExpectedRow]:
    segments = lesion_segments(study.scene, study.geometry)
    segments[1].mask[:] = 0
    uid_seed = f"{study.uid_seed}/seg"
    write_seg(
        study.annotation, study.ct_files, segments, uid_seed=uid_seed, omit_empty_frames=False
    )
    return [study.row("partial", "segment_empty", 2)]


def _seeds_outside(study: _Study) -> list[ExpectedRow]:
    contours = lesion_contours(study.scene, study.geometry)
    away_mm = np.array([900.0, 0.0, 0.0])
    moved = [replace(roi, contours=[each + away_mm for each in roi.contours]) for roi in contours]
    write_rtstruct(study.annotation, study.ct_files, moved, uid_seed=f"{study.uid_seed}/seg")
    return [study.row("rejected", "seed_outside_volume")]


def _no_contours(study: _Study) -> list[ExpectedRow]:
    def change(dataset: Dataset) -> None:
        del dataset.ROIContourSequence

    write_rtstruct(study.annotation, study.ct_files, [], uid_seed=f"{study.uid_seed}/seg")
    _edit(study.annotation, change)
    return [study.row("rejected", "no_seeds"), study.annotation_row("rtstruct_invalid")]


def _other_files(study: _Study) -> list[ExpectedRow]:
    (study.folder / "notes.txt").write_text("DICM is not enough", encoding="utf-8")
    (study.folder / "ct" / "empty").touch()
    return [study.row("done", n_done=3)]


def _no_images(study: _Study) -> list[ExpectedRow]:
    shutil.rmtree(study.folder)
    study.folder.mkdir()
    (study.folder / "notes.txt").write_text("gone to the archive", encoding="utf-8")
    return []


DEFECTS: dict[str, Callable[[_Study], list[ExpectedRow]]] = {
    "truncated_slice": _truncated_slice,
    "noisy_slice": _noisy_slice,
    "missing_slices": _missing_slices,
    "slice_cut_in_header": _slice_cut_in_header,
    "single_slice": _single_slice,
    "no_rescale": _no_rescale,
    "no_geometry": _no_geometry,
    "duplicate_positions": _duplicate_positions,
    "copies_of_files": _copies_of_files,
    "magnetic_resonance": _magnetic_resonance,
    "localizer_only": _localizer_only,
    "screen_in_series": _screen_in_series,
    "no_annotation": _no_annotation,
    "annotation_only": _annotation_only,
    "annotation_of_another_series": _annotation_of_another_series,
    "annotation_in_another_frame": _annotation_in_another_frame,
    "annotation_truncated": _annotation_truncated,
    "empty_segment": _empty_segment,
    "seeds_outside": _seeds_outside,
    "no_contours": _no_contours,
    "other_files": _other_files,
    "no_images": _no_images,
}
"""Name -> spoils a healthy study, and says what must come out."""


def _cut(path: Path, share: float) -> None:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _edit(path: Path, change: Callable[[Dataset], object]) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    save(dataset, path)


def _edit_all(paths: Sequence[Path], change: Callable[[Dataset], object]) -> None:
    for path in paths:
        _edit(path, change)
