"""Figures: what they show, that their bytes repeat, and what is said without matplotlib."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from cards import head_card, risk_card, split_at, trained_on
from cohorts import binary_cohort, survival_cohort
from PIL import Image

from oncofm.biomarkers.cohort import SurvivalCohort
from oncofm.biomarkers.evaluate import evaluate_classes, evaluate_survival
from oncofm.biomarkers.evaluation import BinaryModel, Sampling, SurvivalModel
from oncofm.biomarkers.figures import (
    calibration_figure,
    learning_figure,
    roc_figure,
    survival_figure,
    write_figures,
)
from oncofm.errors import MissingExtraError

SAMPLING = Sampling(n_resamples=50, n_permutations=50, seed=1)


def texts_of(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_files_of_two_classes(tmp_path):
    evaluation = evaluate_classes(binary_cohort()[0], SAMPLING)
    paths = write_figures(evaluation, tmp_path)
    assert [path.name for path in paths] == ["roc.png", "calibration.png"]
    with Image.open(paths[0]) as image:
        assert min(image.size) >= 750
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
    auc = model.metrics["auc"]
    numbers = f"AUC {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"
    assert texts_of(figure.legends[0])[0] == numbers + " _a \\$\\frac{\\$ b"
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), model.roc.sensitivities)
    n_positive = int(binary_cohort()[0].labels.sum())
    assert axes.get_title() == f"ROC, {n_positive} positive and {60 - n_positive} negative cases"


def test_roc_marks_the_thresholds():
    cards = [head_card("good", **split_at(0.7))]
    evaluation = evaluate_classes(binary_cohort()[0], SAMPLING, cards=cards)
    models = [model for model in evaluation.models if isinstance(model, BinaryModel)]
    figure = roc_figure(models)
    marks = {
        line.get_marker(): (*np.ravel(line.get_xdata()), *np.ravel(line.get_ydata()))
        for line in figure.axes[0].lines[3:6]
    }
    assert marks == {
        marker: (1 - decision.point.specificity, decision.point.sensitivity)
        for marker, decision in zip("oDx", models[0].decisions, strict=True)
    }
    assert [text.split(",")[0] for text in texts_of(figure.legends[0])[2:]] == [
        "at the given threshold",
        "at the threshold of the card",
        "at the threshold by Youden",
    ]


@pytest.mark.parametrize("name", ["n" * 5000, "two\nlines\t\u0301", "", "_hidden"])
def test_any_name_leaves_the_figure_as_large_as_it_was(name):
    model = evaluate_classes(binary_cohort()[0], SAMPLING).models[0]
    assert isinstance(model, BinaryModel)
    for draw in (roc_figure, calibration_figure):
        figure = draw([replace(model, name=name)])
        figure.canvas.draw()
        plain = draw([model])
        plain.canvas.draw()
        found, expected = (f.axes[0].get_window_extent().bounds for f in (figure, plain))
        assert found == pytest.approx(expected, abs=4)
        assert len(texts_of(figure.legends[0])) == len(texts_of(plain.legends[0]))


def test_calibration_shows_shares_counts_and_score():
    model = evaluate_classes(binary_cohort()[0], SAMPLING).models[0]
    assert isinstance(model, BinaryModel)
    figure = calibration_figure([model])
    above, below = figure.axes
    np.testing.assert_array_equal(above.lines[1].get_xdata(), model.calibration.predicted)
    np.testing.assert_array_equal(above.lines[1].get_ydata(), model.calibration.observed)
    np.testing.assert_array_equal(below.lines[0].get_ydata(), model.calibration.counts)
    assert f"Brier {model.metrics['brier'].value:.3f} [" in texts_of(figure.legends[0])[0]


def test_curves_are_those_of_the_groups():
    model = evaluate_survival(survival_cohort(), SAMPLING, {}).models[0]
    assert isinstance(model, SurvivalModel)
    assert model.groups is not None
    axes, below = survival_figure(model.name, model.groups).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), model.groups.low.survival)
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_title().get_text().startswith("HR ")
    without = survival_figure("m", replace(model.groups, hazard_ratio=None)).axes[0].get_legend()
    assert without is not None
    assert without.get_title().get_text().startswith("log-rank p")

    cohort = survival_cohort()
    high = cohort.risks["good"] >= np.median(cohort.risks["good"])
    ticks = axes.get_xticks()
    expected = [
        str((cohort.times[group] >= tick).sum()) for group in (~high, high) for tick in ticks
    ]
    assert [text.get_text() for text in below.texts] == expected


def test_learning_curve(tmp_path):
    cards = [head_card("good", **trained_on(400)), head_card("bad", **trained_on(40))]
    evaluation = evaluate_classes(binary_cohort()[0], SAMPLING, cards=cards)
    assert write_figures(evaluation, tmp_path)[-1].name == "learning_curve.png"
    figure = learning_figure(evaluation.learning_curve)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "AUC",
        "Average precision",
        "Balanced accuracy",
        "Brier score",
    ]
    bad, good = (evaluation.models[number].metrics["auc"] for number in (1, 0))
    line = figure.axes[0].lines[-1]
    np.testing.assert_array_equal(line.get_xydata(), [[40, bad.value], [400, good.value]])
    risks = [risk_card("good", **trained_on(400)), risk_card("bad", **trained_on(40))]
    evaluation = evaluate_survival(survival_cohort(), SAMPLING, {}, cards=risks)
    assert len(learning_figure(evaluation.learning_curve).axes) == 1


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    evaluation = evaluate_classes(binary_cohort()[0], SAMPLING)
    with pytest.raises(MissingExtraError, match=r"install oncofm\[biomarkers\]"):
        write_figures(evaluation, tmp_path)
