"""``oncofm.container``: the entry point of the image."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from oncofm.cli.process import end_process, guarded
from oncofm.errors import SettingInvalidError

_MERCURE = ("MERCURE_IN_DIR", "MERCURE_OUT_DIR")
_MONAI = ("HOLOSCAN_INPUT_PATH", "MONAI_INPUTPATH")
_DEFAULT = ("--workflow", "default")


def main() -> None:
    """Do what the arguments say or, without any, what the host wants.

    A first word without a dash is a command of ``oncofm``; options are those of ``mhub.run``.
    Without arguments the environment tells whether mercure or a host of MONAI application packages
    started the container; else MHub did, and its workflow ``default`` runs. mercure names its
    folders to both kinds of modules, so it comes first.
    """
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        from oncofm.cli import main as run_command

        return run_command()
    if not arguments and any(os.environ.get(name) for name in _MERCURE):
        sys.exit(guarded(lambda: _run_for_mercure(os.environ), "oncofm"))
    if not arguments and any(os.environ.get(name) for name in _MONAI):
        sys.exit(guarded(lambda: _run_as_application(os.environ), "oncofm"))
    from oncofm.cli.mhub_run import main as run_workflow

    sys.argv[1:] = arguments or _DEFAULT
    return run_workflow()


def entry_point() -> None:
    """Run `main`, then leave without taking the interpreter apart."""
    end_process(main)


def _run_for_mercure(environment: Mapping[str, str]) -> int:
    from oncofm.cli.run import print_summary
    from oncofm.workflow.hosts.mercure import run_for_mercure

    for name in _MERCURE:
        if not environment.get(name):
            raise SettingInvalidError(f"{name} is not set; mercure sets {' and '.join(_MERCURE)}.")
    source, target = (Path(environment[name]) for name in _MERCURE)
    return run_for_mercure(source, target, lambda result: print_summary(result, target))


def _run_as_application(environment: Mapping[str, str]) -> int:
    from oncofm.cli.run import print_summary
    from oncofm.workflow.hosts.monai import run_as_application

    result, output = run_as_application(environment)
    print_summary(result, output)
    return result.manifest.summary.exit_code
