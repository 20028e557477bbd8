"""oncofm as a processing module of mercure, the DICOM orchestrator.

mercure mounts two folders and names them in the environment. The first holds the DICOM files of a
series or a study, flat, and ``task.json`` with the settings of the rule. What lies in the second
as ``*.dcm`` when the container ends with 0 is sent on; ``result.json`` is kept in its database,
and a text under ``__mercure_notification`` reaches who is to be told.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom

from oncofm.biomarkers.predictions import prediction_rows
from oncofm.errors import InputNotFoundError, SettingInvalidError
from oncofm.results.files import atomic_path, prepare_output_folder, write_text
from oncofm.workflow.case import CaseOutcome, LesionOutcome
from oncofm.workflow.hosts.settings import host_settings, read_small
from oncofm.workflow.job import JobResult, run_job
from oncofm.workflow.settings import Settings
from oncofm.workflow.write import KEY_IMAGES, REPORTS

IN_VARIABLE, OUT_VARIABLE = "MERCURE_IN_DIR", "MERCURE_OUT_DIR"
TASK_FILE, RESULT_FILE = "task.json", "result.json"

_NOTIFICATION = "__mercure_notification"


def run_for_mercure(
    source: Path, target: Path, say: Callable[[JobResult], object] = lambda result: None
) -> int:
    """Run on what mercure received, and leave what it is to send on.

    Parameters
    ----------
    source : pathlib.Path
        The files and ``task.json``. Never changed.
    target : pathlib.Path
        Gets each report and key image as ``<series UID>#<SOP instance UID>.dcm``, as mercure names
        files, and ``result.json``.
    say : callable
        Told how the run ended, while its results are still there.

    Returns
    -------
    int
        0 if there is a report, since with any other code mercure throws away what there is; what
        is not done is in ``result.json``, with a notification. Else the run's exit code, not 0.

    Raises
    ------
    SetupError
        If it cannot start.
    """
    if not source.is_dir():
        raise InputNotFoundError(f"{IN_VARIABLE} names {source}, which is no folder; mount it.")
    settings = read_task(source / TASK_FILE)
    prepare_output_folder(target)
    with tempfile.TemporaryDirectory(prefix="oncofm-") as folder:
        output = Path(folder)
        result = run_job([source], output, settings)
        say(result)
        names = [_send_on(path, target) for path in sorted(output.glob(f"{REPORTS}/*.dcm"))]
        exit_code = 0 if names else result.manifest.summary.exit_code or 3
        names += [_send_on(path, target) for path in sorted(output.glob(f"{KEY_IMAGES}/*.dcm"))]
    content = json.dumps(_describe(result, names), indent=2, allow_nan=False)
    write_text(target / RESULT_FILE, content + "\n")
    return exit_code


def read_task(path: Path) -> Settings:
    """Read the settings of the rule from mercure's task file; without a file, the defaults.

    Raises
    ------
    SettingInvalidError
        If it is not what mercure writes, or names settings that do not exist.
    """
    if not path.exists():
        return host_settings(None, "The settings")
    try:
        task = json.loads(read_small(path))
    except (ValueError, RecursionError) as error:
        raise SettingInvalidError(f"{path} is no JSON; it must be mercure's own.") from error
    process = task.get("process") if isinstance(task, dict) else None
    if not isinstance(process, dict):
        raise SettingInvalidError(
            f"{path} has no section `process`; it must be the one that mercure gives a module."
        )
    return host_settings(process.get("settings"), f"The settings in {path}")


def _send_on(path: Path, target: Path) -> str:
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    name = f"{dataset.SeriesInstanceUID}#{dataset.SOPInstanceUID}.dcm"
    with atomic_path(target / name) as temporary:
        shutil.copyfile(path, temporary)
    return name


def _describe(result: JobResult, names: list[str]) -> dict[str, Any]:
    """Say by UIDs and numbers what was found: mercure keeps it, so no free text gets in."""
    manifest = result.manifest
    n_lesions = sum(manifest.summary.lesions.values())
    n_open = n_lesions - manifest.summary.lesions["done"]
    content: dict[str, Any] = {
        "statement": manifest.statement,
        "software": f"{manifest.software.name} {manifest.software.version}",
        "model": manifest.model.name,
        "weights": manifest.model.weights,
        "weights_sha256": manifest.model.weights_sha256,
        "configuration_hash": manifest.configuration_hash,
        "summary": manifest.summary.model_dump(),
        "lesions": [
            _describe_lesion(outcome, lesion)
            for outcome in result.outcomes
            for lesion in outcome.lesions
        ],
        "files": names,
    }
    if n_open or not n_lesions:
        content[_NOTIFICATION] = {
            "text": f"oncofm: {n_open} of {n_lesions} lesions could not be computed."
            if n_lesions
            else "oncofm: there was no lesion to compute."
        }
    return content


def _describe_lesion(outcome: CaseOutcome, lesion: LesionOutcome) -> dict[str, Any]:
    return {
        "series_uid": outcome.case.series_uid,
        "lesion_id": lesion.seed.lesion_id,
        "state": lesion.state.value,
        "reason": lesion.reason,
        "predictions": [
            {key: value for key, value in row.items() if value is not None}
            for prediction in lesion.predictions
            for row in prediction_rows(prediction)
        ],
    }
