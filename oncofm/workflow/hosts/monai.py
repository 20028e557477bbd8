"""oncofm as the application of a MONAI application package (its specification 1.0).

The host names two folders in the environment and, if it likes, a file with settings. Packages of
the specification before it (0.1) have other names for the same folders.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from oncofm.errors import InputNotFoundError, SettingInvalidError
from oncofm.workflow.hosts.settings import host_settings, read_small
from oncofm.workflow.job import JobResult, run_job
from oncofm.workflow.settings import Settings

IN_VARIABLES = ("HOLOSCAN_INPUT_PATH", "MONAI_INPUTPATH")
OUT_VARIABLES = ("HOLOSCAN_OUTPUT_PATH", "MONAI_OUTPUTPATH")
CONFIG_VARIABLE, FOLDER_VARIABLE = "HOLOSCAN_CONFIG_PATH", "HOLOSCAN_WORKDIR"

_FOLDER = "/var/holoscan"


def run_as_application(environment: Mapping[str, str]) -> tuple[JobResult, Path]:
    """Run on the host's input folder, and leave in its output folder what `oncofm run` writes.

    Parameters
    ----------
    environment : mapping
        Variables as the specification names them. Relative paths are below the working folder.

    Returns
    -------
    JobResult
        How it ended; the exit code is the promised one.
    pathlib.Path
        The output folder.

    Raises
    ------
    SetupError
        If it cannot start.
    """
    base = Path(environment.get(FOLDER_VARIABLE) or _FOLDER)
    source = base / _first(environment, IN_VARIABLES, "input")
    output = base / _first(environment, OUT_VARIABLES, "output")
    if not source.is_dir():
        raise InputNotFoundError(f"The input folder {source} is not there; mount it.")
    settings = read_configuration(base / (environment.get(CONFIG_VARIABLE) or "app.yaml"))
    return run_job([source], output, settings), output


def read_configuration(path: Path) -> Settings:
    """Read the application's configuration; without a file, the defaults.

    Raises
    ------
    SettingInvalidError
        If it is no YAML, or names settings that do not exist.
    """
    if not path.exists():
        return host_settings(None, "The settings")
    try:
        content = yaml.safe_load(read_small(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingInvalidError(f"{path} is no YAML; see docs/container.md.") from error
    return host_settings(content, f"The settings in {path}")


def _first(environment: Mapping[str, str], names: tuple[str, ...], default: str) -> str:
    return next((environment[name] for name in names if environment.get(name)), default)
