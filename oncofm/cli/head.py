"""``oncofm head``: fit heads to features, and import published ones."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from oncofm.biomarkers.head import Head
    from oncofm.biomarkers.training_cases import TrainingCases

app = typer.Typer(help="Fit heads to features, and import published ones.", no_args_is_help=True)

FACTS = typer.Option(
    ...,
    "--facts",
    help="YAML file of what only you know: title, intended_use, licence; also limits, classes, "
    "data, threshold and direction (a fitted binary head with a direction gets a threshold); "
    "model, profile and weights_sha256 where the input does not tell them.",
)
OUTPUT = typer.Option(..., "-o", "--output", help="Folder of the head; its name is the head's.")


class HeadTask(StrEnum):
    """What a head can be fitted for."""

    binary = "binary"
    multiclass = "multiclass"
    survival = "survival"


class CalibrationName(StrEnum):
    """How probabilities can be calibrated."""

    none = "none"
    platt = "platt"
    isotonic = "isotonic"


@app.command("import")
def import_(
    file: Path = typer.Argument(
        ..., metavar="FILE", help="Pickled scikit-learn LogisticRegression, or PyTorch state dict."
    ),
    output: Path = OUTPUT,
    facts: Path = FACTS,
) -> None:
    """Turn a published head into one of ours; no code of FILE is run."""
    from oncofm.biomarkers.import_head import import_head

    head = import_head(file, output, _read_facts(facts))
    typer.echo(f"{output}: {head.card.kind} head of {head.card.n_features} features.")


@app.command()
def fit(
    features: Path = typer.Argument(..., metavar="FEATURES", help="Table of `oncofm run`."),
    labels: Path = typer.Argument(
        ..., metavar="LABELS", help="CSV or Parquet: label; or time, event for survival."
    ),
    output: Path = OUTPUT,
    task: HeadTask = typer.Option(..., "--task"),
    facts: Path = FACTS,
    identity: list[str] = typer.Option(
        ["lesion_id"],
        "--id",
        help="Column of both tables that names a case; repeat it where several do together.",
    ),
    group: str | None = typer.Option(
        None, "--group", help="Column of LABELS that names the patient: never split over folds."
    ),
    val: Path | None = typer.Option(
        None,
        "--val",
        help="Table like LABELS of other cases in FEATURES: C is chosen on them, without folds.",
    ),
    cv: int | None = typer.Option(
        None, "--cv", min=3, help="Folds of the nested cross-validation; 10 unless --val is given."
    ),
    trials: int = typer.Option(100, "--trials", min=1, help="Values of C to try."),
    calibration: CalibrationName | None = typer.Option(
        None,
        "--calibration",
        help="Of probabilities, on held-out cases; platt (default), except for survival.",
    ),
    fraction: float | None = typer.Option(
        None, "--fraction", help="Fit to this share of the cases only, for a learning curve."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Of folds, trials, share and bootstrap."),
) -> None:
    """Fit a head by nested cross-validation, or on a validation set; write it with its card."""
    from oncofm.biomarkers.cohort import read_columns
    from oncofm.biomarkers.save_head import save_head
    from oncofm.biomarkers.training_cases import join_cases, take_fraction
    from oncofm.errors import EvaluationError

    if val is not None and cv is not None:
        raise EvaluationError("--val chooses C instead of --cv; give one of the two.")
    table = read_columns(features)
    cases = join_cases(table, read_columns(labels), identity, task.value, group)
    options: dict[str, Any] = {
        "task": task.value,
        "n_trials": trials,
        "calibration": None if calibration is None else calibration.value,
        "seed": seed,
    }
    n_unlabelled = cases.n_unlabelled
    if fraction is not None:
        cases = take_fraction(cases, task.value, fraction, seed)
        options["settings"] = {"fraction": fraction}
    told = {"name": output.name} | cases.facts | _read_facts(facts)
    if val is None:
        head = _fit_with_folds(cases, told, cv, options)
    else:
        from oncofm.biomarkers.fit import fit_head_validated

        validation = join_cases(table, read_columns(val), identity, task.value, group)
        n_unlabelled -= len(validation.labels)
        head = fit_head_validated(cases, validation, told, **options)
    save_head(head, output)
    for figure in (*head.card.cross_validated, *head.card.validation):
        typer.echo(
            f"{figure.statistic} {figure.value:.3f} [{figure.ci_low:.3f}, {figure.ci_high:.3f}]"
        )
    if n_unlabelled:
        typer.echo(f"{n_unlabelled} cases without a label were left out.", err=True)


def _fit_with_folds(
    cases: "TrainingCases", told: dict[str, Any], cv: int | None, options: dict[str, Any]
) -> "Head":
    from rich.console import Console
    from rich.progress import Progress

    from oncofm.biomarkers.fit import DEFAULT_FOLDS, fit_head

    cv = DEFAULT_FOLDS if cv is None else cv
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("folds", total=cv + 1)
        return fit_head(
            cases.features,
            cases.labels,
            told,
            groups=cases.groups,
            cv=cv,
            advance=lambda: progress.advance(bar),
            **options,
        ).head


def _read_facts(path: Path) -> dict[str, Any]:
    import yaml

    from oncofm.errors import HeadInvalidError

    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise HeadInvalidError(f"The facts {path} cannot be read as YAML.") from error
    if not isinstance(facts, dict) or not all(isinstance(key, str) for key in facts):
        raise HeadInvalidError(f"The facts {path} are no mapping of names to values.")
    return facts
