"""The bad inputs of ``tests/workflow/test_bad_inputs.py`` again, through ``mhub.run``.

The same tests run with another `cli`: what hospitals send must end in the same state, with the
same reason and sentence, whichever way it comes in.
"""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
from mhub_helpers import Run

from oncofm.workflow import write
from oncofm.workflow.mhub import context

pytestmark = pytest.mark.slow

_SOURCE = Path(__file__).parents[1] / "workflow" / "test_bad_inputs.py"
_spec = importlib.util.spec_from_file_location("bad_inputs_of_runs", _SOURCE)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
_ELSEWHERE = {
    "test_ten_thousand_unrelated_files",
    "test_json_progress",
    "test_a_disk_without_room_for_key_images",
}
"""Slow, or about arguments that have tests of their own here."""
_FIXTURES = ("good_study", "template", "bench", "small_disk")
globals().update(
    (name, value)
    for name, value in vars(_module).items()
    if name in _FIXTURES or (name.startswith("test_") and name not in _ELSEWHERE)
)


class LikeRun(Run):
    """A result with the table of the run where ``oncofm run`` has it."""

    @property
    def features(self) -> pd.DataFrame:
        return pd.read_parquet(self.output / "features.parquet")


@pytest.fixture
def cli(encoder, mhub_run, monkeypatch):
    """Take the arguments of ``oncofm run``, run the default workflow on any kind of annotation."""
    # A test may replace it where `oncofm run` finds it.
    monkeypatch.setattr(context, "check_free_space", lambda *given: write.check_free_space(*given))

    def run(command, *arguments):
        *inputs, output = arguments
        if len(inputs) != 1:
            pytest.skip("an option or a second input, which workflows do not take")
        kinds = "--config:modules.SeedExtractor.kinds=[]"
        result = mhub_run("-w", "default", kinds, source=inputs[0], output=output)
        assert "Traceback" not in result.stderr
        return LikeRun(result.code, result.stdout, result.stderr, output)

    return run
