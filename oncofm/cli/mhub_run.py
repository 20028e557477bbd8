"""``mhub.run``: the entry point of the image, with MHub's arguments and strict about them."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from oncofm.cli.process import end_process, guarded, show_tracebacks
from oncofm.cli.progress import show_progress
from oncofm.errors import SettingInvalidError, WorkflowUnknownError

if TYPE_CHECKING:
    from oncofm.workflow.mhub.models import MhubModel, Workflow

_OVERRIDE = "--config:"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingInvalidError(f"{message}; see mhub.run --help.")


def main() -> None:
    """Run a workflow and end the process with the promised exit code."""
    sys.exit(guarded(lambda: run(sys.argv[1:]), "mhub.run"))


def entry_point() -> None:
    """Run `main`, then leave without taking the interpreter apart."""
    end_process(main)


def run(arguments: Sequence[str]) -> int:
    """Run the workflow that the arguments name.

    Parameters
    ----------
    arguments : sequence of str
        Without the program's name.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    SetupError
        If it cannot start.
    """
    given = [argument for argument in arguments if argument.startswith(_OVERRIDE)]
    options = _parser().parse_args([each for each in arguments if each not in given])

    from oncofm.workflow.mhub.models import choose_model, find_models
    from oncofm.workflow.mhub.overrides import parse_override
    from oncofm.workflow.mhub.run import run_workflow

    if options.debug:
        show_tracebacks()
    models = find_models()
    if options.workflow is None and options.config is None:
        raise WorkflowUnknownError(f"Choose a workflow with --workflow:\n{_list(models)}")
    model = choose_model(models, options.model)
    workflow = _read(options, model)
    overrides = [parse_override(each.removeprefix(_OVERRIDE)) for each in given]
    with show_progress(options.stream_json_progress) as report:
        return run_workflow(
            workflow,
            model,
            overrides,
            echo=options.print,
            cleanup=options.cleanup,
            report=report,
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mhub.run",
        description="Run an MHub workflow: /app/data/input_data in, /app/data/output_data out.",
        epilog="Exit codes: 0 all done, 1 usage or set-up error, 2 some cases not done, "
        "3 no case done. Overrides: --config:modules.MODULE.KEY=VALUE, as often as you like.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-w", "--workflow", metavar="NAME", help="workflow of the model, for example default")
    add("-c", "--config", metavar="FILE", help="workflow file; - reads standard input")
    add("--model", metavar="NAME", help="needed only where several models are installed")
    add("--non-interactive", action="store_true", help="accepted; nothing is ever asked")
    add("--print", action="store_true", help="print what modules log")
    add("--debug", action="store_true", help="show tracebacks of failures")
    add("--cleanup", action="store_true", help="empty the output folder first")
    add("--stream-json-progress", action="store_true", help="report progress as JSON lines")
    return parser


def _read(options: argparse.Namespace, model: "MhubModel") -> "Workflow":
    from oncofm.workflow.mhub.models import choose_workflow, read_workflow

    if options.workflow is not None and options.config is not None:
        raise SettingInvalidError("Give either --workflow or --config, not both.")
    if options.config == "-":
        return read_workflow(Path("(standard input)"), sys.stdin.read())
    if options.config is not None:
        return read_workflow(Path(options.config))
    return read_workflow(choose_workflow(model, str(options.workflow)))


def _list(models: "Mapping[str, MhubModel]") -> str:
    from oncofm.workflow.mhub.models import read_workflow

    return "\n".join(
        f"  {model.name}.{name}: {read_workflow(path).description}"
        for model in models.values()
        for name, path in model.workflows().items()
    )
