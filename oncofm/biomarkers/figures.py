"""Pictures of an evaluation: ROC, calibration and Kaplan-Meier, one PNG each.

Drawn without a display and without matplotlib's global state; same evaluation, same bytes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncofm.biomarkers.checks import missing_extra
from oncofm.biomarkers.evaluation import BinaryModel, Evaluation, RiskGroups, SurvivalModel
from oncofm.results.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE_INCHES = 5.0
_DOTS_PER_INCH = 150
_LOW_COLOUR, _HIGH_COLOUR = "#0072b2", "#d55e00"
"""Blue and vermilion, told apart with every kind of colour vision."""


def write_figures(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the figures of an evaluation into a folder that exists.

    Parameters
    ----------
    evaluation : Evaluation
        Two classes give ``roc.png`` and ``calibration.png`` with all models; survival gives
        ``kaplan-meier-<n>.png`` for the n-th model, from 1, where its groups are defined; more
        classes give none.
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
    for name, figure in figures.items():
        with atomic_path(folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return [folder / name for name in figures]


def roc_figure(models: list[BinaryModel]) -> "Figure":
    """Draw the ROC curve of every model, with its AUC and interval."""
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for model in models:
        auc = model.metrics["auc"]
        axes.plot(
            model.roc.false_positive_rates,
            model.roc.sensitivities,
            label=f"AUC {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}] {_plain(model.name)}",
        )
    axes.set(xlabel="1 - specificity", ylabel="Sensitivity", aspect="equal")
    axes.legend(loc="lower right", fontsize="small")
    return figure


def calibration_figure(models: list[BinaryModel]) -> "Figure":
    """Draw observed shares against predicted probabilities, with the Brier score."""
    figure, axes = _axes()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for model in models:
        brier = model.metrics["brier"]
        axes.plot(
            model.calibration.predicted,
            model.calibration.observed,
            marker="o",
            label=f"Brier {brier.value:.3f} [{brier.low:.3f}, {brier.high:.3f}] "
            f"{_plain(model.name)}",
        )
    axes.set(
        xlabel="Predicted probability",
        ylabel="Observed share",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(loc="upper left", fontsize="small")
    return figure


def survival_figure(name: str, groups: RiskGroups) -> "Figure":
    """Draw the curves of the two risk groups, with log-rank p and hazard ratio."""
    figure, axes = _axes()
    pairs = (("Low risk", groups.low, _LOW_COLOUR), ("High risk", groups.high, _HIGH_COLOUR))
    for label, curve, colour in pairs:
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
        ticks = [
            (time, share)
            for time, share, n_censored in zip(
                curve.times, curve.survival, curve.censored, strict=True
            )
            if n_censored
        ]
        if ticks:
            axes.plot(*zip(*ticks, strict=True), "|", color=colour, markersize=5)
    axes.set(xlabel="Time", ylabel="Share without event", ylim=(0, 1.02), title=_plain(name))
    axes.set_xlim(left=0)
    axes.legend(title=_group_statistics(groups), loc="best", fontsize="small")
    return figure


def _group_statistics(groups: RiskGroups) -> str:
    p = groups.log_rank.p
    text = "log-rank p < 0.001" if p < 0.001 else f"log-rank p = {p:.3f}"
    ratio = groups.hazard_ratio
    if ratio is None:
        return text
    return f"HR {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], {text}"


def _axes() -> "tuple[Figure, Axes]":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("Drawing a figure", error) from error
    figure: Any = Figure(figsize=(_SIDE_INCHES, _SIDE_INCHES), layout="constrained")
    axes = figure.subplots()
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(name: str) -> str:
    """Keep a name from being read as a formula."""
    return name.replace("$", r"\$")
