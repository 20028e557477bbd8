"""Many cases: ``oncofm batch`` against single cases, the whole-volume way, and its bound.

Prints, from one run on one machine: (a) cases/s of the batch against MONAI's whole-volume pipeline
for each lesion, (b) against ``oncofm run`` in a loop, (c) as a share of the bound set by the slower
of reading (headers, decoding, sampling) and encoding, each measured alone, and (d) the memory of
all processes together at two numbers of cases.
Usage: python utils/bench/bench_batch.py [--cases 200] [--slices 300] [--syntax raw|jpegls]
    [--workers 2] [--loop 3] [--engine torch|openvino] [--precision fp32|bf16]
    [--folder FOLDER]

The cases are links to a few series, so that the disk holds them all; what a disk reads in a second
is therefore not part of the bound.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench_patch import patch_by_monai
from bench_run import SYNTAXES, apart, make_weights

N_TEMPLATES = 3
ONCOFM = str(Path(sys.executable).with_name("oncofm"))


def make_templates(folder: Path, n_slices: int, syntax: str) -> None:
    """Write some 512 x 512 phantom studies with two lesions each."""
    from oncofm.demo.dicom import ct_geometry, write_ct_series
    from oncofm.demo.phantom import chest_scene
    from oncofm.demo.segmentation import lesion_segments, write_seg

    for number in range(N_TEMPLATES):
        scene, study = chest_scene(number), folder / f"study-{number}"
        grid = {"shape": (512, 512, n_slices), "spacing_mm": (0.75, 0.75, 300 / n_slices)}
        name = f"bench-{number}"
        files = write_ct_series(
            study / "ct", scene, transfer_syntax=SYNTAXES[syntax], uid_seed=name, **grid
        )
        segments = lesion_segments(scene, ct_geometry(scene, **grid))[:2]
        write_seg(study / "seg.dcm", files, segments, uid_seed=f"{name}/seg")


def link_cases(templates: Path, folder: Path, n_cases: int) -> Path:
    """Make folders of links, and the manifest that lists them."""
    folder.mkdir()
    studies = sorted(templates.iterdir())
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case_id", "image_path"])
        for number in range(n_cases):
            case = folder / f"case-{number:05d}"
            for path in sorted(studies[number % len(studies)].rglob("*.dcm")):
                place = case / path.relative_to(studies[number % len(studies)])
                place.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, place)
            writer.writerow([case.name, case.name])
    return folder / "cases.csv"


class Memory(threading.Thread):
    """Watches the memory of a process and everything it has started."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak_mib = 0.0

    def run(self) -> None:
        """Look twice a second until the process is gone."""
        while Path(f"/proc/{self.pid}").exists():
            self.peak_mib = max(self.peak_mib, sum(map(_pss_mib, _family(self.pid))))
            time.sleep(0.5)


def _family(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for t in tasks for child in (t / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(child))]


def _pss_mib(pid: int) -> float:
    """Share of a process in the memory that is in use; shared pages count once."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def run_watched(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    memory = Memory(process.pid)
    memory.start()
    _, words = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {words.decode()}")
    return seconds, memory.peak_mib


def read_seconds(folders: list[Path]) -> float:
    """Seconds that one process takes to read a case and to sample its lesions."""
    from oncofm.workflow.batch.items import Item
    from oncofm.workflow.batch.reader import read_item
    from oncofm.workflow.settings import Settings

    def read(number: int, folder: Path) -> float:
        started = time.perf_counter()
        list(read_item(Item(number, folder.name, "", (folder,)), Settings(), keep_volumes=False))
        return time.perf_counter() - started

    read(0, folders[0])
    return statistics.median(read(number, folder) for number, folder in enumerate(folders))


def encode_seconds(weights: Path, engine: str, precision: str) -> float:
    """Seconds for a patch, in batches of eight."""
    import numpy as np

    from oncofm.encoders import load_encoder

    encoder = load_encoder("fmcib", weights, engine=engine, precision=precision)
    patches = np.random.default_rng(0).random((8, 1, 50, 50, 50), np.float32)
    encoder.encode(patches)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        encoder.encode(patches)
        times.append(time.perf_counter() - started)
    return statistics.median(times) / len(patches)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time oncofm batch.")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--syntax", choices=SYNTAXES, default="raw")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--loop", type=int, default=3, help="single cases to time")
    parser.add_argument("--engine", choices=("torch", "openvino"), default="torch")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--folder", type=Path, help="where to put some GB of files")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        apart(make_weights, folder / "weights.torch")
        apart(make_templates, folder / "templates", given.slices, given.syntax)
        if given.engine == "openvino":
            prepare = [ONCOFM, "weights", "prepare", "--weights", str(folder / "weights.torch")]
            subprocess.run(prepare, check=True)
        measure(folder, given)


def measure(folder: Path, given: argparse.Namespace) -> None:
    weights = folder / "weights.torch"
    own = ["--weights", str(weights), "--engine", given.engine, "--precision", given.precision]

    def batch(n_cases: int) -> tuple[float, float]:
        manifest = link_cases(folder / "templates", folder / f"cases-{n_cases}", n_cases)
        output = folder / f"out-{n_cases}"
        command = [ONCOFM, "batch", str(manifest), str(output), *own]
        return run_watched([*command, "--workers", str(given.workers)])

    few = max(2, given.cases // 10)
    few_seconds, few_mib = batch(few)
    seconds, mib = batch(given.cases)
    # What starting and ending costs is in both, so that the difference is the work itself.
    per_case = (seconds - few_seconds) / (given.cases - few)

    folders = sorted((folder / f"cases-{given.cases}").glob("case-*"))[: 2 * N_TEMPLATES]
    loop = statistics.median(
        run_watched([ONCOFM, "run", str(case), str(folder / f"loop-{case.name}"), *own])[0]
        for case in folders[: given.loop]
    )
    laps, _ = patch_by_monai(folders[0] / "ct")
    read = read_seconds(folders)
    encode = encode_seconds(weights, given.engine, given.precision)
    whole_volume = 2 * (sum(laps.values()) + encode)
    bound = max(2 * encode, read / given.workers)
    print(
        f"{given.cases} cases of {given.slices} slices ({given.syntax}), 2 lesions, "
        f"{given.engine}, {given.precision}"
    )
    print(f"batch                     {seconds:8.1f} s, {per_case:6.3f} s a case after the start")
    print(
        f"(a) whole volume, MONAI   {whole_volume:8.2f} s a case: {whole_volume / per_case:.0f} x"
    )
    print(f"(b) oncofm run in a loop  {loop:8.2f} s a case: {loop / per_case:.1f} x")
    print(f"(c) reading, one process  {read:8.3f} s a case; encoding {2 * encode:.3f} s a case")
    print(f"    bound                 {bound:8.3f} s a case: {bound / per_case:.0%} reached")
    shared = (2 * encode * os.cpu_count() + read) / os.cpu_count()  # pyright: ignore[reportOperatorIssue]
    print(
        f"    all on {os.cpu_count()} cores        {shared:8.3f} s a case: {shared / per_case:.0%}"
    )
    print(
        f"(d) memory of all processes: {few} cases {few_mib:.0f} MiB, {given.cases} {mib:.0f} MiB"
    )


if __name__ == "__main__":
    main()
