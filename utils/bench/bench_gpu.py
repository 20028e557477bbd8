"""A GPU: its matrix peak, the encoder's share of it, and what limits ``oncofm batch`` there.

One run prints everything; a part that fails says so and the others go on. Weights are random (seed
0) and speed does not depend on them. Nothing is downloaded.
Usage: python utils/bench/bench_gpu.py [--device cuda] [--quick] [--cases 512] [--slices 100]
    [--workers 16]

``--quick`` takes small sizes, and with ``--device cpu`` shows that the program works.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from bench_batch import ONCOFM, link_cases, make_templates, read_seconds, run_watched
from torch import Tensor

from oncofm.encoders import folded_gpu, load_encoder
from oncofm.encoders.fmcib import FLOP_PER_PATCH, PATCH_SIZE, random_weights
from oncofm.encoders.gpu import Gpu
from oncofm.encoders.precision import DTYPES, arithmetic

Seconds = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Plan:
    """How large everything is."""

    device: torch.device
    quick: bool
    workers: int
    cases: int
    slices: int

    @property
    def is_gpu(self) -> bool:
        """Whether there is a card."""
        return self.device.type == "cuda"

    @property
    def matrix_sizes(self) -> tuple[int, ...]:
        """Edges of the products that give the peak."""
        return (256, 512) if self.quick else (4096, 8192, 12288, 16384)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Patches at once."""
        return (1, 2) if self.quick else (64, 128, 256, 512)

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the device computes with."""
        return ("fp32", "tf32", "bf16") if self.is_gpu else ("fp32", "bf16")

    @property
    def n_compared(self) -> int:
        """Patches whose features are compared with those of the CPU."""
        return 2 if self.quick else 16


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the encoder on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cases", type=int, default=512)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where to put some GB of files")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    plan = Plan(device, given.quick, given.workers, given.cases, given.slices)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        weights = Path(name) / "weights.torch"
        torch.save({"trunk_state_dict": random_weights(0)}, weights)
        attempt(describe, plan)
        peaks = attempt(print_peaks, plan) or {}
        reference = attempt(features_on_cpu, plan, weights)
        for precision in plan.precisions:
            attempt(print_precision, plan, weights, precision, peaks.get(precision), reference)
        attempt(print_end_to_end, plan, weights, Path(name))
    print(f"\n{time.perf_counter() - started:.0f} s in all")


def attempt(part: Callable[..., Any], *arguments: Any) -> Any:
    """Run a part; what goes wrong is printed."""
    try:
        return part(*arguments)
    except (Exception, SystemExit) as error:
        print(f"{getattr(part, '__name__', part)} FAILED: {type(error).__name__}: {error}")
        return None
    finally:
        sys.stdout.flush()
        torch.cuda.empty_cache()


def describe(plan: Plan) -> None:
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, ", end="")  # pyright: ignore
    print(f"cuDNN {torch.backends.cudnn.version()}, {os.cpu_count()} cores")
    if plan.is_gpu:
        facts = torch.cuda.get_device_properties(plan.device)
        memory_gib = facts.total_memory / 2**30
        print(f"{facts.name}, {facts.multi_processor_count} multiprocessors, {memory_gib:.0f} GiB")
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit"]
        print(subprocess.check_output([*query, "--format=csv"], text=True).strip())


def timer(plan: Plan) -> Seconds:
    """Get what takes the median time of some work on the device."""

    def once(work: Callable[[], object]) -> float:
        if not plan.is_gpu:
            started = time.perf_counter()
            work()
            return time.perf_counter() - started
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3

    def seconds(work: Callable[[], object]) -> float:
        once(work)
        guess = once(work)
        n = 1 if plan.quick else max(5, min(100, int(0.5 / guess)))
        return statistics.median(once(work) for _ in range(n))

    return seconds


def print_peaks(plan: Plan) -> dict[str, float]:
    """Best rate of a matrix product over some sizes, in FLOP/s."""
    seconds, peaks = timer(plan), {}
    for precision in plan.precisions:
        rates = {}
        with arithmetic(precision):
            for size in plan.matrix_sizes:
                shape = {"size": (size, size), "device": plan.device}
                a, b = (torch.randn(**shape).to(DTYPES[precision]) for _ in range(2))
                out = torch.empty_like(a)
                elapsed = seconds(partial(torch.mm, a, b, out=out))
                rates[size] = 2 * size**3 / elapsed
        size = max(rates, key=rates.__getitem__)
        peaks[precision] = rates[size]
        print(f"matrix product, {precision}: {rates[size] / 1e12:.1f} TFLOP/s ({size} squared)")
    return peaks


def make_patches(n: int) -> np.ndarray:
    """From smooth to grainy, as `n` different lesions."""
    generator = np.random.default_rng(0)
    coarse = generator.random((n, 1, 5, 5, 5), np.float32).repeat(10, 2).repeat(10, 3).repeat(10, 4)
    fine = generator.random(coarse.shape, np.float32)
    share = np.linspace(0.1, 0.9, n, dtype=np.float32).reshape(n, 1, 1, 1, 1)
    return share * coarse + (1 - share) * fine


def features_on_cpu(plan: Plan, weights: Path) -> np.ndarray:
    encoder = load_encoder("fmcib", weights, device="cpu", engine="torch")
    return encoder.encode(make_patches(plan.n_compared))


# --- the encoder --------------------------------------------------------------------------


def print_precision(
    plan: Plan, weights: Path, precision: str, peak: float | None, reference: np.ndarray | None
) -> None:
    encoder: Any = load_encoder(
        "fmcib", weights, device=str(plan.device), precision=precision, engine="torch"
    )
    automatic = encoder.batch_size
    if reference is not None:
        print_difference(encoder.encode(make_patches(len(reference))), reference, precision)
    compute = (
        encoder._compute
        if plan.is_gpu
        else partial(folded_gpu.run_on_gpu, encoder._network)  # what a GPU would run
    )
    print(f"batch size by itself: {automatic}")
    print(f"{precision:5} {'batch':>5}  network, lesions/s (share of the peak)    copying there")
    with torch.inference_mode(), arithmetic(precision):
        for n in plan.batch_sizes:
            attempt(print_batch, plan, compute, precision, n, peak)
        n = plan.batch_sizes[-2]
        attempt(print_variants, plan, compute, precision, n, peak)
        if precision != "tf32":
            attempt(print_kernels, plan, compute, n)
    for n in plan.batch_sizes:
        attempt(print_encode, plan, encoder, n)


def print_difference(features: np.ndarray, reference: np.ndarray, name: str) -> None:
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(reference, axis=1)
    cosine = ((features * reference).sum(1) / norms).min()
    largest = np.abs(features - reference).max()
    print(
        f"\n{name}: largest difference to fp32 on the CPU {largest:.2e} (features reach "
        f"{reference.max():.1f}), smallest cosine {cosine:.7f}"
    )


def print_batch(
    plan: Plan, compute: Callable[[Tensor], Tensor], precision: str, n: int, peak: float | None
) -> None:
    seconds = timer(plan)
    x = torch.from_numpy(make_patches(min(n, 64))).movedim(1, -1).to(plan.device)
    x = x.repeat(-(-n // len(x)), 1, 1, 1, 1)[:n].contiguous()
    plain = seconds(lambda: compute(x))
    line = f"{precision:5} {n:5}  plain {rate(n, plain, peak)}"
    if plan.is_gpu:
        torch.cuda.reset_peak_memory_stats()
        gpu = Gpu(plan.device)
        before = torch.cuda.memory_allocated()
        replay = gpu.capture(lambda: compute(x), gpu.lane())
        same = torch.equal(replay(), compute(x))
        graph = seconds(replay)
        used_mib = (torch.cuda.max_memory_allocated() - before) / 2**20
        staged = gpu.staging(tuple(x.shape))
        copy = seconds(lambda: x.copy_(staged, non_blocking=True))
        line += f"  graph {rate(n, graph, peak)}, bytes {'equal' if same else 'DIFFER'}"
        line += f"  copy {copy / graph:5.1%}, {x.nbytes / copy / 1e9:.0f} GB/s"
        line += f"  {used_mib:.0f} MiB"
    print(line)


def rate(n: int, seconds: float, peak: float | None) -> str:
    share = n * FLOP_PER_PATCH / seconds / peak if peak else float("nan")
    return f"{n / seconds:8.1f} ({share:4.0%})"


def print_encode(plan: Plan, encoder: Any, n: int) -> None:
    """Time `encode` from numpy to numpy: copying, checking, and eight batches in a row."""
    patches = make_patches(min(n, 64))
    patches = np.resize(patches, (n * (1 if plan.quick else 8), *patches.shape[1:]))
    encoder.batch_size = n
    if plan.is_gpu:
        encoder._pipeline = None
    encoder.encode(patches[:n])
    for name, few in (("one batch", patches[:n]), (f"{len(patches) // n} batches", patches)):
        started = time.perf_counter()
        encoder.encode(few)
        elapsed = time.perf_counter() - started
        print(f"{encoder.precision:5} {encoder.batch_size:5}  encode, {name}: ", end="")
        print(f"{len(few) / elapsed:8.1f} lesions/s")


def print_variants(
    plan: Plan, compute: Callable[[Tensor], Tensor], precision: str, n: int, peak: float | None
) -> None:
    """Time what else could run the network, and say how far its features are from ours."""
    seconds = timer(plan)
    x = torch.from_numpy(make_patches(min(n, 64))).movedim(1, -1).to(plan.device)
    x = x.repeat(-(-n // len(x)), 1, 1, 1, 1)[:n].contiguous()
    ours = compute(x)

    def show(name: str, run: Callable[[Tensor], Tensor]) -> None:
        difference = (run(x) - ours).abs().max().item()
        elapsed = seconds(lambda: run(x))
        print(f"{precision:5} {n:5}  {name} {rate(n, elapsed, peak)}, difference {difference:.1e}")

    def show_cudnn(name: str, limit: int) -> None:
        def convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
            if x.shape[3] < limit:
                return by_rows(x, weight, bias, stride)
            x, weight = x.permute(0, 4, 1, 2, 3), weight.permute(0, 4, 1, 2, 3)
            out = F.conv3d(x, weight, bias, stride, padding=1).relu_()
            return out.permute(0, 2, 3, 4, 1).contiguous()

        by_rows = folded_gpu._convolve_3x3x3
        allow_tf32 = precision != "fp32"
        with (
            mock.patch.object(folded_gpu, "_convolve_3x3x3", convolve),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=allow_tf32, deterministic=True),
        ):
            show(name, compute)

    attempt(show_cudnn, "cuDNN for all 3x3x3", 0)
    attempt(show_cudnn, "cuDNN for large maps", 7)
    if plan.is_gpu and not plan.quick and precision == "bf16":
        attempt(show, "torch.compile", torch.compile(compute))


def print_kernels(plan: Plan, compute: Callable[[Tensor], Tensor], n: int) -> None:
    """Where the time goes."""
    x = torch.rand(n, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE, 1, device=plan.device)
    with torch.profiler.profile() as profile:
        compute(x)
        if plan.is_gpu:
            torch.cuda.synchronize()
    kind = "device" if plan.is_gpu else "cpu"
    events = profile.key_averages()
    total = sum(getattr(event, f"self_{kind}_time_total") for event in events)
    ranked = sorted(events, key=lambda event: -getattr(event, f"self_{kind}_time_total"))
    for event in ranked[:10]:
        share = getattr(event, f"self_{kind}_time_total") / max(total, 1)
        print(f"      {share:6.1%}  {event.count:4} x  {event.key[:90]}")


# --- from files to features ---------------------------------------------------------------


def print_end_to_end(plan: Plan, weights: Path, folder: Path) -> None:
    """Time ``oncofm batch`` on phantoms with two lesions each, and say what limits it."""
    n_cases, n_slices = (4, 12) if plan.quick else (plan.cases, plan.slices)
    precision = "bf16" if plan.is_gpu else "fp32"
    make_templates(folder / "templates", n_slices, "raw")

    def batch(n: int) -> tuple[float, dict[str, Any]]:
        manifest = link_cases(folder / "templates", folder / f"cases-{n}", n)
        output = folder / f"out-{n}"
        command = [ONCOFM, "batch", str(manifest), str(output), "--weights", str(weights)]
        command += ["--engine", "torch", "--device", str(plan.device), "--precision", precision]
        seconds, _ = run_watched([*command, "--workers", str(plan.workers)])
        return seconds, json.loads((output / "run.json").read_text())

    few = max(2, n_cases // 8)
    few_seconds, _ = batch(few)
    seconds, run = batch(n_cases)
    per_case = (seconds - few_seconds) / max(1, n_cases - few)
    folders = sorted((folder / f"cases-{n_cases}").glob("case-*"))[:6]
    read = read_seconds(folders)
    print(f"\noncofm batch, {n_cases} cases of {n_slices} slices, 2 lesions each, {precision}:")
    print(f"{seconds:.1f} s; after the start {1 / max(per_case, 1e-9):.1f} cases/s")
    print(f"reading a case takes {read:.3f} s of one process: {plan.workers} processes ", end="")
    print(f"read {plan.workers / read:.1f} cases/s at most")
    print(f"batch size {run['model']['batch_size']}, parts in seconds: {run['seconds']}")
    if run.get("throughput"):
        facts = ("limited_by", "waiting_s", "encoding_s", "writing_s", "reading_s", "held_up_s")
        print(", ".join(f"{name} {run['throughput'].get(name)}" for name in facts))


if __name__ == "__main__":
    main()
