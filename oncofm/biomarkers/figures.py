"""Pictures of an evaluation: ROC, calibration, Kaplan-Meier and learning curve, one PNG each.

Drawn without a display and without matplotlib's global state; same evaluation, same bytes.
"""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncofm.biomarkers.bootstrap import Estimate
from oncofm.biomarkers.checks import missing_extra
from oncofm.biomarkers.evaluation import BinaryModel, Evaluation, RiskGroups, SurvivalModel
from oncofm.biomarkers.learning_curve import CurvePoint, LearningCurve
from oncofm.biomarkers.survival import KaplanMeier
from oncofm.results.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE_INCHES = 5.0
_LEGEND_LINE_INCHES = 0.22
_DOTS_PER_INCH = 150
_LOW_COLOUR, _HIGH_COLOUR = "#0072b2", "#d55e00"
"""Blue and vermilion, told apart with every kind of colour vision."""
_COLOURS = (_LOW_COLOUR, _HIGH_COLOUR, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DECISIONS = {
    "given": ("o", "at the given threshold"),
    "card": ("D", "at the threshold of the card"),
    "youden": ("x", "at the threshold by Youden, chosen on these cases"),
}
"""Marker and words for a threshold on a ROC curve."""
_STATISTICS = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "balanced_accuracy": "Balanced accuracy",
    "brier": "Brier score",
    "c_index": "C-index",
}
_MOST_CHARACTERS = 36
"""Of a name in a figure."""


def write_figures(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the figures of an evaluation into a folder that exists.

    Parameters
    ----------
    evaluation : Evaluation
        Two classes give ``roc.png`` and ``calibration.png`` with all models; survival gives
        ``kaplan-meier-<n>.png`` for the n-th model, from 1, where its groups are defined; heads
        fitted to different numbers of cases give ``learning_curve.png``.
    folder : pathlib.Path
        Where to write.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    OutputNotWritableError
        If a file cannot be written.
    """
    classes = [model for model in evaluation.models if isinstance(model, BinaryModel)]
    figures: dict[str, Figure] = {}
    if classes:
        figures["roc.png"] = roc_figure(classes)
        figures["calibration.png"] = calibration_figure(classes)
    for number, model in enumerate(evaluation.models, start=1):
        if isinstance(model, SurvivalModel) and model.groups is not None:
            figures[f"kaplan-meier-{number}.png"] = survival_figure(model.name, model.groups)
    if evaluation.learning_curve:
        figures["learning_curve.png"] = learning_figure(evaluation.learning_curve)
    for name, figure in figures.items():
        write_png(figure, folder / name)
    return [folder / name for name in figures]


def write_png(figure: "Figure", path: Path) -> None:
    """Write a figure; the same figure, the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})


# --- two classes ---------------------------------------------------------------------------


def roc_figure(models: list[BinaryModel]) -> "Figure":
    """Draw the ROC curve of every model with its thresholds, AUC and interval."""
    n_lines = len(models) + len(_DECISIONS)
    figure = _figure(_SIDE_INCHES, _SIDE_INCHES + _LEGEND_LINE_INCHES * n_lines)
    axes = _styled(figure.subplots())
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for number, model in enumerate(models):
        axes.plot(
            model.roc.false_positive_rates,
            model.roc.sensitivities,
            color=_colour(number),
            label=f"AUC {_with_interval(model.metrics['auc'])} {_name(model.name)}",
        )
    for number, model in enumerate(models):
        for decision in model.decisions:
            axes.plot(
                1 - decision.point.specificity,
                decision.point.sensitivity,
                _DECISIONS[decision.origin][0],
                color=_colour(number),
                markersize=5,
            )
    point = models[0].decisions[0].point
    n_positive = point.true_positives + point.false_negatives
    n_negative = point.true_negatives + point.false_positives
    axes.set(
        title=f"ROC, {n_positive} positive and {n_negative} negative cases",
        xlabel="False positive rate (1 - specificity)",
        ylabel="True positive rate (sensitivity)",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    origins = dict.fromkeys(decision.origin for model in models for decision in model.decisions)
    for marker, label in (_DECISIONS[origin] for origin in origins):
        axes.plot([], [], marker, color="0.3", markersize=5, label=label)
    figure.legend(loc="outside lower center", fontsize="small", frameon=False)
    return figure


def calibration_figure(models: list[BinaryModel]) -> "Figure":
    """Draw observed shares against predicted probabilities with the Brier score, over counts."""
    figure = _figure(_SIDE_INCHES, _SIDE_INCHES * 1.2 + _LEGEND_LINE_INCHES * len(models))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    for part in (axes, below):
        _styled(part)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for number, model in enumerate(models):
        curve = model.calibration
        axes.plot(
            curve.predicted,
            curve.observed,
            marker="o",
            markersize=5,
            color=_colour(number),
            label=f"Brier {_with_interval(model.metrics['brier'])}, "
            f"calibration error {curve.expected_error:.3f} {_name(model.name)}",
        )
        below.plot(curve.predicted, curve.counts, "o-", markersize=3, color=_colour(number))
    axes.set(
        title="Calibration in bins of 0.1",
        ylabel="Observed share of positive cases",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    below.set(xlabel="Mean predicted probability of the bin", ylabel="Cases")
    below.set_ylim(bottom=0)
    figure.align_ylabels()
    figure.legend(loc="outside lower center", fontsize="small", frameon=False)
    return figure


# --- survival ------------------------------------------------------------------------------


def survival_figure(name: str, groups: RiskGroups) -> "Figure":
    """Draw the curves of the two risk groups with log-rank p, hazard ratio and cases at risk."""
    figure = _figure(_SIDE_INCHES * 1.2, _SIDE_INCHES * 1.1)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(7, 1))
    _styled(axes)
    pairs = (("Low risk", groups.low, _LOW_COLOUR), ("High risk", groups.high, _HIGH_COLOUR))
    for label, curve, colour in pairs:
        _draw_curve(axes, label, curve, colour)
    axes.set(
        title=f"{_name(name)}, split at {groups.cutoff:.4g} ({groups.origin})",
        ylabel="Share without event",
        ylim=(0, 1.02),
    )
    axes.set_xlim(left=0)
    axes.legend(title=_group_statistics(groups), loc="best", fontsize="small")
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks)
    axes.tick_params(labelbottom=True)
    end = "" if groups.horizon is None else f", observed up to {groups.horizon:g}"
    axes.set_xlabel(f"Time in the unit of the labels{end}")
    _write_at_risk(below, ticks, [(curve, colour) for _, curve, colour in pairs])
    return figure


def _draw_curve(axes: "Axes", label: str, curve: KaplanMeier, colour: str) -> None:
    axes.step(
        curve.times,
        curve.survival,
        where="post",
        color=colour,
        label=f"{label} (n = {curve.at_risk[0]}, {sum(curve.events)} events)",
    )
    axes.fill_between(
        curve.times,
        [float("nan") if value is None else value for value in curve.low],
        [float("nan") if value is None else value for value in curve.high],
        step="post",
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
    outcomes = zip(curve.times, curve.survival, curve.censored, strict=True)
    marks = [(time, share) for time, share, n_censored in outcomes if n_censored]
    if marks:
        axes.plot(*zip(*marks, strict=True), "|", color=colour, markersize=5)


def _write_at_risk(
    axes: "Axes", ticks: Sequence[float], curves: Sequence[tuple[KaplanMeier, str]]
) -> None:
    for row, (curve, colour) in enumerate(curves):
        for tick in ticks:
            axes.text(
                tick, -row, str(_at_risk(curve, tick)), color=colour, ha="center", va="center"
            )
    axes.set(ylim=(0.6 - len(curves), 0.6), yticks=[0, -1], yticklabels=["Low", "High"])
    axes.set_title("At risk", loc="left", fontsize="medium")
    axes.tick_params(length=0, pad=16, labelbottom=False)
    axes.spines[:].set_visible(False)


def _at_risk(curve: KaplanMeier, time: float) -> int:
    """Count the cases that are observed up to a time or longer."""
    index = bisect_left(curve.times, time)
    return curve.at_risk[index] if index < len(curve.times) else 0


def _group_statistics(groups: RiskGroups) -> str:
    p = groups.log_rank.p
    text = "log-rank p < 0.001" if p < 0.001 else f"log-rank p = {p:.3f}"
    ratio = groups.hazard_ratio
    if ratio is None:
        return text
    return f"HR {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], {text}"


# --- training cases ------------------------------------------------------------------------


def learning_figure(curves: Sequence[LearningCurve]) -> "Figure":
    """Draw every statistic, a panel each, against the number of training cases."""
    statistics = list(curves[0].statistics)
    n_columns = min(2, len(statistics))
    n_rows = -(-len(statistics) // n_columns)
    figure = _figure(
        _SIDE_INCHES * (0.3 + 0.7 * n_columns),
        _SIDE_INCHES * 0.7 * n_rows + _LEGEND_LINE_INCHES * (len(curves) + 1),
    )
    panels = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False).ravel()
    for panel in panels[len(statistics) :]:
        panel.set_visible(False)
    for panel, statistic in zip(panels, statistics, strict=False):
        axes = _styled(panel)
        for number, curve in enumerate(curves):
            label = f"{curve.kind}, {_name(curve.model)}: {_name(curve.title)}"
            _draw_points(axes, curve.statistics[statistic], _colour(number), label)
        axes.set(xscale="log", xlabel="Training cases", ylabel=_STATISTICS[statistic])
        sizes = sorted({point.n for curve in curves for point in curve.statistics[statistic]})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
    figure.suptitle("Learning curve")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize="small", frameon=False)
    return figure


def _draw_points(axes: "Axes", points: Sequence[CurvePoint], colour: str, label: str) -> None:
    """Draw heads with their intervals, and a line through the mean of each size."""
    values = [point.value for point in points]
    axes.errorbar(
        [point.n for point in points],
        values,
        [
            [point.value - point.low for point in points],
            [point.high - point.value for point in points],
        ],
        fmt="o",
        markersize=4,
        capsize=3,
        color=colour,
        label=label,
    )
    of_size: dict[int, list[float]] = {}
    for point in points:
        of_size.setdefault(point.n, []).append(point.value)
    axes.plot(list(of_size), [sum(same) / len(same) for same in of_size.values()], color=colour)


# --- all figures ---------------------------------------------------------------------------


def _figure(width_inches: float, height_inches: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("Drawing a figure", error) from error
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _styled(axes: "Axes") -> "Axes":
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _with_interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _name(name: str) -> str:
    """Keep a name from being read as a formula, from filling a figure and from many lines.

    No label begins with a name: matplotlib hides what begins with an underscore.
    """
    name = " ".join(name.split())
    if len(name) > _MOST_CHARACTERS:
        name = name[:_MOST_CHARACTERS] + "..."
    return name.replace("$", r"\$")
