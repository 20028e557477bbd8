"""A worker beside the node, on the same machine: for a second GPU, say."""

import contextlib
import signal
import threading
from collections.abc import Callable

from oncofm.logs import silence_pydicom
from oncofm.pacs.audit import AUDIT_FILE, AuditLog
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.database import open_existing
from oncofm.pacs.node import SPOOL_FOLDER, check_model, steady_clock
from oncofm.pacs.spool import Spool
from oncofm.pacs.studies import Studies
from oncofm.pacs.work_queue import open_queue
from oncofm.pacs.worker import Runner, Worker, job_process
from oncofm.pacs.workers import be_worker

_AFTER_FAILURE_S = 1.0


def work(config: PacsConfig, say: Callable[[str], None], runner: Runner | None = None) -> None:
    """Run jobs of a node that `oncofm pacs serve` serves, until SIGTERM or SIGINT.

    Parameters
    ----------
    config : PacsConfig
        The node's; the device may be another.
    say : callable
        Told when work begins and ends.
    runner : Runner or None
        Does the jobs; else a process with the model that the configuration names.

    Raises
    ------
    SetupError
        If it cannot start: there is no node yet, weights are missing.
    """
    silence_pydicom()
    threading.excepthook = lambda args: None  # a library's traceback may quote a header
    stopping = threading.Event()
    folder = config.node.folder
    with open_existing(folder) as database, be_worker(folder) as name:
        if runner is None:
            check_model(config)
            runner = job_process(config)
        queue = open_queue(config.jobs.queue, folder, database.identity())
        audit = AuditLog(folder / AUDIT_FILE)
        studies = Studies(database, queue, config, steady_clock(), audit, name)
        worker = Worker(studies, Spool(folder / SPOOL_FOLDER, 0), config, runner, audit)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        audit("worker_started", worker=name, device=config.model.device)
        say(f"worker {name} takes jobs")
        end = threading.Thread(target=_stop_with, args=(stopping, runner), daemon=True)
        end.start()
        while not stopping.is_set():
            try:
                worker.turn(stopping)
            except Exception as error:  # a full disk, for example; it may pass
                audit("thread_failed", thread=name, error=type(error).__name__)
                stopping.wait(_AFTER_FAILURE_S)
        end.join()
        with contextlib.suppress(OSError):
            audit("worker_stopped", worker=name)
        say("stopping")


def _stop_with(stopping: threading.Event, runner: Runner) -> None:
    """End the job that runs when the worker is to end."""
    stopping.wait()
    runner.stop()
