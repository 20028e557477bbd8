"""``oncofm head``: fit heads to features, and import published ones."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

app = typer.Typer(help="Fit heads to features, and import published ones.", no_args_is_help=True)

FACTS = typer.Option(
    ...,
    "--facts",
    help="YAML file of what only you know: title, intended_use, licence; also limits, classes, "
    "data, threshold and direction; model, profile and weights_sha256 where the input does not "
    "tell them.",
)
OUTPUT = typer.Option(..., "-o", "--output", help="Folder of the head; its name is the head's.")


class HeadTask(StrEnum):
    """What a head can be fitted for."""

    binary = "binary"
    multiclass = "multiclass"
    survival = "survival"


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
    cv: int = typer.Option(10, "--cv", min=3, help="Folds."),
    trials: int = typer.Option(100, "--trials", min=1, help="Values of C to try."),
    seed: int = typer.Option(0, "--seed", min=0, help="Of folds, trials and bootstrap."),
) -> None:
    """Fit a head by nested cross-validation and write it with its card."""
    from rich.console import Console
    from rich.progress import Progress

    from oncofm.biomarkers.cohort import read_columns
    from oncofm.biomarkers.fit import fit_head
    from oncofm.biomarkers.save_head import save_head
    from oncofm.biomarkers.training_cases import join_cases

    told = _read_facts(facts)
    cases = join_cases(read_columns(features), read_columns(labels), identity, task.value, group)
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("folds", total=cv + 1)
        fitted = fit_head(
            cases.features,
            cases.labels,
            {"name": output.name} | cases.facts | told,
            task=task.value,
            groups=cases.groups,
            cv=cv,
            n_trials=trials,
            seed=seed,
            advance=lambda: progress.advance(bar),
        )
    save_head(fitted.head, output)
    for figure in fitted.head.card.cross_validated:
        typer.echo(
            f"{figure.statistic} {figure.value:.3f} [{figure.ci_low:.3f}, {figure.ci_high:.3f}]"
        )
    if cases.n_unlabelled:
        typer.echo(f"{cases.n_unlabelled} cases without a label were left out.", err=True)


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
