"""Run an MHub workflow, strictly: what goes wrong is said, and is in the exit code."""

import contextlib
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncofm.errors import SettingInvalidError, SetupError, WorkflowInvalidError
from oncofm.workflow.describe import EXIT_DONE, EXIT_SOME_NOT_DONE, EXIT_USAGE
from oncofm.workflow.job import Report
from oncofm.workflow.mhub.context import WorkflowContext
from oncofm.workflow.mhub.models import MhubModel, Workflow, load_modules
from oncofm.workflow.mhub.overrides import Override, apply_overrides, declared_keys

log = logging.getLogger(__name__)

_HOW_TO_SEE = "run again with --debug to see where"
_LAST_MODULE = "ResultExporter"
"""What every workflow must have, or nothing would be written."""


@dataclass
class RunLog:
    """Stands in for mhubio's logger: keeps its chatter away, and notes which instances failed.

    mhubio catches what a module raises in an instance, logs it and goes on.

    Attributes
    ----------
    echo : bool
        Print what modules log.
    failures : list of str
        A sentence for every instance that a module failed in.
    """

    echo: bool = False
    failures: list[str] = field(default_factory=list)
    _module: str = ""
    _instance: str = ""

    def log(self, *parts: Any, level: Any = "NOTICE") -> None:
        """Take what a module has to say."""
        text = " ".join(map(str, parts))
        log.debug("%s: %s", self._module, text)
        if self.echo:
            print(text, file=sys.__stderr__)
        if str(level).endswith("ERROR"):
            where = f"in instance {self._instance}" if self._instance else "outside of any instance"
            sentence = f"Module {self._module} failed {where}; {_HOW_TO_SEE}."
            if sentence not in self.failures:
                self.failures.append(sentence)

    # mhubio's names

    def startModule(self, module: str) -> None:  # noqa: D102
        self._module = module

    def finishModule(self, module: str) -> None:  # noqa: D102
        self._module = ""

    def startInstance(self, instance: Any) -> None:  # noqa: D102
        self._instance = str(instance.attr.get("sid") or instance.attr.get("id"))

    def finishInstance(self, instance: Any) -> None:  # noqa: D102
        self._instance = ""


def run_workflow(
    workflow: Workflow,
    model: MhubModel,
    overrides: Sequence[Override] = (),
    *,
    places: dict[str, Path] | None = None,
    echo: bool = False,
    cleanup: bool = False,
    report: Report = lambda event: None,
) -> int:
    """Run the modules of a workflow.

    Parameters
    ----------
    workflow : Workflow
        What to run.
    model : MhubModel
        Whose modules it may name, besides those of mhubio.
    overrides : sequence of Override
        Changes of its configuration.
    places : dict of str to pathlib.Path, optional
        Absolute paths for every module that has these keys: ``source_dir``, ``output_dir``.
    echo : bool
        Print what modules log.
    cleanup : bool
        Empty the output folder, once nothing is left that could stop the run from starting.
    report : callable
        Takes progress events.

    Returns
    -------
    int
        0 if all cases are done, 2 if some are not, 3 if none is.

    Raises
    ------
    SetupError
        Before any work if the configuration is wrong, the input is absent, the weights are
        missing or the output cannot be written.
    """
    classes = load_modules(workflow, model)
    if not any(cls.__name__ == _LAST_MODULE for cls in classes):
        raise WorkflowInvalidError(
            f"Workflow {workflow.path} would write no results; add {_LAST_MODULE} to execute."
        )
    places_given = [
        Override(("modules", cls.__name__, key), str(path))
        for cls in classes
        for key, path in (places or {}).items()
        if key in declared_keys(cls)
    ]
    content = apply_overrides(workflow, classes, [*overrides, *places_given])
    run_log = RunLog(echo)
    config = _make_config(workflow, content)
    config.useLogger(run_log)
    config.oncofm_context = context = WorkflowContext(report=report)
    modules = [
        cls(config=config, local_config=local)
        for cls, (_, local) in zip(classes, workflow.steps, strict=True)
    ]
    for module in modules:
        if hasattr(module, "check"):
            module.check()
    if cleanup:
        _empty_output(modules)
    try:
        code = _execute(modules, run_log)
    finally:
        context.close()
    if context.result is None:
        reason = "".join(f" {failure}" for failure in run_log.failures[-1:])
        raise WorkflowInvalidError(
            f"Workflow {workflow.path} ended before it had written results.{reason}"
        )
    for sentence in run_log.failures:
        print(f"failed: {sentence}", file=sys.stderr)
    code = code or context.result.manifest.summary.exit_code
    return EXIT_SOME_NOT_DONE if code == EXIT_DONE and run_log.failures else code


def _execute(modules: Sequence[Any], run_log: RunLog) -> int:
    """Run the modules; one that ends the process says how the run went."""
    _let_modules_flush()
    for module in modules:
        try:
            module.execute()
        except SetupError:
            raise
        except SystemExit as end:
            if isinstance(end.code, str):
                run_log.failures.append(end.code)
                return EXIT_USAGE
            return int(end.code or EXIT_DONE)
        except Exception as error:
            log.debug("module %s failed", module.label, exc_info=True)
            raise WorkflowInvalidError(
                f"Module {module.label} failed ({type(error).__name__}); {_HOW_TO_SEE}."
            ) from error
    return EXIT_DONE


def _empty_output(modules: Sequence[Any]) -> None:
    """Empty the output folder, which an earlier run may have filled."""
    base = Path(modules[0].config.data.abspath)
    sources, targets = (
        [(base / getattr(module, key)).resolve() for module in modules if hasattr(module, key)]
        for key in ("source_dir", "output_dir")
    )
    for folder in targets:
        if any(source.is_relative_to(folder) for source in sources):
            raise SettingInvalidError(
                f"Output folder {folder} holds the input, so --cleanup would delete it; choose "
                "another output folder."
            )
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _make_config(workflow: Workflow, content: dict[str, Any]) -> Any:
    """Make mhubio's configuration object without its looking at the command line."""
    from mhubio.core import Config

    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        with contextlib.redirect_stdout(None):
            return Config(config_file=None, config=content, args=False)
    finally:
        sys.argv = argv


def _let_modules_flush() -> None:
    """Give mhubio's capture of standard output the method that ``print(..., flush=True)`` needs."""
    from mhubio.core.Logger import ConsoleCapture

    if not hasattr(ConsoleCapture, "flush"):
        ConsoleCapture.flush = lambda self: None  # pyright: ignore[reportAttributeAccessIssue]
