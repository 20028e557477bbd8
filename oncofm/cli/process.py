"""How a command ends: one sentence for what a user did wrong, and the promised exit code."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable

import typer
from typer.exceptions import TyperException

from oncofm.errors import SetupError
from oncofm.logs import silence_pydicom

log = logging.getLogger(__name__)

EXIT_DONE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 130
DEBUG_VARIABLE = "ONCOFM_DEBUG"
"""Does what ``--debug`` does, for every command."""


def guarded(command: Callable[[], object], name: str) -> int:
    """Run a command; say in one sentence why it could not start.

    Parameters
    ----------
    command : callable
        Gives the exit code.
    name : str
        Put in front of the sentence.
    """
    silence_pydicom()
    if os.environ.get(DEBUG_VARIABLE):
        show_tracebacks()
    try:
        code = command()
    except TyperException as error:
        _complain(name, error.format_message())
        return EXIT_USAGE
    except SetupError as error:
        _complain(name, str(error))
        return EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        _complain(name, "Interrupted.")
        return EXIT_INTERRUPTED
    except Exception as error:
        # Its text may quote a header, so it is shown only to who asks for it.
        log.debug("the command failed", exc_info=True)
        _complain(
            name,
            f"Failed unexpectedly ({type(error).__name__}), which is a defect of the program; run "
            f"again with --debug, or with {DEBUG_VARIABLE}=1 in the environment, to see where.",
        )
        return EXIT_USAGE
    return code if isinstance(code, int) else EXIT_DONE


def end_process(main: Callable[[], None]) -> None:
    """Run a program, then leave without taking the interpreter apart.

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


def show_tracebacks() -> None:
    """Let failures of ours show where they happened."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("oncofm").setLevel(logging.DEBUG)


def _complain(name: str, sentence: str) -> None:
    typer.echo(f"{name}: {sentence}", err=True)
