"""Fixtures that every test folder shares."""

import os
from collections.abc import Iterator
from pathlib import Path

# Fits of heads are many small matrices; on shared cores two threads take longer than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from commands import CliResult
from fakes import VoxelEncoder

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans and reference features; absent on a user's clone."""
    if not (SHARED_DATA / "reference" / "seeds.csv").is_file():
        pytest.skip(f"REAL DATA MISSING: {SHARED_DATA} is not there, real scans go untested")
    return SHARED_DATA


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Run a command in this process with an encoder that has no network."""
    from oncofm.cli import main
    from oncofm.workflow import features, job

    encoder = VoxelEncoder()
    for module in (job, features):
        monkeypatch.setattr(module, "start_loading", lambda *_: lambda: encoder)

    def run(*arguments: object) -> CliResult:
        monkeypatch.setattr("sys.argv", ["oncofm", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return CliResult(end.value.code, printed.out, printed.err, Path(str(arguments[-1])))

    return run


@pytest.fixture(scope="session")
def seed0_weights(tmp_path_factory) -> Iterator[Path]:
    """Seeded random weights as a file of the published layout, 738 MB, written once."""
    import torch

    from oncofm.encoders.fmcib import random_weights

    path = tmp_path_factory.mktemp("weights") / "seed0.torch"
    torch.save({"trunk_state_dict": random_weights(0)}, path)
    yield path
    path.unlink()
