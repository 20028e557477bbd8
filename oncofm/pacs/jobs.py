"""The work of the job process: the workflow on the files of a study, with a model that stays."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pydicom
from pydicom.uid import Comprehensive3DSRStorage

from oncofm.encoders.encoder import Encoder
from oncofm.errors import OncofmError, Rejected
from oncofm.logs import silence_pydicom
from oncofm.pacs.errors import NoReportError
from oncofm.pacs.studies import ReportFile
from oncofm.workflow.job import run_job_with, start_loading
from oncofm.workflow.settings import Settings
from oncofm.workflow.timing import Timing
from oncofm.workflow.write import KEY_IMAGES, REPORTS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What a job process is told to do.

    Attributes
    ----------
    study_uid : str
        The study.
    files : tuple of pathlib.Path
        Its objects; never changed.
    output : pathlib.Path
        Folder for the results.
    settings : Settings
        How it runs.
    """

    study_uid: str
    files: tuple[Path, ...]
    output: Path
    settings: Settings


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: with results to send, or with a reason.

    Attributes
    ----------
    reports : tuple of ReportFile
        What is to be sent.
    reason, message : str
        Reason code and sentence if there are none.
    is_final : bool
        Whether trying again would end the same way.
    """

    reports: tuple[ReportFile, ...] = ()
    reason: str = ""
    message: str = ""
    is_final: bool = False


def run_order(order: Order, load_encoder: Callable[[], Encoder]) -> JobEnd:
    """Run the workflow on the files of a study.

    What cannot be used about the study is final; what is wrong with the machine may pass.
    """
    try:
        return JobEnd(_run(order, load_encoder))
    except Rejected as error:
        return JobEnd(reason=error.code, message=str(error), is_final=True)
    except OncofmError as error:
        return JobEnd(reason=error.code, message=str(error))
    except Exception as error:  # its text may quote a header
        log.debug("the job failed", exc_info=True)
        message = f"The job failed unexpectedly ({type(error).__name__}), a defect of the program."
        return JobEnd(reason="job_failed", message=message)


def _run(order: Order, load_encoder: Callable[[], Encoder]) -> tuple[ReportFile, ...]:
    result = run_job_with(load_encoder, order.files, order.output, order.settings)
    reports = check_reports(order.output, order.study_uid)
    if not any(report.sop_class == Comprehensive3DSRStorage for report in reports):
        said = [outcome.message for outcome in result.outcomes if outcome.message]
        said += result.manifest.reports.failures if result.manifest.reports else []
        raise NoReportError(
            f"No lesion of study {order.study_uid} gave a report. {' '.join(said[:3])}".strip()
        )
    return reports


def check_reports(output: Path, study_uid: str) -> tuple[ReportFile, ...]:
    """Look at what a job left to be sent: it must be whole, of this study, and say something.

    Raises
    ------
    NoReportError
        If a file is not.
    """
    found = []
    for path in sorted([*output.glob(f"{REPORTS}/*.dcm"), *output.glob(f"{KEY_IMAGES}/*.dcm")]):
        try:
            dataset = pydicom.dcmread(path, defer_size=1024)
            is_good = dataset.StudyInstanceUID == study_uid and (
                dataset.SOPClassUID != Comprehensive3DSRStorage
                or len(dataset.ContentSequence[-1].ContentSequence) > 0
            )
            report = ReportFile(path, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
        except Exception as error:
            raise NoReportError(
                f"Result {path.name} of study {study_uid} cannot be read "
                f"({type(error).__name__}), which is a defect of the program."
            ) from error
        if not is_good:
            raise NoReportError(
                f"Result {path.name} is empty or not of study {study_uid}, which is a defect of "
                "the program."
            )
        found.append(report)
    return tuple(found)


def serve(connection: Connection, settings: Settings) -> None:
    """Load the model, say so, then do what comes in, until the other end is closed.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
        Takes `Order`, gives `JobEnd`; first None, or the `JobEnd` that says why it cannot start.
    settings : Settings
        Which model.
    """
    silence_pydicom()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to all of a group; the node ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with ThreadPoolExecutor(1) as loader:
        try:
            load_encoder = start_loading(loader, settings, Timing())
            import oncofm.workflow.reports  # noqa: F401  no job should wait for highdicom

            load_encoder()
        except OncofmError as error:
            connection.send(JobEnd(reason=error.code, message=str(error)))
            return
        try:
            connection.send(None)
            while True:
                connection.send(run_order(connection.recv(), load_encoder))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _end_with_parent() -> None:
    """Do not outlive a node that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
