"""One case, cold: ``oncofm run`` on a CT of 300 slices with two lesions, command to files.

Prints the wall time and peak memory of the whole process, the same process's own account of
its parts, and each part measured alone, against `import torch` + weight loading in the same
run. Usage: python utils/bench/bench_run.py [--slices 300] [--runs 3] [--syntax raw|jpegls]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYNTAXES = {"raw": "1.2.840.10008.1.2.1", "jpegls": "1.2.840.10008.1.2.4.80"}
CODE_IMPORTS = {
    "import torch": "import torch",
    "import oncofm.workflow.job": "import oncofm.workflow.job",
}


def make_inputs(folder: Path, n_slices: int, syntax: str) -> None:
    """Write a 512 x 512 phantom CT with a SEG of two lesions, and random weights."""
    from oncofm.demo.dicom import ct_geometry, write_ct_series
    from oncofm.demo.phantom import chest_scene
    from oncofm.demo.segmentation import lesion_segments, write_seg

    scene = chest_scene(0)
    grid = {"shape": (512, 512, n_slices), "spacing_mm": (0.75, 0.75, 300 / n_slices)}
    files = write_ct_series(folder / "study/ct", scene, transfer_syntax=SYNTAXES[syntax], **grid)
    segments = lesion_segments(scene, ct_geometry(scene, **grid))[:2]
    write_seg(folder / "study/seg.dcm", files, segments)


def make_weights(path: Path) -> None:
    import torch
    from oncofm.encoders.fmcib import random_weights

    torch.save({"trunk_state_dict": random_weights(0)}, path)


def run_cold(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MiB of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    words = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(command)} ended with {status}: {words.decode()}")
    return seconds, usage.ru_maxrss / 1024


def load_seconds(weights: Path) -> float:
    """Seconds that weight loading takes after `import torch`, in a process of its own."""
    code = (
        "import time, torch, pathlib; from oncofm.encoders import load_encoder; "
        f"t = time.perf_counter(); load_encoder('fmcib', pathlib.Path({str(weights)!r})); "
        "print(time.perf_counter() - t)"
    )
    return float(subprocess.check_output([sys.executable, "-c", code]))


def parts_alone(study: Path) -> dict[str, float]:
    """Each step of the pipeline by itself, warm."""
    from oncofm.imaging.dicom_series import ct_volumes
    from oncofm.imaging.patch import PatchSpec, sample_patch
    from oncofm.imaging.scan import scan_dicom
    from oncofm.seeds.dicom_seg import read_seg
    from oncofm.seeds.seed import Seed

    seconds = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] = time.perf_counter() - clock
        clock = time.perf_counter()

    scan = scan_dicom(study)
    lap("scan headers")
    volume = ct_volumes(scan.of_modality("CT")[0]).volumes[0]
    lap("judge series")
    seg = read_seg(scan.of_modality("SEG")[0].instances[0].source)
    lap("read SEG")
    seeds = [seed for seed in seg.seeds if isinstance(seed, Seed)]
    for seed in seeds:
        sample_patch(volume, seed.position_mm, PatchSpec())
    lap("decode + sample")
    for seed in seeds:
        sample_patch(volume, seed.position_mm, PatchSpec())
    lap("sample again (decoded)")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--syntax", choices=SYNTAXES, default="raw")
    parser.add_argument("--folder", type=Path, help="keep inputs here and use them again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        inputs, weights = folder / f"{options.syntax}-{options.slices}", folder / "weights.torch"
        if not inputs.exists():
            make_inputs(inputs, options.slices, options.syntax)
        if not weights.exists():
            make_weights(weights)
        output = Path(temporary) / "out"
        oncofm = str(Path(sys.executable).with_name("oncofm"))
        command = [oncofm, "run", str(inputs / "study"), str(output), "--weights", str(weights)]
        run_cold(command)  # warms the disk cache

        walls, peaks, baselines, manifests = [], [], [], []
        for _ in range(options.runs):
            torch_seconds, torch_peak = run_cold([sys.executable, "-c", "import torch"])
            baselines.append(torch_seconds + load_seconds(weights))
            wall, peak = run_cold(command)
            walls.append(wall)
            peaks.append(peak)
            manifests.append(json.loads((output / "run.json").read_text()))
        wall, baseline = statistics.median(walls), statistics.median(baselines)
        print(f"{options.slices} slices of 512 x 512, {options.syntax}, 2 lesions, fp32, CPU")
        print(f"  oncofm run, cold process     {wall:7.2f} s   peak {max(peaks):6.0f} MiB")
        print(
            f"  import torch + load weights  {baseline:7.2f} s   (torch alone {torch_peak:.0f} MiB)"
        )
        print(f"  beyond that                  {wall - baseline:7.2f} s   (target < 3 s)")
        print("  own account of the last run (parts overlap):")
        for part, seconds in manifests[-1]["seconds"].items():
            print(f"    {part:<26} {seconds:7.3f} s")
        print("  parts alone, warm:")
        for part, seconds in parts_alone(inputs / "study").items():
            print(f"    {part:<26} {seconds:7.3f} s")


if __name__ == "__main__":
    main()
