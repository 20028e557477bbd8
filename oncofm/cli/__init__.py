"""The command line: one file per group, heavy imports inside the commands."""

import gc
import sys

import typer

import oncofm
from oncofm.cli import (
    batch,
    demo,
    doctor,
    evaluate,
    features,
    head,
    pacs,
    predict,
    run,
    seeds,
    weights,
)
from oncofm.cli.process import end_process, guarded

_GC_THRESHOLD = 20_000
"""New objects until the garbage collector looks for cycles. At Python's 700, a tenth of a short
run went into looking through modules that stay to its end."""

app = typer.Typer(
    name="oncofm",
    help="Cancer images to biomarkers with foundation models. For research use only.",
    epilog="Exit codes: 0 all done, 1 usage or set-up error, 2 some cases not done, "
    "3 no case done.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.add_typer(batch.app, name="batch")
app.command("merge")(batch.merge)
app.command("seeds")(seeds.seeds)
app.command("features")(features.features)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(head.app, name="head")
app.add_typer(pacs.app, name="pacs")
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(weights.app, name="weights")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"oncofm {oncofm.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command and end the process with the promised exit code."""
    sys.exit(guarded(lambda: app(standalone_mode=False), "oncofm"))


def entry_point() -> None:
    """Run `main`, then leave without taking the interpreter apart."""
    gc.set_threshold(_GC_THRESHOLD)
    end_process(main)
