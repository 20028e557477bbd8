"""The node: everything put together, and the threads that keep it going."""

import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydicom.filereader import read_file_meta_info

from oncofm.encoders.weights import find_weights
from oncofm.logs import silence_pydicom
from oncofm.pacs.audit import AUDIT_FILE, Audit, AuditLog
from oncofm.pacs.care import Housekeeping
from oncofm.pacs.commitment import Commitments
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.database import Database, open_database
from oncofm.pacs.errors import ObjectRefusedError
from oncofm.pacs.fetch import Fetcher
from oncofm.pacs.lock import sole_node
from oncofm.pacs.monitor import Monitor, serve_status
from oncofm.pacs.objects import read_facts
from oncofm.pacs.poll import FETCH_FOLDER, Poller
from oncofm.pacs.receive import Received, Receiver
from oncofm.pacs.send import Sender
from oncofm.pacs.sources import Sources
from oncofm.pacs.spool import Spool
from oncofm.pacs.studies import Clock, Studies
from oncofm.pacs.work_queue import open_queue
from oncofm.pacs.worker import Runner, Worker, job_process
from oncofm.pacs.workers import be_worker
from oncofm.workflow.job import load_heads
from oncofm.workflow.settings import MODEL

SPOOL_FOLDER = "spool"
_POLL_S = 0.05
_TIDY_S = 1.0
_AT_ONCE = 500
"""Objects for each transaction."""


def steady_clock() -> Clock:
    """Make a clock that shows the time of day now, and is not set by anybody afterwards."""
    offset_s = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset_s


def check_model(config: PacsConfig) -> None:
    """Make sure that jobs can start.

    Raises
    ------
    SetupError
        If there are no weights, or a head cannot be used.
    """
    if config.model.random_seed is None:
        find_weights(MODEL, config.model.weights)
    for rule in config.rules:
        load_heads(config.settings(rule))


class Node:
    """A node that runs; get it from `open_node`."""

    def __init__(
        self,
        config: PacsConfig,
        database: Database,
        runner: Runner,
        clock: Clock,
        audit: Audit,
        worker: str,
    ) -> None:
        section, folder = config.node, config.node.folder
        self.config = config
        self.clock = clock
        self.database = database
        self.spool = Spool(folder / SPOOL_FOLDER, int(section.min_free_mb * 1e6))
        self.queue = open_queue(config.jobs.queue, folder, database.identity())
        self.studies = Studies(database, self.queue, config, clock, audit, worker)
        self.runner = runner
        self.worker = Worker(self.studies, self.spool, config, runner, audit)
        self.sender = Sender(database, self.studies, config, clock, audit)
        self.commitments = Commitments(database, self.studies, config, clock, audit)
        self.housekeeping = Housekeeping(database, self.spool, folder, config.retention, clock)
        self._arrived: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self.can_note = True
        take_report = self.commitments.take if self.commitments.destinations else None
        self.receiver = Receiver(
            section, self.spool, self._arrived.put, lambda: self.can_note, audit, take_report
        )
        self._audit = audit
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.sources = Sources(database)
        self.pollers = {name: self._poller(name) for name in config.sources}

    def recover(self) -> None:
        """Go on where the last process ended, however it did."""
        known = {file for (file,) in self.database.rows("SELECT file FROM objects WHERE present")}
        known |= {file for (file,) in self.database.rows("SELECT file FROM garbage")}
        found = [self._read(name) for name in self.spool.names() if name not in known]
        self.studies.record([one for one in found if one is not None])
        self.studies.recover()
        self.commitments.recover()
        self.sources.reset_times(self.clock())
        shutil.rmtree(self.config.node.folder / FETCH_FOLDER, ignore_errors=True)

    def start(self) -> None:
        """Start the threads."""
        jobs: dict[str, Callable[[], object]] = {
            "index": self._index,
            "time": self._tick,
            "tidy": self._tidy,
            "jobs": lambda: self.worker.turn(self._stopping),
        }
        for name in self.config.destinations:
            jobs[f"send-{name}"] = lambda name=name: self._send(name)
        for name in self.commitments.destinations:
            jobs[f"commit-{name}"] = lambda name=name: self._ask(name)
        for name in self.pollers:
            jobs[f"fetch-{name}"] = lambda name=name: self._fetch(name)
        for name, job in jobs.items():
            thread = threading.Thread(target=self._repeat, args=(job,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the threads; whatever they were at is gone on with at the next start."""
        self._stopping.set()
        self.runner.stop()
        for thread in self._threads:
            thread.join(timeout=self.config.node.idle_s)

    @property
    def is_alive(self) -> bool:
        """Whether every thread runs."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    @property
    def is_ready(self) -> bool:
        """Whether it takes objects and can run jobs."""
        can_take = self.can_note and not self.spool.is_full()
        return self.is_alive and self.runner.is_ready and can_take

    # --- what each thread does ------------------------------------------------------------

    def _repeat(self, job: Callable[[], object]) -> None:
        while not self._stopping.is_set():
            try:
                job()
            except Exception as error:  # a full disk, for example; it may pass
                if not self._stopping.is_set():
                    thread = threading.current_thread().name
                    self._audit("thread_failed", thread=thread, error=type(error).__name__)
                    self._stopping.wait(1.0)

    def _tick(self) -> None:
        self.studies.tick()
        self._stopping.wait(_POLL_S)

    def _tidy(self) -> None:
        self.housekeeping.tidy()
        self._stopping.wait(_TIDY_S)

    def _index(self) -> None:
        """Note what was received; what cannot be noted now is tried again."""
        try:
            batch = [self._arrived.get(timeout=_POLL_S)]
        except queue.Empty:
            return
        while len(batch) < _AT_ONCE and not self._arrived.empty():
            batch.append(self._arrived.get())
        try:
            self.studies.record(batch)
        except Exception:
            self.can_note = False  # nothing more is taken meanwhile
            for one in batch:
                self._arrived.put(one)
            raise
        self.can_note = True
        for one in batch:
            self.spool.settle(one.file)

    def _send(self, name: str) -> None:
        if not self.sender.deliver(name, self._stopping.is_set):
            self._stopping.wait(_POLL_S)

    def _ask(self, name: str) -> None:
        if not self.commitments.ask(name, self._stopping.is_set):
            self._stopping.wait(_POLL_S)

    def _fetch(self, name: str) -> None:
        if not self.pollers[name].turn():
            self._stopping.wait(_POLL_S)

    def _poller(self, name: str) -> Poller:
        node, source = self.config.node, self.config.sources[name]
        fetcher = Fetcher(
            name,
            source,
            called=source.ae_title or node.ae_titles[0],
            folder=node.folder / FETCH_FOLDER / name,
            spool=self.spool,
            database=self.database,
            take=self._arrived.put,
            can_note=lambda: self.can_note,
            is_stopped=self._stopping.is_set,
        )
        return Poller(
            fetcher, self.sources, self.config, self.clock, self._audit, self._stopping.wait
        )

    def _read(self, name: str) -> Received | None:
        """Read a file that was acknowledged but not noted any more."""
        path = self.spool.path(name)
        try:
            data = path.read_bytes()
            meta = read_file_meta_info(path)
            calling = str(meta.get("SourceApplicationEntityTitle", ""))
            called = str(meta.get("ReceivingApplicationEntityTitle", ""))
            return Received(read_facts(data), name, len(data), calling, called)
        except (ObjectRefusedError, OSError) as error:
            self._audit("spool_unreadable", file=name, error=type(error).__name__)
            return None


@contextmanager
def open_node(
    config: PacsConfig,
    *,
    clock: Clock | None = None,
    runner: Runner | None = None,
    audit: Audit | None = None,
) -> Iterator[Node]:
    """Run a node as long as it is entered.

    Parameters
    ----------
    config : PacsConfig
        Its configuration.
    clock : callable or None
        The time that timers go by; else that of the machine at the start, and steady from then.
    runner : Runner or None
        Does the jobs; else a process with the model that the configuration names.
    audit : callable or None
        Takes events; else the audit log in the node's folder.

    Raises
    ------
    SetupError
        If it cannot start: another node serves the folder, the port is taken, weights are missing.
    """
    silence_pydicom()
    folder = config.node.folder
    if runner is None:
        check_model(config)
        runner = job_process(config)
    with ExitStack() as stack:
        stack.enter_context(sole_node(folder))
        audit = audit or AuditLog(folder / AUDIT_FILE)
        database = stack.enter_context(open_database(folder))
        worker = stack.enter_context(be_worker(folder))
        node = Node(config, database, runner, clock or steady_clock(), audit, worker)
        node.recover()
        node.start()
        stack.callback(node.stop)
        stack.enter_context(node.receiver)
        if config.node.status_port is not None:
            place = (config.node.status_address, config.node.status_port)
            stack.enter_context(serve_status(*place, Monitor(node)))
        audit("started", port=node.receiver.port, folder=Path(folder).name)
        yield node
        audit("stopped")


def serve(config: PacsConfig, say: Callable[[str], None]) -> None:
    """Run a node until the process gets SIGTERM or SIGINT."""
    threading.excepthook = lambda args: None  # a library's traceback may quote a header
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with open_node(config) as node:
        say(f"{', '.join(config.node.ae_titles)} listens on port {node.receiver.port}")
        stop.wait()
        say("stopping")
