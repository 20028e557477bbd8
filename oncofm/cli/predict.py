"""``oncofm predict``: features in, biomarkers out."""

from pathlib import Path

import typer

from oncofm.errors import OutputNotWritableError


def predict(
    features: Path = typer.Argument(
        ..., metavar="FEATURES", help="features.parquet or .csv of a run, or its folder."
    ),
    heads: list[str] = typer.Option(
        ..., "--head", metavar="NAME", help="Name of a head, or path of its folder (repeatable)."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="OUT.csv or OUT.parquet."),
) -> None:
    """Predict biomarkers from the features of an earlier run.

    A head that was made for features of another encoder, profile or length is refused.
    """
    from oncofm.results.files import prepare_output_folder
    from oncofm.results.table import TABLE_SUFFIXES, write_table
    from oncofm.workflow.job import load_heads
    from oncofm.workflow.predict import predict_table
    from oncofm.workflow.settings import Settings

    if output.suffix.lower() not in TABLE_SUFFIXES:
        raise OutputNotWritableError(
            f"Output {output} must end in one of {', '.join(TABLE_SUFFIXES)}; rename it."
        )
    prepare_output_folder(output.parent)
    table = predict_table(features, load_heads(Settings(heads=tuple(heads))))
    write_table(table, output)
    typer.echo(f"{table.columns.num_rows} predictions in {output}", err=True)
