"""Which MHub models, workflows and modules there are, in an image and outside one."""

import importlib.util
import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from oncofm.errors import WorkflowInvalidError, WorkflowUnknownError
from oncofm.resources import resource_dir
from oncofm.workflow.settings import MODEL

log = logging.getLogger(__name__)

MHUB_MODELS = Path("/app/models")
"""Where MHub images keep a folder per model, with ``config/`` and ``utils/`` in it."""

MODEL_ALIASES = {"fmcib_radiomics": MODEL}
"""Names of models that ours replaces."""


@dataclass(frozen=True)
class MhubModel:
    """A model in MHub's layout.

    Attributes
    ----------
    name : str
        Name of its folder.
    config_dir, modules_dir : pathlib.Path
        Where its workflows (``*.yml``) and its modules (``*.py``) are.
    """

    name: str
    config_dir: Path
    modules_dir: Path

    def workflows(self) -> dict[str, Path]:
        """Workflow files by name."""
        return {path.stem: path for path in sorted(self.config_dir.glob("*.yml"))}


@dataclass(frozen=True)
class Workflow:
    """A workflow file.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    content : dict
        Its sections; ``general`` and ``modules`` are mappings.
    steps : tuple of (str, dict)
        Name and local configuration of each module, in order.
    """

    path: Path
    content: dict[str, Any]
    steps: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def description(self) -> str:
        """One line about it."""
        return str(self.content["general"].get("description", ""))


def find_models(root: Path = MHUB_MODELS) -> dict[str, MhubModel]:
    """Find the models of an image, or outside of one the model of this package."""
    found = {
        folder.name: MhubModel(folder.name, folder / "config", folder / "utils")
        for folder in (sorted(root.iterdir()) if root.is_dir() else ())
        if (folder / "config").is_dir() and (folder / "utils").is_dir()
    }
    return found or {MODEL: MhubModel(MODEL, resource_dir("config"), resource_dir("mhub"))}


def choose_model(models: Mapping[str, MhubModel], name: str | None) -> MhubModel:
    """Choose a model by name; without one there must be only one.

    Raises
    ------
    WorkflowUnknownError
        With the models that exist.
    """
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    model = models.get(name or "") or models.get(MODEL_ALIASES.get(name or "", ""))
    if model is None:
        wrong = f"There is no model {name!r}" if name else "Several models are installed"
        raise WorkflowUnknownError(f"{wrong}; choose one with --model: {', '.join(models)}.")
    return model


def choose_workflow(model: MhubModel, name: str) -> Path:
    """Find the file of a workflow.

    Raises
    ------
    WorkflowUnknownError
        With the workflows that exist.
    """
    workflows = model.workflows()
    if name not in workflows:
        raise WorkflowUnknownError(
            f"Model {model.name} has no workflow {name!r}; choose one of {', '.join(workflows)}."
        )
    return workflows[name]


def read_workflow(path: Path, text: str | None = None) -> Workflow:
    """Read a workflow file.

    Parameters
    ----------
    path : pathlib.Path
        YAML with the sections ``general``, ``execute`` and, optionally, ``modules``, ``sample``.
    text : str, optional
        Its content, where it comes from elsewhere.

    Raises
    ------
    WorkflowInvalidError
        If it is no such file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8") if text is None else text)
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowInvalidError(f"Workflow file {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise WorkflowInvalidError(f"Workflow file {path} is no YAML: {problem}.") from error
    if not isinstance(content, dict):
        raise WorkflowInvalidError(
            f"Workflow file {path} has no sections; see the ones in config/."
        )
    for section in ("general", "modules"):
        content[section] = content.get(section) or {}
        if not isinstance(content[section], dict):
            raise WorkflowInvalidError(f"Section {section} of workflow file {path} is no mapping.")
    for name, section in content["modules"].items():
        content["modules"][name] = section or {}
        if not isinstance(content["modules"][name], dict):
            raise WorkflowInvalidError(f"modules.{name} of workflow file {path} is no mapping.")
    if not isinstance(content["general"].setdefault("data_base_dir", "/app/data"), str):
        raise WorkflowInvalidError(f"general.data_base_dir of workflow file {path} is no path.")
    steps = content.get("execute")
    if not isinstance(steps, list) or not steps:
        raise WorkflowInvalidError(f"Workflow file {path} has no list of modules under execute.")
    return Workflow(path, content, tuple(_step(step, path) for step in steps))


def _step(step: Any, path: Path) -> tuple[str, dict[str, Any]]:
    if isinstance(step, str):
        return step, {}
    if isinstance(step, dict) and isinstance(step.get("module"), str):
        return step["module"], {key: value for key, value in step.items() if key != "module"}
    raise WorkflowInvalidError(
        f"An entry under execute of workflow file {path} names no module: {step!r}."
    )


def load_modules(workflow: Workflow, model: MhubModel) -> list[type]:
    """Load the module class of every step.

    Raises
    ------
    WorkflowUnknownError
        If a module does not exist, with those that do.
    """
    local = {path.stem: path for path in sorted(model.modules_dir.glob("[A-Z]*.py"))}
    shared = _mhubio_modules()
    classes = []
    for name, _ in workflow.steps:
        if name in local:
            classes.append(_class_of(_load_file(name, local[name]), name))
        elif name in shared:
            classes.append(_class_of(_import(shared[name]), name))
        else:
            raise WorkflowUnknownError(
                f"Workflow {workflow.path.stem} names a module {name!r}, which does not exist; "
                f"there are {', '.join([*local, *shared])}."
            )
    return classes


def _class_of(module: Any, name: str) -> type:
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise WorkflowInvalidError(f"Module file {module.__file__} has no class {name}.")
    return found


def _import(path: str) -> Any:
    """Import a module of mhubio's; many of them need packages that we do not."""
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise WorkflowInvalidError(
            f"Module {path} of mhubio cannot be imported ({error}); install what it needs."
        ) from error


def _load_file(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"mhub_modules.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        log.debug("module %s cannot be loaded", name, exc_info=True)
        raise WorkflowInvalidError(
            f"Module file {path} cannot be loaded ({type(error).__name__}: {error})."
        ) from error
    return module


def _mhubio_modules() -> dict[str, str]:
    """Modules that mhubio brings, by name; they are imported only if a workflow names them."""
    import mhubio.modules

    found = pkgutil.walk_packages(mhubio.modules.__path__, "mhubio.modules.")
    paths = [info.name for info in found if not info.ispkg]
    return {path.rpartition(".")[2]: path for path in sorted(paths)}
