"""Fixtures of the tests of batches."""

import shutil
from pathlib import Path

import pytest
from batches import BatchRun, ReadersHere, SmallEncoder, write_tiny_study

from oncofm.workflow.batch import computers
from oncofm.workflow.batch.options import BatchOptions
from oncofm.workflow.batch.run import run_batch
from oncofm.workflow.settings import Settings


@pytest.fixture(scope="session")
def studies_written(tmp_path_factory) -> Path:
    """Five tiny studies."""
    folder = tmp_path_factory.mktemp("tiny")
    for number in range(5):
        write_tiny_study(folder / f"study-{number}", number)
    return folder


@pytest.fixture
def studies(studies_written, tmp_path) -> Path:
    """Five tiny studies to be spoiled."""
    return shutil.copytree(studies_written, tmp_path / "in")


@pytest.fixture
def batch(monkeypatch, tmp_path):
    """Run a batch in this process, with an encoder that has no network."""
    encoder = SmallEncoder()
    monkeypatch.setattr(computers, "start_loading", lambda *_: lambda: encoder)
    monkeypatch.setattr(computers, "Readers", ReadersHere)

    def run(source, output="out", *, settings=None, report=lambda event: None, **options):
        events = []

        def note(event):
            events.append(event)
            report(event)

        output = tmp_path / output
        result = run_batch(source, output, settings or Settings(), BatchOptions(**options), note)
        return BatchRun(output, result, events, encoder)

    return run
