"""The command line: one file per group, heavy imports inside the commands."""

import contextlib
import logging
import os
import sys
import warnings

import typer
from typer.exceptions import TyperException

import oncofm
from oncofm.cli import demo, doctor, features, run, weights
from oncofm.errors import SetupError

EXIT_DONE, EXIT_USAGE = 0, 1

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
app.command("features")(features.features)
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
    _silence_readers()
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        _complain(error.format_message())
        code = EXIT_USAGE
    except SetupError as error:
        _complain(str(error))
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        _complain("Interrupted.")
        code = 130
    sys.exit(code if isinstance(code, int) else EXIT_DONE)


def entry_point() -> None:
    """Run `main`, then leave without taking the interpreter apart.

    Every result is on disk by then, and taking apart a process that holds torch and the weights
    costs 0.7 s, a fifth of a short run.
    """
    code = EXIT_DONE
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else EXIT_USAGE
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _silence_readers() -> None:
    # pydicom's warnings quote the values they are about, which may be a patient's.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def _complain(sentence: str) -> None:
    typer.echo(f"oncofm: {sentence}", err=True)
