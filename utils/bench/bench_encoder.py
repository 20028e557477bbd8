"""Encoder throughput as a share of what this machine's matrix products reach.

Run with: ``python utils/bench/bench_encoder.py [--weights FILE] [--rounds N] [--monai]``

Every round measures the matrix-product rate and then each configuration, so that whatever else
the machine does meets both alike. Shares are medians over the rounds of the ratio within a round.
Load time and peak memory come from a fresh process. Without ``--weights`` seeded random weights
are written to a temporary file: speed does not depend on their values. The machine should be
otherwise idle; where it is not, ``OMP_WAIT_POLICY=PASSIVE`` in front (which `oncofm` sets for
itself) keeps waiting threads from slowing each other down.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from oncofm.encoders import load_encoder
from oncofm.encoders.fmcib import FLOP_PER_PATCH, PATCH_SIZE, random_weights

BATCH_SIZES = (1, 2, 4, 8)
MATRIX_SIZES = (1024, 2048, 3072)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WEIGHT_BYTES = {"fp32": 737.9e6, "bf16": 369.0e6}

COLD_PROCESS = """
import sys, time, pathlib
import numpy as np, torch
import oncofm.encoders.torch_engine
from oncofm.encoders import load_encoder
started = time.perf_counter()
encoder = load_encoder("fmcib", pathlib.Path(sys.argv[1]), precision=sys.argv[2], device="cpu")
loaded = time.perf_counter()
encoder.encode(np.zeros((2, 1, 50, 50, 50), np.float32))
done = time.perf_counter()
status = pathlib.Path("/proc/self/status").read_text().splitlines()
peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))  # in KiB
print(loaded - started, done - loaded, int(peak) / 1024)
"""


def main() -> None:
    arguments = parse_arguments()
    torch.set_grad_enabled(False)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, ", end="")
    print(f"{torch.backends.cpu.get_cpu_capability()}")
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.weights or Path(folder) / "random.torch"
        if arguments.weights is None:
            torch.save({"trunk_state_dict": random_weights(0)}, weights)
        print_load(weights)
        configurations = encoders(weights)
        if arguments.monai:
            configurations |= monai_networks()
        print_throughput(configurations, arguments.rounds)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, help="weights file (default: random)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--monai", action="store_true", help="also MONAI's network, eager")
    return parser.parse_args()


def print_load(weights: Path) -> None:
    started = time.perf_counter()
    with weights.open("rb") as stream:
        buffer = bytearray(2**20)
        while stream.readinto(buffer):
            pass
    print(f"reading the file {time.perf_counter() - started:.2f} s (warm)")
    for precision in DTYPES:
        runs = [cold_process(weights, precision) for _ in range(3)]
        load, two_patches, peak = min(runs)
        print(
            f"cold process, {precision}: load {load:.2f} s, first 2 patches {two_patches:.2f} s, "
            f"peak RSS {peak:.0f} MiB (torch included)"
        )


def cold_process(weights: Path, precision: str) -> tuple[float, float, float]:
    command = [sys.executable, "-c", COLD_PROCESS, str(weights), precision]
    load, two_patches, peak = map(float, subprocess.check_output(command).split())
    return load, two_patches, peak


Run = Callable[[np.ndarray], object]


def encoders(weights: Path) -> dict[tuple[str, str], Run]:
    return {
        ("oncofm", precision): load_encoder("fmcib", weights, precision=precision).encode
        for precision in DTYPES
    }


def monai_networks() -> dict[tuple[str, str], Run]:
    from monai.networks.nets.resnet import resnet50

    def build(dtype: torch.dtype) -> Run:
        network = resnet50(
            pretrained=False,
            n_input_channels=1,
            widen_factor=2,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=True,
        )
        network = network.eval().to(dtype)
        return lambda patches: network(torch.from_numpy(patches).to(dtype))

    return {("MONAI eager", precision): build(dtype) for precision, dtype in DTYPES.items()}


def print_throughput(configurations: dict[tuple[str, str], Run], rounds: int) -> None:
    generator = np.random.default_rng(0)
    shape = (max(BATCH_SIZES), 1, PATCH_SIZE, PATCH_SIZE, PATCH_SIZE)
    patches = generator.random(shape, np.float32)
    for run in configurations.values():
        run(patches[:2])  # warm up
    peaks = {precision: [] for precision in DTYPES}
    bandwidths = []
    seconds = {(*key, n): [] for key in configurations for n in BATCH_SIZES}
    shares = {key: [] for key in seconds}
    for _ in range(rounds):
        bandwidths.append(read_bandwidth())
        for (name, precision), run in configurations.items():
            for n in BATCH_SIZES:
                # The rate of the products just before and just after.
                before = matmul_rate(DTYPES[precision])
                elapsed = time_of(lambda run=run, n=n: run(patches[:n]))
                peak = max(before, matmul_rate(DTYPES[precision]))
                peaks[precision].append(peak)
                seconds[name, precision, n].append(elapsed)
                shares[name, precision, n].append(n * FLOP_PER_PATCH / elapsed / peak)
    bandwidth = statistics.median(bandwidths)
    for precision, values in peaks.items():
        median = statistics.median(values)
        stream = WEIGHT_BYTES[precision] / bandwidth * 1e3
        print(
            f"{precision}: torch.matmul {median / 1e9:.0f} GFLOP/s (best {max(values) / 1e9:.0f}): "
            f"{FLOP_PER_PATCH / median * 1e3:.1f} ms per patch at 100 %; reading the weights once "
            f"at {bandwidth / 1e9:.1f} GB/s takes {stream:.0f} ms per batch"
        )
    print(f"{'':18} batch  ms/patch (best)  patches/s  share of matmul")
    for (name, precision, n), values in seconds.items():
        median = statistics.median(values)
        share = statistics.median(shares[name, precision, n])
        print(
            f"{name:12} {precision:5} {n:5} {median / n * 1e3:9.1f} {min(values) / n * 1e3:7.1f} "
            f"{n / median:9.1f} {share:12.0%}"
        )


def matmul_rate(dtype: torch.dtype) -> float:
    """Largest rate over some sizes, in FLOP/s."""
    rates = []
    for size in MATRIX_SIZES:
        a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        rates.append(2 * size**3 / min(time_of(lambda a=a, b=b: a @ b) for _ in range(2)))
    return max(rates)


def read_bandwidth() -> float:
    """Bytes per second that all threads read from memory."""
    values = torch.ones(2**27)
    return values.nbytes / min(time_of(values.sum) for _ in range(3))


def time_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
