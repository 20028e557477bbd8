"""``oncofm run --workflow NAME``: the same workflows outside of the image."""

from pathlib import Path

import numpy as np
import pytest
from fakes import voxels_of
from mhub_helpers import Run, true_patches

from oncofm.demo.samples import SAMPLES
from oncofm.resources import resource_dir


@pytest.fixture
def oncofm_run(encoder, monkeypatch, capfd):
    from oncofm.cli import main

    def run(*arguments: object) -> Run:
        monkeypatch.setattr("sys.argv", ["oncofm", "run", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        return Run(end.value.code, printed.out, printed.err, Path(str(arguments[-1])))

    return run


@pytest.mark.parametrize("workflow", SAMPLES)
def test_every_workflow_by_name(workflow, samples, oncofm_run, tmp_path):
    sample = samples[workflow]
    result = oncofm_run("--workflow", workflow, sample.folder, tmp_path / "out")
    assert result.code == 0, result.stderr
    expected = voxels_of(true_patches(sample))
    np.testing.assert_allclose(result.features(sample.case_id), expected, rtol=0, atol=1e-4)


def test_a_workflow_file_with_options(samples, oncofm_run, tmp_path):
    sample = samples["default"]
    path = resource_dir("config") / "default.yml"
    options = ("--label", "lung*", "--profile", "paper", "--batch-size", "2", "--min-volume", "1")
    result = oncofm_run("--workflow", path, *options, sample.folder, tmp_path / "out")
    assert result.code == 0, result.stderr
    assert [row["segment_label"] for row in result.rows("lesion")] == ["lung lesion"]
    assert result.manifest["configuration"]["profile"] == "paper"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workflow", "defalt"], "Model fmcib has no workflow 'defalt'; choose one of bio"),
        (["--workflow", "absent.yml"], "Workflow file absent.yml cannot be read"),
        (["--workflow", "default", "--seeds", "x.csv"], "A workflow takes one INPUT and no"),
        (["--workflow", "default", "other"], "A workflow takes one INPUT and no --seeds."),
    ],
)
def test_usage_errors(arguments, sentence, samples, oncofm_run, tmp_path):
    result = oncofm_run(*arguments, samples["default"].folder, tmp_path / "out")
    assert result.code == 1
    assert result.stderr.startswith(f"oncofm: {sentence}")
    assert len(result.stderr.splitlines()) == 1
