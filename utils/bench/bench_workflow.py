"""Many instances through an MHub workflow: what the framework costs, per instance.

Writes small phantom cases (DICOM CT + SEG, one lesion each), then runs them in fresh processes,
through ``mhub.run --workflow default`` and through the same steps without mhubio. The encoder
has no network, so that the difference is the framework's: instances, modules, and the table per
instance that MHub's users expect. Every process runs a few cases first, so that imports count
for neither. Usage: python utils/bench/bench_workflow.py [--instances 50 200] [--runs 3]
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_GRID = {"shape": (72, 48, 26), "spacing_mm": (5.0, 5.0, 7.0)}
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_N_WARM_UP = 2


def make_cases(folder: Path, n_cases: int) -> None:
    """Write cases that share their voxels and differ in their UIDs."""
    import pydicom

    from oncofm.demo.dicom import ct_geometry, write_ct_series
    from oncofm.demo.phantom import chest_scene
    from oncofm.demo.segmentation import lesion_segments, write_seg

    scene = chest_scene(0)
    files = write_ct_series(folder / "template/ct", scene, **_GRID, uid_seed="bench")
    segment = lesion_segments(scene, ct_geometry(scene, **_GRID))[:1]
    seg = write_seg(folder / "template/seg.dcm", files, segment, uid_seed="bench/seg")
    uids = {str(pydicom.dcmread(file)[name].value) for file in (*files, seg) for name in _UIDS}
    template = {path: path.read_bytes() for path in (*files, seg)}
    for number in range(n_cases):
        # All UIDs have a length of at least 40, so that the last digits can be replaced.
        suffix = f"{number:05d}".encode()
        for path, content in template.items():
            for uid in uids:
                content = content.replace(uid.encode(), uid[:-5].encode() + suffix)
            target = folder / f"case-{number:05d}" / path.relative_to(folder / "template")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for path in template:
        path.unlink()


class VoxelEncoder:
    """Stands for the network: some voxels of the patch."""

    device, precision, engine = "cpu", "fp32", "voxels"
    n_features, batch_size = 4096, 8

    def __init__(self) -> None:
        from oncofm.encoders.encoder import Weights

        self.weights = Weights("fmcib", None, "0" * 64, "none", random_seed=0)
        self.batches: list[int] = []

    def encode(self, patches: Any) -> Any:
        """Take every thirtieth voxel."""
        self.batches.append(len(patches))
        return patches.reshape(len(patches), -1)[:, : 4096 * 30 : 30].copy()


class Loads:
    """Stands for `start_loading`, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.encoder = VoxelEncoder()

    def __call__(self, *_: Any) -> Callable[[], VoxelEncoder]:
        """Give what gives the encoder."""
        self.count += 1
        return lambda: self.encoder


def run_workflow(source: Path, output: Path) -> Loads:
    from oncofm.workflow.mhub import context
    from oncofm.workflow.mhub.models import (
        choose_model,
        choose_workflow,
        find_models,
        read_workflow,
    )
    from oncofm.workflow.mhub.run import run_workflow as run

    context.start_loading = loads = Loads()
    model = choose_model(find_models(), "fmcib")
    workflow = read_workflow(choose_workflow(model, "default"))
    code = run(workflow, model, places={"source_dir": source, "output_dir": output})
    if code:
        sys.exit(f"the workflow ended with {code}")
    return loads


def run_job(source: Path, output: Path) -> Loads:
    from oncofm.workflow import job
    from oncofm.workflow.settings import Settings

    job.start_loading = loads = Loads()
    result = job.run_job([source], output, Settings(seed_kinds=("seg",)))
    if result.manifest.summary.exit_code:
        sys.exit(f"the job ended with {result.manifest.summary.exit_code}")
    return loads


WAYS = {"mhub.run": run_workflow, "without mhubio": run_job}


def measure(way: str, warm_up: Path, source: Path, output: Path, answer: Path) -> None:
    """Run once, in a process of its own, and write down what it took."""
    from oncofm.workflow.timing import peak_memory_mib

    # Peak memory starts at what importing costs.
    WAYS[way](warm_up, output / "warm")
    started = time.perf_counter()
    loads = WAYS[way](source, output / "timed")
    seconds = time.perf_counter() - started
    manifest = json.loads((output / "timed" / "run.json").read_text())
    found = {
        "seconds": seconds,
        "loads": loads.count,
        "batches": len(loads.encoder.batches),
        "peak_mib": peak_memory_mib(),
        "parts": manifest["seconds"],
    }
    answer.write_text(json.dumps(found))


def apart(function: Callable, *arguments: Any) -> None:
    """Call a function in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{function.__name__} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description="Many instances through a workflow.")
    parser.add_argument("--instances", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        apart(make_cases, folder / "warm", _N_WARM_UP)
        for n_cases in options.instances:
            source = folder / f"{n_cases}"
            apart(make_cases, source, n_cases)
            found: dict[str, list[dict]] = {way: [] for way in WAYS}
            for run in range(options.runs):
                for number, way in enumerate(WAYS):
                    output = folder / f"output-{n_cases}-{run}-{number}"
                    answer = folder / "answer.json"
                    apart(measure, way, folder / "warm", source, output, answer)
                    found[way].append(json.loads(answer.read_text()))
            report(n_cases, found)


def report(n_cases: int, found: dict[str, list[dict]]) -> None:
    medians = {
        way: statistics.median(run["seconds"] for run in runs) for way, runs in found.items()
    }
    with_mhubio, without = medians.values()
    print(f"{n_cases} instances")
    for way, seconds in medians.items():
        peak = max(run["peak_mib"] for run in found[way])
        first = found[way][0]
        print(
            f"  {way:<16} {seconds:7.2f} s  {1e3 * seconds / n_cases:6.1f} ms per instance  "
            f"peak {peak:6.0f} MiB  {first['loads']} model load(s)  {first['batches']} batches"
        )
        print("    " + ", ".join(f"{part} {value} s" for part, value in first["parts"].items()))
    print(f"  framework        {1e3 * (with_mhubio - without) / n_cases:20.1f} ms per instance")


if __name__ == "__main__":
    main()
