"""``oncofm run``: images in, features out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from oncofm.cli.options import DEBUG, JSON_PROGRESS, SEEDS, takes_settings
from oncofm.cli.process import show_tracebacks
from oncofm.cli.progress import show_progress

if TYPE_CHECKING:
    from oncofm.workflow.job import JobResult
    from oncofm.workflow.settings import Settings


@takes_settings
def run(
    inputs: list[Path] = typer.Argument(
        ..., metavar="INPUT", help="Folders or zip archives of DICOM, or volume files."
    ),
    output: Path = typer.Argument(..., metavar="OUTPUT", help="Folder for the results."),
    workflow: str | None = typer.Option(
        None, "--workflow", help="Run an MHub workflow of that name (or file) instead."
    ),
    seeds: Path | None = SEEDS,
    revises: Path | None = typer.Option(
        None, "--sr-revises", help="SR of an earlier run, or folder of them, that new ones revise."
    ),
    json_progress: bool = JSON_PROGRESS,
    debug: bool = DEBUG,
    *,
    settings: "Settings",
) -> int:
    """Compute the features of every lesion in INPUT.

    INPUT holds CT series and the DICOM SEG, RTSTRUCT or SR objects that mark the lesions, in any
    folder layout. OUTPUT gets features.parquet and features.csv (a row per lesion), cases.csv (a
    state and a reason for everything that was seen) and run.json.
    """
    from oncofm.workflow.job import run_job

    if debug:
        show_tracebacks()
    settings = replace(settings, revises=revises)
    if workflow is not None:
        return run_named_workflow(workflow, inputs, output, settings, seeds, json_progress)
    with show_progress(json_progress) as progress:
        result = run_job(inputs, output, settings, seeds=seeds, report=progress)
    print_summary(result, output)
    return result.manifest.summary.exit_code


def run_named_workflow(
    name: str,
    inputs: list[Path],
    output: Path,
    settings: "Settings",
    seeds: Path | None,
    json_progress: bool,
) -> int:
    """Run an MHub workflow on a folder, as the image does."""
    from oncofm.errors import SettingInvalidError
    from oncofm.workflow.mhub.models import (
        choose_model,
        choose_workflow,
        find_models,
        read_workflow,
    )
    from oncofm.workflow.mhub.overrides import overrides_of
    from oncofm.workflow.mhub.run import run_workflow

    if seeds is not None or len(inputs) != 1:
        raise SettingInvalidError("A workflow takes one INPUT and no --seeds.")
    model = choose_model(find_models(), None)
    is_file = name.endswith((".yml", ".yaml"))
    workflow = read_workflow(Path(name) if is_file else choose_workflow(model, name))
    places = {"source_dir": inputs[0].resolve(), "output_dir": output.resolve()}
    with show_progress(json_progress) as report:
        return run_workflow(workflow, model, overrides_of(settings), places=places, report=report)


def print_summary(result: "JobResult", output: Path) -> None:
    """Say on standard error what is done and, in full, what is not."""
    from oncofm.workflow.summary import summarise

    for line in summarise(result):
        typer.echo(line, err=True)
    typer.echo(f"results in {output}", err=True)
