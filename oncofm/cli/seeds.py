"""``oncofm seeds``: what says where the lesions are, as a table and as pictures."""

from pathlib import Path

import typer

from oncofm.cli.options import KINDS, LABELS, MIN_VOLUME, PER, SEEDS, THRESHOLD, Per, SeedKind


def seeds(
    inputs: list[Path] = typer.Argument(
        ..., metavar="INPUT", help="Folders or zip archives of DICOM, or volume files."
    ),
    output: Path = typer.Option(
        ..., "-o", "--output", help="Table to write (.csv or .parquet); usable as a seed table."
    ),
    overlay: Path | None = typer.Option(
        None, "--overlay", help="Folder for a three-plane picture (PNG) of every lesion."
    ),
    seeds: Path | None = SEEDS,
    kinds: list[SeedKind] | None = KINDS,
    labels: list[str] | None = LABELS,
    per: Per = PER,
    min_volume: float = MIN_VOLUME,
    threshold: float = THRESHOLD,
) -> int:
    """List the lesions that are marked in INPUT, without running a model.

    Look at the pictures before a long run: the cross hair must sit on the lesion. A table made
    here can be edited and given to `oncofm run --seeds` or `oncofm features`.
    """
    from oncofm.errors import SettingInvalidError
    from oncofm.results.table import TABLE_SUFFIXES
    from oncofm.workflow.describe import exit_code
    from oncofm.workflow.list_seeds import list_seeds
    from oncofm.workflow.settings import Settings

    if output.suffix.lower() not in TABLE_SUFFIXES:
        raise SettingInvalidError(f"{output} is none of {', '.join(TABLE_SUFFIXES)}; rename it.")
    settings = Settings(
        seed_kinds=tuple(kind.value for kind in kinds or ()),
        labels=tuple(labels or ()),
        per=per.value,
        min_volume_mm3=min_volume,
        seg_threshold=threshold,
    )
    listing = list_seeds(inputs, output, settings, seeds=seeds, overlays=overlay)
    for outcome in listing.outcomes:
        if outcome.message:
            typer.echo(f"{outcome.state.value}: {outcome.message}", err=True)
    broken = [verdict for verdict in listing.verdicts if verdict.level == "file"]
    for verdict in broken:
        typer.echo(f"rejected: {verdict.error}", err=True)
    n_lesions = sum(len(outcome.lesions) for outcome in listing.outcomes)
    n_found = sum(len(outcome.done) for outcome in listing.outcomes)
    typer.echo(
        f"{n_found} of {n_lesions} lesions found in {len(listing.outcomes)} cases; see {output}",
        err=True,
    )
    return exit_code([outcome.state for outcome in listing.outcomes], len(broken))
