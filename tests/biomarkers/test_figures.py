"""Figures: what they show, that their bytes repeat, and what is said without matplotlib."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from cohorts import binary_cohort, survival_cohort
from PIL import Image

from oncofm.biomarkers.cohort import SurvivalCohort
from oncofm.biomarkers.evaluate import evaluate_classes, evaluate_survival
from oncofm.biomarkers.evaluation import BinaryModel, Sampling, SurvivalModel
from oncofm.biomarkers.figures import roc_figure, survival_figure, write_figures
from oncofm.errors import MissingExtraError

SAMPLING = Sampling(n_resamples=50, n_permutations=50, seed=1)


def test_files_of_two_classes(tmp_path):
    evaluation = evaluate_classes(binary_cohort()[0], SAMPLING)
    paths = write_figures(evaluation, tmp_path)
    assert [path.name for path in paths] == ["roc.png", "calibration.png"]
    with Image.open(paths[0]) as image:
        assert image.size == (750, 750)
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_figures(evaluation, tmp_path)] == first
    assert len(list(tmp_path.iterdir())) == 2


def test_files_of_survival(tmp_path):
    paths = write_figures(evaluate_survival(survival_cohort(), SAMPLING, {}), tmp_path)
    assert [path.name for path in paths] == ["kaplan-meier-1.png", "kaplan-meier-2.png"]


def test_no_figure_of_undefined_groups(tmp_path):
    times = np.arange(1.0, 9)
    cohort = SurvivalCohort(times, np.ones(8), {"m": -times}, None, 0)
    assert write_figures(evaluate_survival(cohort, SAMPLING, {"m": 5}), tmp_path) == []


def test_roc_shows_the_numbers_and_survives_any_name():
    model = evaluate_classes(binary_cohort()[0], SAMPLING).models[0]
    assert isinstance(model, BinaryModel)
    figure = roc_figure([replace(model, name="_a $\\frac{$ b")])
    figure.canvas.draw()
    axes = figure.axes[0]
    legend = axes.get_legend()
    assert legend is not None
    auc = model.metrics["auc"]
    start = f"AUC {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"
    assert legend.get_texts()[0].get_text().startswith(start)
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), model.roc.sensitivities)


def test_curves_are_those_of_the_groups():
    model = evaluate_survival(survival_cohort(), SAMPLING, {}).models[0]
    assert isinstance(model, SurvivalModel)
    assert model.groups is not None
    axes = survival_figure(model.name, model.groups).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), model.groups.low.survival)
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_title().get_text().startswith("HR ")
    without = survival_figure("m", replace(model.groups, hazard_ratio=None)).axes[0].get_legend()
    assert without is not None
    assert without.get_title().get_text().startswith("log-rank p")


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    evaluation = evaluate_classes(binary_cohort()[0], SAMPLING)
    with pytest.raises(MissingExtraError, match=r"install oncofm\[biomarkers\]"):
        write_figures(evaluation, tmp_path)
