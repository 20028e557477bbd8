"""``oncofm features``: a table of seeds in, the same table with features out."""

from pathlib import Path

import typer

from oncofm.cli.options import (
    BATCH_SIZE,
    DEBUG,
    DEVICE,
    ENGINE,
    JSON_PROGRESS,
    PRECISION,
    PROFILE,
    SHA256,
    WEIGHTS,
    Engine,
    Precision,
    Profile,
)
from oncofm.cli.process import show_tracebacks
from oncofm.cli.progress import show_progress
from oncofm.errors import OutputNotWritableError


def features(
    seeds: Path = typer.Argument(
        ..., metavar="SEEDS", help="CSV, JSON lines or Parquet: image_path, coordX, coordY, coordZ."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="OUT.parquet or OUT.csv."),
    weights: Path | None = WEIGHTS,
    sha256: str | None = SHA256,
    profile: Profile = PROFILE,
    engine: Engine = ENGINE,
    device: str = DEVICE,
    precision: Precision = PRECISION,
    batch_size: int | None = BATCH_SIZE,
    json_progress: bool = JSON_PROGRESS,
    debug: bool = DEBUG,
) -> int:
    """Compute the features of every row of a seed table.

    Coordinates are LPS millimetres; image_path is a NIfTI, NRRD or MetaImage file or a DICOM
    folder. OUT has the input's own columns, pred_0 ... pred_4095, and the state of each row;
    a row that cannot be used keeps its place and says why.
    """
    from oncofm.results.files import prepare_output_folder
    from oncofm.results.table import TABLE_SUFFIXES, write_table
    from oncofm.seeds.table import read_seed_table
    from oncofm.workflow.case import CaseState
    from oncofm.workflow.describe import exit_code
    from oncofm.workflow.features import encode_table
    from oncofm.workflow.settings import Settings

    if debug:
        show_tracebacks()
    if output.suffix.lower() not in TABLE_SUFFIXES:
        raise OutputNotWritableError(
            f"Output {output} must end in one of {', '.join(TABLE_SUFFIXES)}; rename it."
        )
    prepare_output_folder(output.parent)
    settings = Settings(
        weights=weights,
        expected_sha256=sha256,
        profile=profile.value,
        engine=engine.value,
        device=device,
        precision=precision.value,
        batch_size=batch_size,
    )
    table = read_seed_table(seeds)
    with show_progress(json_progress) as report:
        result, states = encode_table(table, settings, report)
    write_table(result, output)
    n_done = states.count(CaseState.DONE)
    typer.echo(f"{n_done} of {len(states)} rows done; table in {output}", err=True)
    return exit_code(states)
