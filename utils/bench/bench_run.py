"""One case, cold: ``oncofm run`` on a CT of 300 slices with two lesions, command to files.

Prints for each engine the wall time, processor time and peak memory of the whole process (target:
2 s on two cores with OpenVINO), the same process's own account of its parts, and each part measured
alone. Usage: python utils/bench/bench_run.py [--slices 300] [--runs 3] [--syntax raw|jpegls]
    [--engine openvino|torch] [--folder FOLDER]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONCOFM = str(Path(sys.executable).with_name("oncofm"))
ENGINES = ("openvino", "torch")
SYNTAXES = {"raw": "1.2.840.10008.1.2.1", "jpegls": "1.2.840.10008.1.2.4.80"}


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


def apart(function, *arguments) -> None:
    """Call a function in a process of its own, so that this one stays small."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{function.__name__} failed")


def run_cold(command: list[str]) -> tuple[float, float]:
    """Wall seconds of a process, and seconds that it kept processors busy."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - started, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    busy = after.children_user + after.children_system
    return seconds, busy - before.children_user - before.children_system


def run_in_series(study: Path, weights: Path, engine: str, output: Path) -> None:
    """Print the seconds of each step, one after the other in a fresh process."""
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        print(f"    {name:<26} {time.perf_counter() - clock:7.3f} s", flush=True)
        clock = time.perf_counter()

    from oncofm.encoders.load import import_engine, load_encoder

    import_engine("fmcib", weights, engine=engine)
    lap("import the engine")
    encoder = load_encoder("fmcib", weights, engine=engine)
    lap("load weights")

    import numpy as np

    from oncofm.imaging.dicom_series import ct_volumes
    from oncofm.imaging.patch import PatchSpec, sample_patch
    from oncofm.imaging.scan import scan_dicom
    from oncofm.results.table import ResultTable, table_from_rows, write_table
    from oncofm.seeds.dicom_seg import read_seg
    from oncofm.seeds.seed import Seed

    lap("import the rest")
    scan = scan_dicom(study)
    lap("scan headers")
    volume = ct_volumes(scan.of_modality("CT")[0]).volumes[0]
    lap("judge series")
    seg = read_seg(scan.of_modality("SEG")[0].instances[0].source)
    lap("read SEG")
    seeds = [seed for seed in seg.seeds if isinstance(seed, Seed)]
    patches = [sample_patch(volume, seed.position_mm, PatchSpec()).voxels for seed in seeds]
    lap("decode + sample")
    patches = [sample_patch(volume, seed.position_mm, PatchSpec()).voxels for seed in seeds]
    lap("  of that, sample")
    features = encoder.encode(np.stack(patches))
    lap("encode, first time")
    encoder.encode(np.stack(patches))
    lap("  encode, again")
    table = ResultTable(table_from_rows([{}, {}], {"lesion_id": str}), features)
    write_table(table, output / "features.parquet")
    write_table(table, output / "features.csv")
    lap("write tables")


def measure(study: Path, weights: Path, engine: str, runs: int, output: Path) -> None:
    """Print what one engine takes, as a whole and part by part."""
    command = [ONCOFM, "run", str(study), str(output), "--weights", str(weights)]
    command += ["--engine", engine]
    run_cold(command)  # warms the disk cache
    cold = [run_cold(command) for _ in range(runs)]
    wall, busy = (statistics.median(times) for times in zip(*cold, strict=True))
    account = json.loads((output / "run.json").read_text())
    print(
        f"{engine}: {wall:.2f} s from the command to the files, {busy:.2f} s of processor time, "
        f"peak {account['peak_memory_mib']:.0f} MiB"
    )
    print("  own account of the last run (parts overlap):")
    for part, seconds in account["seconds"].items():
        print(f"    {part:<26} {seconds:7.3f} s")
    print("  the parts in series, without overlap:", flush=True)
    apart(run_in_series, study, weights, engine, output)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one case, cold.")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--syntax", choices=SYNTAXES, default="raw")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="default: both")
    parser.add_argument("--folder", type=Path, help="keep inputs here and use them again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        inputs, weights = folder / f"{options.syntax}-{options.slices}", folder / "weights.torch"
        if not inputs.exists():
            apart(make_inputs, inputs, options.slices, options.syntax)
        if not weights.exists():
            apart(make_weights, weights)
        engines = options.engine or ENGINES
        if "openvino" in engines and not weights.with_name("weights.torch.openvino").exists():
            prepare = [ONCOFM, "weights", "prepare", "--weights", str(weights)]
            subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
        print(f"{options.slices} slices of 512 x 512, {options.syntax}, 2 lesions, fp32, CPU")
        for engine in engines:
            measure(inputs / "study", weights, engine, options.runs, Path(temporary) / "out")


if __name__ == "__main__":
    main()
