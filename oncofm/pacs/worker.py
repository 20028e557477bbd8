"""The job process, watched: one job at a time, with limits on time and memory."""

import multiprocessing
import os
import shutil
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from oncofm.pacs.audit import Audit
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.jobs import JobEnd, Order, serve
from oncofm.pacs.papers import keep_papers
from oncofm.pacs.spool import Spool, sync_folder
from oncofm.pacs.studies import ReportFile, Studies, Work
from oncofm.workflow.settings import Settings

REPORTS_FOLDER, WORK_FOLDER = "reports", "work"
"""Below the node's folder: what is sent, by study and revision, and what jobs write."""

_POLL_S = 0.05
_STARTING_S = 600.0
"""Loading a model from a slow disk may take minutes."""


class Runner(Protocol):
    """Does jobs."""

    @property
    def is_ready(self) -> bool:
        """Whether it could start at once."""
        ...

    def start(self) -> JobEnd | None:
        """Get ready; says why it cannot."""
        ...

    def run(self, order: Order) -> JobEnd:
        """Do a job."""
        ...

    def stop(self) -> None:
        """End whatever is being done."""
        ...


class JobProcess:
    """A process that holds the model; it is started anew when a job had to be stopped.

    Parameters
    ----------
    settings : Settings
        Which model.
    time_limit_s : float
        A longer job is stopped.
    memory_limit_bytes : float or None
        A process that is larger is stopped.
    """

    def __init__(
        self, settings: Settings, time_limit_s: float, memory_limit_bytes: float | None
    ) -> None:
        self._settings = settings
        self._time_limit_s = time_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._process: Any = None
        self._connection: Connection | None = None
        self._stopping = False

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._connection is not None

    def start(self) -> JobEnd | None:
        """Load the model; says why it cannot."""
        if self._connection is not None:
            return None
        # Not forked: a copy of a process in which threads work may never wake up.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._settings), daemon=True)
        process.start()
        self._process = process  # `stop`, in another thread, may kill it from now on
        theirs.close()
        end = self._wait(ours, _STARTING_S)
        if end is None:
            self._connection = ours
            return None
        ours.close()
        self._kill()
        return end

    def run(self, order: Order) -> JobEnd:
        """Do a job, or stop it."""
        end = self.start()
        if end is not None:
            return end
        connection = self._connection
        assert connection is not None
        try:
            connection.send(order)
            end = self._wait(connection, self._time_limit_s)
        except OSError:
            end = self._crashed()
        if end is None or end.reason in _STOPPED:
            connection.close()
            self._connection = None
            self._kill()
        return end or self._crashed()

    def stop(self) -> None:
        """End the process, whatever it does; it keeps nothing that could be lost."""
        self._stopping = True
        self._kill()

    def _wait(self, connection: Connection, limit_s: float) -> JobEnd | None:
        started = time.monotonic()
        while not self._stopping:
            try:
                if connection.poll(_POLL_S):
                    return connection.recv()
            except (EOFError, OSError):
                return self._crashed()
            if time.monotonic() - started > limit_s:
                message = f"The job took longer than {limit_s:g} s; allow more, or drop the study."
                return JobEnd(reason="time_limit", message=message)
            if self._memory_limit_bytes and self._memory_bytes() > self._memory_limit_bytes:
                limit_mb = self._memory_limit_bytes / 1e6
                message = f"The job took more than {limit_mb:g} MB; allow more, or drop the study."
                return JobEnd(reason="memory_limit", message=message)
        return self._crashed()

    def _crashed(self) -> JobEnd:
        return JobEnd(
            reason="job_crashed",
            message="The process of the job ended; one of the files may crash a decoder.",
        )

    def _memory_bytes(self) -> int:
        """Resident memory, as Linux tells it; 0 where it does not."""
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()


_STOPPED = ("time_limit", "memory_limit", "job_crashed")


def job_process(config: PacsConfig) -> JobProcess:
    """Make the job process that a configuration asks for; it is started later."""
    limit_mb = config.jobs.memory_limit_mb
    return JobProcess(
        config.settings(config.rules[0]),
        config.jobs.time_limit_s,
        limit_mb * 1e6 if limit_mb else None,
    )


class Worker:
    """Takes jobs from the queue, one after another.

    Parameters
    ----------
    studies : Studies
        Whose jobs.
    spool : Spool
        Where their files are.
    config : PacsConfig
        Rules.
    runner : Runner
        Does them.
    audit : Audit
        Told why there is no model.
    """

    def __init__(
        self,
        studies: Studies,
        spool: Spool,
        config: PacsConfig,
        runner: Runner,
        audit: Audit,
    ) -> None:
        self._studies = studies
        self._spool = spool
        self._config = config
        self._folder = config.node.folder
        self._runner = runner
        self._audit = audit
        self.n_jobs = 0
        self.seconds = 0.0

    def turn(self, stopping: threading.Event) -> None:
        """Do the next job, or wait a little: for one, or for the model."""
        problem = self._runner.start()
        if problem is not None and not stopping.is_set():
            self._audit("model_failed", reason=problem.reason, message=problem.message)
            stopping.wait(self._config.jobs.backoff_s)
        elif not self._work(stopping):
            stopping.wait(_POLL_S)

    def _work(self, stopping: threading.Event) -> bool:
        """Do the next job, if there is one; says whether there was."""
        work = self._studies.take_job()
        if work is None:
            return False
        started = time.monotonic()
        output = self._folder / WORK_FOLDER / work.key
        shutil.rmtree(output, ignore_errors=True)
        end = self._runner.run(self._order(work, output))
        if stopping.is_set():
            self._studies.put_back(work)
            return True
        keep_papers(output, self._folder, work.key, work.revision)
        if end.reports:
            self._studies.finish_job(work, self._keep(work, end.reports))
        else:
            self._studies.fail_job(work, end.reason, end.message, is_final=end.is_final)
        shutil.rmtree(output, ignore_errors=True)
        self.n_jobs += 1
        self.seconds += time.monotonic() - started
        return True

    def _order(self, work: Work, output: Path) -> Order:
        earlier = self._folder / REPORTS_FOLDER / work.key
        has_earlier = earlier.is_dir() and any(earlier.rglob("*.dcm"))
        return Order(
            work.study_uid,
            tuple(self._spool.path(file) for file in sorted(work.files.values())),
            output,
            self._config.settings(work.rule, earlier if has_earlier else None),
        )

    def _keep(self, work: Work, reports: tuple[ReportFile, ...]) -> list[ReportFile]:
        """Move what is to be sent to where it stays until a revision has named it."""
        target = self._folder / REPORTS_FOLDER / work.key / str(work.revision)
        kept = []
        for report in reports:
            place = target / report.path.parent.name / report.path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            report.path.replace(place)
            kept.append(replace(report, path=place))
        for folder in {report.path.parent for report in kept}:
            for one in (folder, target, target.parent, target.parent.parent):
                sync_folder(one)
        return kept
