"""``oncofm demo``: a phantom study and the main job on it."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from oncofm.cli.progress import show_progress
from oncofm.cli.run import print_summary

if TYPE_CHECKING:
    from oncofm.demo.phantom import Lesion
    from oncofm.workflow.job import JobResult

_SEED = 0
_HEADS = ("lung1-survival", "lung1-survival-cox")


def demo(
    output: Path = typer.Argument(..., metavar="OUT", help="Folder for the study and results."),
    weights: Path | None = typer.Option(
        None, "--weights", help="Real weights. Default: seeded random weights without meaning."
    ),
    cases: int | None = typer.Option(
        None,
        "--cases",
        min=1,
        help="Instead of that, write as many small cases to OUT/cohort, 30 % of them broken in "
        "many ways, with expected.csv: something to try `oncofm batch` on.",
    ),
) -> int:
    """Make a small phantom study and take it all the way: features, biomarkers, SR, report.

    OUT/study gets a chest phantom with three lesions of known centre and size, as a DICOM CT
    series with a DICOM SEG and a scout view; OUT/results gets what `oncofm run` writes with
    --head, --sr and --report. The weights are random unless --weights names a file, and every
    output says so.
    """
    from oncofm.demo.study import write_demo_study
    from oncofm.results.files import prepare_output_folder
    from oncofm.workflow.job import run_job
    from oncofm.workflow.settings import Settings

    prepare_output_folder(output)
    if cases is not None:
        return _write_cohort(output, cases)
    study = write_demo_study(output / "study", seed=_SEED)
    settings = Settings(
        weights=weights,
        random_seed=None if weights else _SEED,
        heads=_HEADS,
        sr="auto",
        report=True,
    )
    results = output / "results"
    with show_progress(json_lines=False) as report:
        result = run_job([study.folder], results, settings, report=report)
    print_summary(result, results)
    if result.manifest.summary.exit_code == 0:
        _show(study.lesions, result, results)
    return result.manifest.summary.exit_code


def _write_cohort(output: Path, n_cases: int) -> int:
    import csv

    from oncofm.demo.cohort import write_cohort

    written = write_cohort(output / "cohort", n_cases, seed=_SEED)
    with (output / "expected.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study_uid", "defect", "level", "case_id", "state", "reason"])
        for case in written:
            for row in case.expected:
                facts = (row.level, row.case_id, row.state, row.reason)
                writer.writerow([case.study_uid, case.defect, *facts])
    n_healthy = sum(case.is_healthy for case in written)
    typer.echo(
        f"{n_cases} cases, {n_healthy} of them healthy, in {output / 'cohort'}; how each ends: "
        f"{output / 'expected.csv'}\ntry: oncofm batch {output / 'cohort'} {output / 'results'}"
    )
    return 0


def _show(lesions: "tuple[Lesion, ...]", result: "JobResult", results: Path) -> None:
    typer.echo("lesion                   true centre (LPS mm)        seed found (LPS mm)")
    seeds = [lesion.seed for outcome in result.outcomes for lesion in outcome.done]
    for truth, seed in zip(lesions, seeds, strict=True):
        found_mm = getattr(seed, "position_mm", ())
        typer.echo(f"{truth.label:<22}{_point(truth.centre_mm)}{_point(found_mm)}")
    typer.echo(f"\nweights: {result.manifest.model.weights}\nresults: {results}")
    for path in sorted(path for path in results.rglob("*") if path.is_file()):
        name = path.relative_to(results).as_posix()
        typer.echo(f"  {name:<64} {path.stat().st_size:>10,} bytes")


def _point(position_mm: tuple[float, ...]) -> str:
    return "  (" + ", ".join(f"{value:7.2f}" for value in position_mm) + ")"
