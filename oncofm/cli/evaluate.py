"""``oncofm evaluate``: what predictions are worth, with how sure that is."""

from dataclasses import replace
from pathlib import Path

import typer

from oncofm.cli.options import DEBUG
from oncofm.cli.process import show_tracebacks
from oncofm.errors import SettingInvalidError

RESULT_FILE = "evaluation.json"


def evaluate(
    predictions: Path = typer.Argument(
        ...,
        metavar="PREDICTIONS",
        help="CSV or Parquet, as oncofm writes it: head, class, probability; or head, risk.",
    ),
    labels: Path = typer.Argument(
        ..., metavar="LABELS", help="CSV or Parquet: label; or time, event for survival."
    ),
    output: Path = typer.Option(
        ..., "--output", "-o", help=f"Folder for {RESULT_FILE} and the figures."
    ),
    identity: list[str] = typer.Option(
        ["lesion_id"],
        "--id",
        help="Column of both tables that names a case; repeat it where several do together.",
    ),
    group: str | None = typer.Option(
        None, "--group", help="Column of LABELS that names the patient: patients are resampled."
    ),
    threshold: float | None = typer.Option(
        None,
        "--threshold",
        help="Probability from which the second of two classes is called; without it 0.5, and the "
        "thresholds of the cards.",
    ),
    cutoff: list[str] = typer.Option(
        [],
        "--cutoff",
        metavar="HEAD=RISK",
        help="Risk from which a case is of high risk; without it the card's, or the median.",
    ),
    card: list[str] = typer.Option(
        [],
        "--card",
        metavar="HEAD",
        help="Name of a head of PREDICTIONS, or path of its folder: its threshold is judged, and "
        "heads fitted to different numbers of cases give a learning curve (repeatable).",
    ),
    horizon: float | None = typer.Option(
        None, "--horizon", help="Time at which observation ends for curves and hazard ratios."
    ),
    retest: Path | None = typer.Option(
        None, "--retest", help="Predictions of the same cases imaged again: agreement is added."
    ),
    resamples: int = typer.Option(1000, "--resamples", min=1, help="Of the bootstrap."),
    permutations: int = typer.Option(
        1000, "--permutations", min=1, help="Of the tests between heads."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Of resamples and permutations."),
    figures: bool = typer.Option(True, "--figures/--no-figures", help="Write a PNG per figure."),
    debug: bool = DEBUG,
) -> int:
    """Compare predictions with what came true, and heads with each other.

    Classes give AUC, average precision, balanced accuracy and Brier score; survival gives the
    C-index, curves, log-rank and hazard ratio. Each has its exact value and a bootstrap interval;
    every pair of heads is tested on the same cases.
    """
    from oncofm.biomarkers.cohort import (
        EVENT_COLUMN,
        TIME_COLUMN,
        class_cohort,
        read_columns,
        survival_cohort,
    )
    from oncofm.biomarkers.evaluate import evaluate_classes, evaluate_survival
    from oncofm.biomarkers.evaluation import Sampling, to_json
    from oncofm.biomarkers.evaluation_cards import load_card
    from oncofm.biomarkers.figures import write_figures
    from oncofm.biomarkers.retest import retest_agreement
    from oncofm.results.files import prepare_output_folder, write_text

    if debug:
        show_tracebacks()
    cutoffs = dict(map(_cutoff, cutoff))
    cards = [load_card(name) for name in card]
    sampling = Sampling(n_resamples=resamples, n_permutations=permutations, seed=seed)
    said, truth = read_columns(predictions), read_columns(labels)
    prepare_output_folder(output)
    if {TIME_COLUMN, EVENT_COLUMN} <= set(truth):
        survival = survival_cohort(said, truth, identity, group)
        if unknown := sorted(set(cutoffs) - set(survival.risks)):
            raise SettingInvalidError(
                f"--cutoff names the head {unknown[0]!r}; {predictions} has "
                f"{', '.join(map(repr, survival.risks))}."
            )
        evaluation = evaluate_survival(survival, sampling, cutoffs, horizon, cards)
    else:
        evaluation = evaluate_classes(
            class_cohort(said, truth, identity, group), sampling, threshold, cards
        )
    if retest is not None:
        agreement = retest_agreement(said, read_columns(retest), identity)
        evaluation = replace(evaluation, retest=agreement)
    write_text(output / RESULT_FILE, to_json(evaluation))
    paths = write_figures(evaluation, output) if figures else []
    for model in evaluation.models:
        for name, estimate in model.metrics.items():
            typer.echo(
                f"{model.name}: {name} {estimate.value:.3f} "
                f"[{estimate.low:.3f}, {estimate.high:.3f}]"
            )
    for pair in evaluation.retest:
        icc = pair.correlation
        typer.echo(
            f"{pair.head}: retest ICC(3,1) {icc.value:.3f} [{icc.low:.3f}, {icc.high:.3f}]"
            + (f" for {pair.class_name}" if pair.class_name else "")
        )
    names = ", ".join([RESULT_FILE, *(path.name for path in paths)])
    typer.echo(f"{evaluation.n_cases} cases; {names} in {output}", err=True)
    return 0


def _cutoff(text: str) -> tuple[str, float]:
    name, _, risk = text.rpartition("=")
    try:
        value = float(risk)
    except ValueError:
        value = float("nan")
    if not name or not abs(value) < float("inf"):
        raise SettingInvalidError(f"--cutoff {text} is not of the form HEAD=RISK, a finite number.")
    return name, value
