"""Make the archive that MHub tests a model with: ``<workflow>/{sample,reference}/...`` in a zip.

The samples are phantoms, so that the archive holds no patient's data, and its bytes are the same
on every machine as far as features are. For a release it is made with the published weights,
uploaded to Zenodo, and its address written into ``mhub/mhub.toml``. ``--random-weights`` makes
one with seeded random weights, to try the way out.

Usage: python utils/make_mhub_test_zip.py test_fmcib.zip [--weights FILE | --random-weights]
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from oncofm.demo.samples import SAMPLES, write_sample
from oncofm.workflow.mhub.models import find_models, read_workflow

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_TIMED = ("run.json",)
"""Outputs that differ from run to run; a reference of them could only fail."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the archive that MHub tests a model with.")
    parser.add_argument("archive", type=Path)
    parser.add_argument("--workflows", nargs="+", default=list(SAMPLES), choices=SAMPLES)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights", type=Path, help="default: the bundled or fetched ones")
    weights.add_argument("--random-weights", action="store_true", help="only to try it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.weights
        if options.random_weights:
            path = folder / "random.torch"
            write_random_weights(path)
        for workflow in options.workflows:
            print(workflow, file=sys.stderr)
            make_reference(workflow, folder / "archive" / workflow, path)
        pack(folder / "archive", options.archive)


def write_random_weights(path: Path) -> None:
    """Write seeded random weights as a file of the published layout."""
    import torch

    from oncofm.encoders.fmcib import random_weights

    torch.save({"trunk_state_dict": random_weights(0)}, path)


def make_reference(workflow: str, folder: Path, weights: Path | None) -> None:
    """Write the sample of a workflow and what the entry point makes of it."""
    write_sample(workflow, folder / "sample")
    places = {f"modules.{importer_of(workflow)}.source_dir": folder / "sample"}
    places["modules.ResultExporter.output_dir"] = folder / "reference"
    if weights is not None:
        places["modules.FeatureExtractor.weights"] = weights.resolve()
    run = Path(sys.executable).with_name("mhub.run")
    arguments = [f"--config:{key}={value}" for key, value in places.items()]
    done = subprocess.run([run, "--workflow", workflow, *arguments], check=False)
    if done.returncode:
        sys.exit(f"workflow {workflow} ended with {done.returncode}")
    for name in _TIMED:
        (folder / "reference" / name).unlink()


def importer_of(workflow: str) -> str:
    """Name the module that reads the input: the first one."""
    (model,) = find_models().values()
    return read_workflow(model.workflows()[workflow]).steps[0][0]


def pack(folder: Path, archive: Path) -> None:
    """Zip a folder; the same files give the same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted_files(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            zipped.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def sorted_files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
