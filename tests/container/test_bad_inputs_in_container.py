"""Every bad input of ``tests/workflow/test_bad_inputs.py``, through the hardened image.

The tests are the same ones; only what `cli` runs is another program.
"""

import importlib.util
from pathlib import Path

import pytest
from commands import CliResult
from containers import USER, give_to

_SOURCE = Path(__file__).parents[1] / "workflow" / "test_bad_inputs.py"
_SPEC = importlib.util.spec_from_file_location("bad_inputs", _SOURCE)
assert _SPEC is not None
assert _SPEC.loader is not None
_TESTS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_TESTS)

NOT_ABOUT_INPUTS = {
    "test_an_input_that_does_not_exist",  # the engine makes what it is told to mount
    "test_an_output_that_is_a_file",  # outputs: test_container.py
    "test_an_output_without_permission",
    "test_a_disk_that_is_too_small_is_found_before_work",
    "test_a_disk_without_room_for_key_images",
    "test_a_disk_that_fills_up_during_the_run",
    "test_inputs_are_never_touched",  # mounted read-only
    "test_usage_errors_exit_with_1",  # arguments of another command
    "test_json_progress",
    "test_two_healthy_studies",  # expects random weights; there they are a file
    "test_a_seed_outside_the_volume",  # --seeds is none of the workflow's arguments
    "test_seeds_without_a_series_are_not_guessed_among_two",
    "test_pydicom_still_reads_what_we_ran_on",
    "test_ten_thousand_unrelated_files",  # nothing new, and slow to mount
}

pytestmark = [pytest.mark.container, pytest.mark.slow]
good_study, template, bench = _TESTS.good_study, _TESTS.template, _TESTS.bench
globals().update(
    {
        name: test
        for name, test in vars(_TESTS).items()
        if name.startswith("test_") and name not in NOT_ABOUT_INPUTS
    }
)


def test_nothing_is_left_out_by_a_wrong_name():
    assert set(vars(_TESTS)) >= NOT_ABOUT_INPUTS


@pytest.fixture
def cli(run_container):
    """Run the workflow ``default`` with every kind of annotation, where `cli` runs a command."""

    def run(command: str, source: Path | str, *arguments: object) -> CliResult:
        *options, output = arguments
        assert command == "run"
        source, output = Path(source), Path(str(output))
        output.mkdir(parents=True, exist_ok=True)
        give_to(USER, output)
        changes = ["modules.SeedExtractor.kinds=[]"]
        if source.is_file():  # only a folder can be mounted where the image has one
            changes.append(f"modules.DicomCTImporter.source_dir=input_data/{source.name}")
            source = source.parent
        overrides = [f"--config:{change}" for change in changes]
        result = run_container(
            source, output, "--workflow", "default", *overrides, *map(str, options)
        )
        assert result.changes == []
        assert "Traceback" not in result.stderr or "--debug" in options
        return CliResult(result.code, result.stdout, result.stderr, output)

    return run
