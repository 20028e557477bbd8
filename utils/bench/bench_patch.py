"""What one patch costs: against the whole-volume pipeline, and as the series grows.

Prints (a) time and memory from a folder of DICOM to one patch, for oncofm and for MONAI's
transforms on the whole volume, each in a process of its own, and (b) the cost of each step as
the series grows while the lesion stays the same.
Usage: python utils/bench/bench_patch.py [--slices 300] [--growth 100 200 400 800]
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPEATS = 5


class Laps:
    """Seconds of one step after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = time.perf_counter()

    def note(self, step: str) -> None:
        """End a step."""
        now = time.perf_counter()
        self.seconds[step] = now - self._clock
        self._clock = now


def make_series(folder: Path, n_slices: int) -> list[Path]:
    """Write a 512 x 512 phantom CT, 0.75 x 0.75 x 1 mm, uncompressed."""
    from oncofm.demo.dicom import write_ct_series
    from oncofm.demo.phantom import chest_scene

    return write_ct_series(
        folder, chest_scene(), shape=(512, 512, n_slices), spacing_mm=(0.75, 0.75, 1.0)
    )


def choose_middle(files: list[Path], n_slices: int, folder: Path) -> Path:
    """Link the middle of a series into a folder of its own."""
    folder.mkdir()
    start = (len(files) - n_slices) // 2
    for path in files[start : start + n_slices]:
        os.link(path, folder / path.name)
    return folder


def seed_mm() -> tuple[float, float, float]:
    from oncofm.demo.phantom import chest_scene

    return chest_scene().lesions[1].centre_mm


def patch_by_oncofm(folder: Path) -> tuple[dict[str, float], object]:
    """From files to a patch, nothing cached but by the operating system."""
    from oncofm.imaging.dicom_series import ct_volumes
    from oncofm.imaging.patch import PatchSpec, sample_patch
    from oncofm.imaging.scan import scan_dicom

    laps = Laps()
    (series,) = scan_dicom(folder).series
    laps.note("scan")
    (volume,) = ct_volumes(series).volumes
    laps.note("open")
    sample_patch(volume, seed_mm(), PatchSpec())
    laps.note("decode")
    patch = sample_patch(volume, seed_mm(), PatchSpec())
    laps.note("sample")
    laps.seconds["decode"] -= laps.seconds["sample"]  # the first call does both
    return laps.seconds, patch.voxels


def patch_by_monai(folder: Path) -> tuple[dict[str, float], object]:
    """From files to a patch as the public pipeline goes, which resamples the whole volume."""
    import numpy as np
    import SimpleITK as sitk
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.croppad.array import SpatialPad
    from monai.transforms.intensity.array import ScaleIntensityRange
    from monai.transforms.spatial.array import Flip, Spacing

    laps = Laps()
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    itk_image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(itk_image.GetDirection(), (3, 3)) * itk_image.GetSpacing()
    affine[:3, 3] = itk_image.GetOrigin()
    hu = sitk.GetArrayFromImage(itk_image).transpose(2, 1, 0)[None].astype(np.float32)
    image: Any = MetaTensor(hu, affine=torch.from_numpy(np.diag([-1.0, -1, 1, 1]) @ affine))
    laps.note("read")
    image = ScaleIntensityRange(-1024, 2048, 0, 1)(image)
    image = Spacing(1.0, diagonal=True, padding_mode="zeros", align_corners=True)(image)
    image = Flip((0, 1))(image)
    x, y, z = seed_mm()
    centre = np.linalg.inv(image.affine.numpy()) @ np.array([-x, -y, z, 1])
    box = tuple(slice(max(int(c) - 25, 0), int(c) + 25) for c in centre[:3])
    patch = SpatialPad((50, 50, 50))(image[(slice(None), *box)].permute(0, 3, 2, 1))
    laps.note("preprocess")
    return laps.seconds, patch.numpy()


PIPELINES: dict[str, Callable[[Path], tuple[dict[str, float], object]]] = {
    "oncofm": patch_by_oncofm,
    "monai": patch_by_monai,
}


def memory_mib(field: str) -> float:
    """VmRSS or VmHWM of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def work(name: str, folder: Path, warm_up: Path, patch_file: Path) -> None:
    """Measure one pipeline in this process: imports and first calls on a tiny series first."""
    import numpy as np

    pipeline = PIPELINES[name]
    pipeline(warm_up)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory_mib("VmRSS")
    runs = [pipeline(folder)]
    peak_mib = memory_mib("VmHWM") - before
    if name == "oncofm":
        runs += [pipeline(folder) for _ in range(REPEATS - 1)]
    np.save(patch_file, runs[0][1])  # type: ignore[arg-type]
    seconds = {step: statistics.median(run[0][step] for run in runs) for step in runs[0][0]}
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib}))


def measure(name: str, folder: Path, warm_up: Path, patch_file: Path) -> dict:
    command = [sys.executable, __file__, "--worker", name, str(folder), str(warm_up)]
    return json.loads(subprocess.check_output([*command, str(patch_file)]))


def compare(folder: Path, warm_up: Path, scratch: Path) -> bool:
    import numpy as np

    results, patches = {}, {}
    for name in PIPELINES:
        patch_file = scratch / f"{name}.npy"
        results[name] = measure(name, folder, warm_up, patch_file)
        patches[name] = np.load(patch_file)
        steps = ", ".join(f"{k} {v * 1e3:.1f} ms" for k, v in results[name]["seconds"].items())
        total = sum(results[name]["seconds"].values())
        print(f"  {name:7} {total:8.3f} s {results[name]['peak_mib']:8.0f} MiB   ({steps})")
    ours, theirs = results["oncofm"], results["monai"]
    time_ratio = sum(theirs["seconds"].values()) / sum(ours["seconds"].values())
    own_steps = ours["seconds"]["decode"] + ours["seconds"]["sample"]
    memory_ratio = theirs["peak_mib"] / ours["peak_mib"]
    print(f"  files to patch: {time_ratio:.0f} x faster (target 100)")
    print(
        f"  open volume to patch against preprocessing of voxels in memory: "
        f"{theirs['seconds']['preprocess'] / own_steps:.0f} x faster"
    )
    print(f"  {memory_ratio:.0f} x less memory (target 20)")
    difference = np.abs(patches["oncofm"] - patches["monai"]).max()
    print(f"  largest difference of the patches: {difference:.1e}")
    return time_ratio >= 100 and memory_ratio >= 20


def grow(files: list[Path], counts: list[int], scratch: Path) -> bool:
    steps = ("scan", "open", "decode", "sample")
    print("  slices " + "".join(f"{step:>11}" for step in steps) + "      total")
    rows = []
    for count in counts:
        folder = choose_middle(files, count, scratch / f"grow-{count}")
        runs = [patch_by_oncofm(folder)[0] for _ in range(REPEATS)]
        row = {step: statistics.median(run[step] for run in runs) for step in steps}
        rows.append(row)
        cells = [*row.values(), sum(row.values())]
        print(f"  {count:6} " + "".join(f"{cell * 1e3:8.1f} ms" for cell in cells))
    first, last = rows[0], rows[-1]
    scan_growth = last["scan"] / first["scan"]
    total_growth = sum(last.values()) / sum(first.values())
    print(f"  growth: scan {scan_growth:.1f} x, total {total_growth:.1f} x (must not be more)")
    return total_growth <= scan_growth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--growth", type=int, nargs="+", default=[100, 200, 400, 800])
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, *paths = arguments.worker
        work(name, *map(Path, paths))
        return
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        n_slices = max(arguments.slices, *arguments.growth)
        print(f"writing {n_slices} slices of 512 x 512 ...", flush=True)
        files = make_series(scratch / "all", n_slices)
        warm_up = choose_middle(files, 60, scratch / "warm-up")
        folder = choose_middle(files, arguments.slices, scratch / "case")
        print(f"(a) one lesion in 512 x 512 x {arguments.slices}, from files to patch")
        is_fast = compare(folder, warm_up, scratch)
        print("(d) one lesion in a growing series")
        is_flat = grow(files, sorted(arguments.growth), scratch)
    sys.exit(0 if is_fast and is_flat else 1)


if __name__ == "__main__":
    main()
