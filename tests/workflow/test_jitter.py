"""Shifted seeds: features of the right places, and what that says about a prediction."""

import numpy as np
import pandas as pd
import pytest
from fakes import VoxelEncoder, voxels_of
from heads import write_head
from studies import write_study
from test_run import ArrayVolume, seed

from oncofm.biomarkers.head import load_head
from oncofm.errors import SegmentEmptyError
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.seeds.seed import RejectedSeed
from oncofm.workflow import jitter
from oncofm.workflow.case import Case, CaseState
from oncofm.workflow.run import run_cases


def run(cases, n_shifts, encoder=None):
    encoder = encoder or VoxelEncoder()
    return list(jitter.run_cases_shifted(cases, lambda: encoder, PatchSpec(), n_shifts))


@pytest.fixture
def positions(monkeypatch):
    """Positions that patches were sampled at."""
    seen = []

    def record(volume, position_mm, spec):
        seen.append(position_mm)
        return sample_patch(volume, position_mm, spec)

    monkeypatch.setattr("oncofm.workflow.run.sample_patch", record)
    return seen


def test_shifts_are_normal_with_an_sd_of_4_mm_along_each_axis(positions, monkeypatch):
    empty = sample_patch(ArrayVolume("v"), (60.0, 50.0, 60.0), PatchSpec())
    monkeypatch.setattr(
        "oncofm.workflow.run.sample_patch", lambda v, mm, s: positions.append(mm) or empty
    )
    run([Case("c", volume=ArrayVolume("v"), seeds=(seed("a", (60.0, 50.0, 60.0)),))], 2000)
    at = np.asarray(positions)
    assert tuple(at[0]) == (60.0, 50.0, 60.0)
    np.testing.assert_allclose(at[1:].mean(axis=0), (60.0, 50.0, 60.0), atol=0.4)
    np.testing.assert_allclose(np.cov(at[1:].T), 16 * np.eye(3), atol=1.5)


def test_features_are_those_of_the_shifted_places_and_the_lesion_keeps_its_own(positions):
    volume = ArrayVolume("v")
    case = Case("c", volume=volume, seeds=(seed("a"), seed("b", (70.0, 40.0, 50.0))))
    encoder = VoxelEncoder()
    (outcome,) = run([case], 3, encoder)
    (plain,) = run_cases([case], VoxelEncoder, PatchSpec())
    assert outcome.state is CaseState.DONE
    assert [lesion.seed for lesion in outcome.lesions] == list(case.seeds)
    assert encoder.batches == [4, 4]
    of_lesions = np.asarray(positions[:8]).reshape(2, 4, 3)
    for lesion, alone, at in zip(outcome.lesions, plain.lesions, of_lesions, strict=True):
        np.testing.assert_array_equal(lesion.features, alone.features)
        patches = np.stack([sample_patch(volume, tuple(p), PatchSpec()).voxels for p in at[1:]])
        np.testing.assert_array_equal(lesion.shifted, voxels_of(patches))
    np.testing.assert_allclose(np.diff(of_lesions, axis=1)[0], np.diff(of_lesions, axis=1)[1])


def test_a_shift_out_of_the_volume_is_left_out_and_the_lesion_is_done():
    case = Case("c", volume=ArrayVolume("v"), seeds=(seed("edge", (1.0, 50.0, 60.0)),))
    (outcome,) = run([case], 20)
    assert outcome.state is CaseState.DONE
    assert 0 < len(outcome.lesions[0].shifted) < 20


def test_lesions_that_are_rejected_stay_one_lesion_with_their_reason():
    empty = RejectedSeed("empty", seed("x").source, SegmentEmptyError("Segment 1 is empty."))
    case = Case("c", volume=ArrayVolume("v"), seeds=(empty, seed("a")))
    outcomes = run([case, Case("none", error=SegmentEmptyError("No."))], 4)
    assert [outcome.state for outcome in outcomes] == [CaseState.PARTIAL, CaseState.REJECTED]
    assert outcomes[0].message == "1 of 2 lesions not done. Segment 1 is empty."
    assert [lesion.reason for lesion in outcomes[0].lesions] == ["segment_empty", ""]


def test_mean_and_sd_beside_the_prediction(cli, tmp_path, positions):
    study = write_study(tmp_path / "study", "jitter", seed=8)
    write_head(tmp_path / "two", n_features=4096)
    result = cli("run", study.folder, "--head", tmp_path / "two", "--jitter", 5, tmp_path / "out")
    assert result.code == 0
    rows = pd.read_csv(result.output / "predictions.csv")
    points = tmp_path / "points.csv"
    names = ["coordX", "coordY", "coordZ"]
    places = pd.DataFrame(positions, columns=names).assign(lesion_id=range(len(positions)))
    places.to_csv(points, index=False)
    explicit = cli("run", study.folder, "--seeds", points, tmp_path / "explicit")
    head = load_head(str(tmp_path / "two"), "fmcib")
    features = explicit.features.filter(like="pred_").to_numpy()
    expected = head.predict(features).reshape(3, 6, 2)
    np.testing.assert_allclose(rows["probability"], expected[:, 0].ravel(), rtol=1e-5)
    np.testing.assert_allclose(rows["jitter_mean"], expected[:, 1:].mean(1).ravel(), rtol=1e-5)
    sd = expected[:, 1:].std(axis=1, ddof=1).ravel()
    np.testing.assert_allclose(rows["jitter_sd"], sd, rtol=1e-4)
    assert set(rows["n_jitter"]) == {5}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--jitter", 5), "name a head"),
        (("--jitter", 1, "--head", "{head}"), "must be 2 or more"),
        (("--sr-features", "full"), "choose a report style"),
    ],
)
def test_settings_that_do_not_go_together(cli, tmp_path, arguments, sentence):
    write_head(tmp_path / "two", n_features=4096)
    (tmp_path / "in").mkdir()
    arguments = [str(a).format(head=tmp_path / "two") for a in arguments]
    result = cli("run", tmp_path / "in", *arguments, tmp_path / "out")
    assert result.code == 1
    assert sentence in result.stderr
