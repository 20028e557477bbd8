"""Reader processes, watched: items go out, their messages come back, bounded in memory.

Each process has a thread that hands it items, waits for what it says, and stops it where it takes
too long. The messages of all of them meet in a queue that holds a few; where nobody takes them out,
the threads wait, and so do the processes.
"""

import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from oncofm.errors import BatchError
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.reader import ItemEnd, ItemFailed, Message, serve
from oncofm.workflow.batch.usage import ItemUsage, ReaderUsage, bytes_read_by
from oncofm.workflow.settings import Settings
from oncofm.workflow.timing import peak_memory_of

_POLL_S = 0.2
"""How long a thread waits before it looks whether it should stop."""


@dataclass(frozen=True)
class _Process:
    process: Any
    connection: Connection

    def end(self) -> int | None:
        """Stop it now and say with what code it ended."""
        self.connection.close()
        self.process.kill()  # it keeps nothing that could be lost
        self.process.join()
        return self.process.exitcode


class _ItemClock:
    """How long a process works on an item, and no longer than it may."""

    def __init__(self, limit_s: float, process: Any) -> None:
        self._limit_s = self._left_s = limit_s
        self._is_killed = False
        self._held_up_s = 0.0
        self._process = process
        self._bytes_before = bytes_read_by(process.pid)

    @property
    def is_over(self) -> bool:
        """Whether it has run down; the process is killed then, or is to be."""
        return self._is_killed or self._left_s <= 0

    @contextmanager
    def running(self) -> Iterator[float]:
        """Run down, and kill the process at the end: it may have stopped in mid-message."""
        started = time.monotonic()
        alarm = threading.Timer(self._left_s, self._kill)
        alarm.start()
        try:
            yield min(_POLL_S, self._left_s)
        finally:
            alarm.cancel()
            alarm.join()
            self._left_s -= time.monotonic() - started

    def _kill(self) -> None:
        self._is_killed = True
        self._process.kill()

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Stand still while nobody takes what was read."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._held_up_s += time.monotonic() - started

    def report(self, item: Item, usage: ReaderUsage) -> None:
        """Say what the item took."""
        before, now = self._bytes_before, bytes_read_by(self._process.pid)
        n_bytes = None if before is None or now is None else now - before
        memory_mib = peak_memory_of(self._process.pid)
        reading_s = self._limit_s - self._left_s
        usage.add([ItemUsage(item.item_id, reading_s, self._held_up_s, memory_mib, n_bytes)])


class Readers:
    """Some reader processes.

    Parameters
    ----------
    items : iterable of Item
        Taken one at a time, as processes become free.
    settings : Settings
        For `oncofm.workflow.batch.reader.read_item`, as `keep_volumes`.
    keep_volumes : bool
        Whether cases come with their volumes.
    n_processes : int
        How many.
    time_limit_s : float
        After as many seconds of work on an item its process is stopped, and the item has failed.

    Attributes
    ----------
    usage : ReaderUsage
        What they have used so far.
    """

    def __init__(
        self,
        items: Iterable[Item],
        settings: Settings,
        *,
        keep_volumes: bool = False,
        n_processes: int = 2,
        time_limit_s: float = 600.0,
    ) -> None:
        self.usage = ReaderUsage()
        self._items = iter(items)
        self._settings = settings
        self._keep_volumes = keep_volumes
        self._time_limit_s = time_limit_s
        # Not forked: a copy of a process in which threads compute may never wake up.
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._processes: set[_Process] = set()
        self._messages: queue.Queue[Message | Exception | None] = queue.Queue(maxsize=n_processes)
        self._threads = [
            threading.Thread(target=self._look_after_one, name=f"reader-{number}", daemon=True)
            for number in range(n_processes)
        ]

    def __enter__(self) -> "Readers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for process in list(self._processes):  # one may have stopped in the middle of a message
            process.process.kill()
        while any(thread.is_alive() for thread in self._threads):
            try:
                self._messages.get(timeout=_POLL_S)
            except queue.Empty:
                continue

    def messages(self) -> Iterator[Message]:
        """Yield what the processes say, until every item is read or has failed.

        Raises
        ------
        BatchError
            If a process cannot start.
        """
        n_working = len(self._threads)
        while n_working:
            message = self._messages.get()
            if message is None:
                n_working -= 1
            elif isinstance(message, Exception):
                raise message
            else:
                yield message

    # --- what each thread does ------------------------------------------------------------

    def _look_after_one(self) -> None:
        # Processes inherit what is blocked: a signal to all of them is for the parent to act on.
        # The tracker comes first, because to start it unblocks these two.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        process = None
        try:
            while (item := self._next_item()) is not None and not self._stopped.is_set():
                process = process or self._start()
                process = self._read(item, process)
        except Exception as error:  # whoever takes the messages raises it
            self._put(error)
        finally:
            if process is not None:
                self._end(process)
            self._put(None)

    def _next_item(self) -> Item | None:
        with self._lock:
            return next(self._items, None)

    def _start(self) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._settings, self._keep_volumes), daemon=True
        )
        process.start()
        theirs.close()
        started = _Process(process, ours)
        self._processes.add(started)
        try:
            ours.recv()  # it says when it is ready: to import everything takes no item's time
        except (EOFError, OSError) as error:
            code = self._end(started)
            raise BatchError(
                f"A reader process ended with code {code} before it could begin; look at what it "
                "printed."
            ) from error
        return started

    def _end(self, process: _Process) -> int | None:
        self._processes.discard(process)
        return process.end()

    def _read(self, item: Item, process: _Process) -> _Process | None:
        """Have an item read; returns the process if it can go on."""
        clock = _ItemClock(self._time_limit_s, process.process)
        try:
            with clock.running():
                process.connection.send(item)
            while not (clock.is_over or self._stopped.is_set()):
                with clock.running() as patience_s:
                    is_there = process.connection.poll(patience_s)
                    message = process.connection.recv() if is_there else None
                if message is None:
                    continue
                with clock.held_up():
                    self._put(message)
                if isinstance(message, ItemEnd | ItemFailed):
                    if not clock.is_over:
                        return process
                    self._end(process)  # what it has said was whole, but it is killed
                    return None
        except (EOFError, OSError):
            if not clock.is_over:
                self._put(_crashed(item, self._end(process)))
                return None
        finally:
            clock.report(item, self.usage)
        if not clock.is_over:
            return process
        self._end(process)
        self._put(self._too_long(item))
        return None

    def _put(self, message: Message | Exception | None) -> None:
        """Wait for a place in the queue, unless everything is to stop."""
        while not self._stopped.is_set():
            try:
                self._messages.put(message, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def _too_long(self, item: Item) -> ItemFailed:
        return ItemFailed(
            item.position,
            "time_limit",
            f"Item {item.item_id} took longer than {self._time_limit_s:g} s to read; look at its "
            "files, or allow more with --time-limit.",
        )


def _crashed(item: Item, code: int | None) -> ItemFailed:
    return ItemFailed(
        item.position,
        "reader_crashed",
        f"The process that read item {item.item_id} ended with code {code}; one of its files may "
        "crash the decoder.",
    )
