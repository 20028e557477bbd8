"""Parts that the tests of the MHub layer share: results of a run, an image's layout, an oracle."""

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oncofm.demo.dicom import ct_geometry
from oncofm.demo.phantom import sample_scene
from oncofm.demo.samples import _SHAPE, _SPACING_MM, Sample
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.resources import resource_dir

FEATURES = [f"feature_{number}" for number in range(4096)]


@dataclass(frozen=True)
class Run:
    """What a run left behind."""

    code: int
    stdout: str
    stderr: str
    output: Path

    @property
    def cases(self) -> list[dict[str, str]]:
        return read_csv(self.output / "cases.csv")

    def rows(self, level: str) -> list[dict[str, str]]:
        return [row for row in self.cases if row["level"] == level]

    @property
    def manifest(self) -> dict:
        return json.loads((self.output / "run.json").read_text(encoding="utf-8"))

    def features(self, case_id: str) -> np.ndarray:
        rows = read_csv(self.output / case_id / "features.csv")
        return np.array([[float(row[name]) for name in FEATURES] for row in rows], np.float32)

    def complaint(self) -> str:
        """The one sentence of a run that could not start."""
        assert self.code == 1, self.stderr
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("mhub.run: ")
        assert lines[0].endswith("."), lines[0]
        return lines[0].removeprefix("mhub.run: ")


class PhantomVolume:
    """The phantom itself, in memory: no file format between it and the patch."""

    notices = ()

    def __init__(self, scene) -> None:
        self.volume_id = "phantom"
        self.geometry = ct_geometry(scene, _SHAPE, _SPACING_MM)
        self.voxels = sample_scene(scene, self.geometry).astype(np.int16).astype(np.float32)

    def release(self):
        pass

    def read_box(self, start, stop):
        (i, j, k), (i_, j_, k_) = start, stop
        return self.voxels[k:k_, j:j_, i:i_]


def true_patches(sample: Sample, positions_mm=None) -> np.ndarray:
    """Patches at the true centres of a phantom's lesions, or at given points."""
    volume = PhantomVolume(sample.scene)
    positions_mm = positions_mm or [lesion.centre_mm for lesion in sample.scene.lesions]
    return np.stack([sample_patch(volume, at, PatchSpec()).voxels for at in positions_mm])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def snapshot(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Hash, mode and time of every file and folder."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (content, status.st_mode, status.st_mtime_ns)
    return found


def install_model(root: Path, name: str = "fmcib") -> Path:
    """Lay a model out as in an image, ``<root>/<name>/{config,utils}``; other modules can join."""
    model = root / name
    for place, files in (("config", resource_dir("config")), ("utils", resource_dir("mhub"))):
        (model / place).mkdir(parents=True)
        for file in files.glob("*.yml" if place == "config" else "*.py"):
            (model / place / file.name).write_bytes(file.read_bytes())
    return model
