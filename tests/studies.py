"""Phantom studies on disk for end-to-end tests: a healthy one, and parts to build others from."""

from dataclasses import dataclass
from pathlib import Path

import pydicom

from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.phantom import Scene, chest_scene
from oncofm.demo.segmentation import lesion_segments, write_seg

GRID = {"shape": (96, 64, 36), "spacing_mm": (4.0, 4.0, 5.0)}


@dataclass(frozen=True)
class Study:
    """A CT series and its SEG with three lesions."""

    folder: Path
    scene: Scene
    ct_files: list[Path]
    seg_file: Path

    @property
    def series_uid(self) -> str:
        return pydicom.dcmread(self.ct_files[0], stop_before_pixels=True).SeriesInstanceUID

    @property
    def seg_uid(self) -> str:
        return pydicom.dcmread(self.seg_file, stop_before_pixels=True).SOPInstanceUID

    @property
    def seg_series_uid(self) -> str:
        return pydicom.dcmread(self.seg_file, stop_before_pixels=True).SeriesInstanceUID


def write_study(folder: Path, name: str, seed: int = 0, edit_seg=None, **ct) -> Study:
    """Write ``folder/ct`` and ``folder/seg.dcm``; `ct` goes to `write_ct_series`."""
    scene = chest_scene(seed)
    grid = GRID | {key: ct[key] for key in ("shape", "spacing_mm", "slice_origins_mm") if key in ct}
    ct_files = write_ct_series(folder / "ct", scene, **(GRID | ct), uid_seed=name)
    segments = lesion_segments(scene, ct_geometry(scene, **grid))
    seg_file = write_seg(
        folder / "seg.dcm", ct_files, segments, uid_seed=f"{name}/seg", edit=edit_seg
    )
    return Study(folder, scene, ct_files, seg_file)


def edit_file(path: Path, change) -> None:
    """Read a DICOM file, change its dataset, write it back."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def cut(path: Path, share: float) -> None:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
