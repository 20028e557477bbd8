"""What a batch leaves and needs as it grows: files, catalog, ledger, parts, the final tables.

The folders hold small DICOM headers and the features are random, so that only what grows with the
number of cases is measured; reading pixels and encoding do not depend on it.
Usage: python utils/bench/bench_scale.py [--cases 1000 10000] [--slices 4]
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from oncofm.encoders.encoder import Weights
from oncofm.results.manifest import Configuration, provenance
from oncofm.results.table import ResultTable
from oncofm.seeds.seed import Seed, SeedSource
from oncofm.workflow.batch.catalog import catalog_items
from oncofm.workflow.batch.cluster import EncoderFacts
from oncofm.workflow.batch.finish import write_tables
from oncofm.workflow.batch.ledger import Entry, open_ledger
from oncofm.workflow.batch.parts import write_part
from oncofm.workflow.case import Case, CaseOutcome, CaseState, LesionOutcome
from oncofm.workflow.tabulate import tabulate_cases, tabulate_features

N_FEATURES, N_LESIONS, LESIONS_PER_PART = 4096, 2, 256
ENCODER = EncoderFacts(
    Weights("fmcib", None, "0" * 64, "none", random_seed=0), "cpu", "fp32", "none", N_FEATURES, 8
)
CONFIGURATION = Configuration(
    model="fmcib",
    weights_sha256="0" * 64,
    profile="mhub",
    precision="fp32",
    seed_kinds=(),
    labels=(),
    per="segment",
    min_volume_mm3=0.0,
    seg_threshold=0.5,
)


def write_headers(folder: Path, n_cases: int, n_slices: int) -> None:
    """Write studies of some slices of 8 x 8 pixels."""
    from oncofm.demo.dicom import write_ct_series
    from oncofm.demo.phantom import chest_scene

    template = folder.with_name("template")
    grid = {"shape": (8, 8, n_slices), "spacing_mm": (40.0, 40.0, 40.0)}
    files = write_ct_series(template, chest_scene(), **grid, uid_seed="scale-00000000")
    study_uid, series_uid = _uids(files[0])
    data = [path.read_bytes() for path in files]
    for number in range(n_cases):
        place = folder / f"{number // 1000:04d}" / f"case-{number:07d}"
        place.mkdir(parents=True)
        for index, content in enumerate(data):
            own = content.replace(study_uid, _other(study_uid, number))
            own = own.replace(series_uid, _other(series_uid, number))
            (place / f"{index:04d}.dcm").write_bytes(own)
    shutil.rmtree(template)


def _uids(path: Path) -> tuple[bytes, bytes]:
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True)
    return header.StudyInstanceUID.encode(), header.SeriesInstanceUID.encode()


def _other(uid: bytes, number: int) -> bytes:
    """Another UID of the same length."""
    return uid[:-8] + f"{10_000_000 + number}".encode()


def outcomes_of(number: int, random: np.random.Generator) -> list[CaseOutcome]:
    uid = f"2.25.{10**30 + number}"
    seeds = tuple(
        Seed(f"segment-{n}", (1.0, 2.0, 3.0), SeedSource("seg", sop_instance_uid=uid))
        for n in range(N_LESIONS)
    )
    lesions = tuple(
        LesionOutcome(seed, CaseState.DONE, features=random.random(N_FEATURES, np.float32))
        for seed in seeds
    )
    case = Case(uid, study_uid=uid, series_uid=uid, modality="CT", seeds=seeds)
    return [CaseOutcome(case, CaseState.DONE, lesions=lesions)]


def write_batch(output: Path, n_cases: int) -> None:
    """Write parts and ledger as a batch does."""
    origin, random = provenance(ENCODER, CONFIGURATION), np.random.default_rng(0)  # pyright: ignore[reportArgumentType]
    per_part = LESIONS_PER_PART // N_LESIONS
    with open_ledger(output) as ledger:
        for part, start in enumerate(range(0, n_cases, per_part), start=1):
            tables: dict[str, list[tuple[str, ResultTable]]] = {"features": [], "cases": []}
            entries = []
            for number in range(start, min(start + per_part, n_cases)):
                outcomes, item = outcomes_of(number, random), f"2.25.{10**30 + number}"
                features = tabulate_features(outcomes, origin, N_FEATURES)
                tables["features"].append((item, features))
                tables["cases"].append((item, tabulate_cases(outcomes, (), origin)))
                facts = ("done", "", "", N_LESIONS, N_LESIONS, 1, part, "2026-01-01T00:00:00")
                entries.append(Entry(item, number, "0" * 64, "0" * 64, *facts))
            ledger.commit(part, write_part(output, part, tables), entries)


def merge(output: Path) -> None:
    with open_ledger(output) as ledger:
        entries = ledger.entries().values()
        wanted = [(0, entry.part, entry.item_id) for entry in entries]
        write_tables(output, [(output, ledger.parts())], wanted, with_predictions=False)


def size_mb(path: Path) -> float:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


def timed(action, *arguments) -> float:
    started = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - started


def measure(n_cases: int, n_slices: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "out").mkdir()
        write_headers(folder / "in", n_cases, n_slices)
        catalog = folder / "out/catalog.sqlite"
        first = timed(catalog_items, folder / "in", catalog)
        second = timed(catalog_items, folder / "in", catalog)
        n_files = n_cases * n_slices
        print(f"{n_cases} cases, {n_files} files")
        print(f"  first look {first:8.2f} s  ({1e6 * first / n_files:.0f} us a file)")
        print(f"  second look {second:7.2f} s  ({1e6 * second / n_files:.0f} us a file)")
        per_file = 1e6 * size_mb(catalog) / n_files
        print(f"  catalog {size_mb(catalog):11.2f} MB ({per_file:.0f} B a file)")
        written = timed(write_batch, folder / "out", n_cases)
        parts = list((folder / "out/parts").iterdir())
        print(
            f"  parts {written:13.2f} s, {len(parts)} files, {size_mb(folder / 'out/parts'):.1f} MB"
        )
        print(f"  ledger {size_mb(folder / 'out/ledger.sqlite'):12.2f} MB")
        merged = timed(merge, folder / "out")
        features = size_mb(folder / "out/features.parquet")
        print(f"  final tables {merged:6.2f} s, features.parquet {features:.1f} MB")
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"  peak memory so far {peak_mb:.0f} MB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what grows with a batch.")
    parser.add_argument("--cases", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--slices", type=int, default=4)
    given = parser.parse_args()
    for count in given.cases:
        measure(count, given.slices)
