"""What the tests of batches share: tiny inputs, and readers without processes."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from fakes import VoxelEncoder

from oncofm.demo.dicom import ct_geometry, write_ct_series
from oncofm.demo.phantom import chest_scene
from oncofm.demo.rtstruct import lesion_contours, write_rtstruct
from oncofm.workflow.batch.finish import BatchResult
from oncofm.workflow.batch.reader import read_item
from oncofm.workflow.batch.usage import ReaderUsage

TINY = {"shape": (30, 20, 14), "spacing_mm": (12.0, 12.0, 10.0)}


class SmallEncoder(VoxelEncoder):
    """64 of the 4096 features, because thousands of columns take their time to be written."""

    n_features = 64

    def encode(self, patches):
        return super().encode(patches)[:, ::64]


class ReadersHere:
    """Stands in for `oncofm.workflow.batch.readers.Readers`: reads in this process."""

    def __init__(self, items, settings, *, keep_volumes=False, n_processes=2, time_limit_s=600.0):
        self._arguments = (settings, keep_volumes)
        self._items = items
        self.usage = ReaderUsage()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def messages(self):
        for item in self._items:
            yield from read_item(item, *self._arguments)


@dataclass(frozen=True)
class BatchRun:
    """How a batch ended, and what it left."""

    output: Path
    result: BatchResult
    events: list[dict[str, Any]]
    encoder: VoxelEncoder

    @property
    def n_computed(self) -> int:
        return sum(event["event"] == "case" for event in self.events)

    @property
    def cases(self) -> list[dict[str, str]]:
        return read_rows(self.output / "cases.csv")

    def rows(self, level: str) -> list[dict[str, str]]:
        return [row for row in self.cases if row["level"] == level]

    @property
    def tables(self) -> dict[str, bytes]:
        return tables_of(self.output)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tables_of(output: Path) -> dict[str, bytes]:
    """The bytes of the final tables."""
    names = ("features.parquet", "cases.csv", "predictions.csv", "skipped.csv")
    return {name: (output / name).read_bytes() for name in names if (output / name).exists()}


def leftovers(output: Path) -> list[Path]:
    """Files that no finished batch leaves."""
    known = {"features.parquet", "cases.csv", "run.json", "ledger.lock", "ledger.sqlite"}
    known |= {"catalog.sqlite", "parts", "sr", "key_images", "predictions.csv", "skipped.csv"}
    inner = [path for path in (output / "parts").iterdir() if path.suffix != ".parquet"]
    return [path for path in output.iterdir() if path.name not in known] + inner


def write_tiny_study(folder: Path, number: int, annotation: Path | None = None) -> Path:
    """A CT of 14 slices and an RTSTRUCT of three lesions, in 60 ms."""
    scene = chest_scene(number)
    name = f"tiny-{number}"
    files = write_ct_series(folder / "ct", scene, **TINY, uid_seed=name)
    contours = lesion_contours(scene, ct_geometry(scene, **TINY))
    path = annotation or folder / "lesions.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rtstruct(path, files, contours, uid_seed=f"{name}/rt")
    return folder


def write_volume(path: Path, seed: int = 0) -> Path:
    """A volume of 60 mm around the origin, LPS."""
    voxels = np.random.default_rng(seed).integers(-1000, 400, (30, 30, 30)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetOrigin((-30.0, -30.0, -30.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_manifest(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
