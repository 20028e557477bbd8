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
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from oncofm.errors import BatchError
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.reader import ItemEnd, ItemFailed, Message, serve
from oncofm.workflow.settings import Settings

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
        self._items = iter(items)
        self._settings = settings
        self._keep_volumes = keep_volumes
        self._time_limit_s = time_limit_s
        # Not forked: a copy of a process in which threads compute may never wake up.
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._stopped = threading.Event()
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
                process.end()
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
        try:
            ours.recv()  # it says when it is ready: to import everything takes no item's time
        except (EOFError, OSError) as error:
            raise BatchError(
                f"A reader process ended with code {started.end()} before it could begin; look at "
                "what it printed."
            ) from error
        return started

    def _read(self, item: Item, process: _Process) -> _Process | None:
        """Have an item read; returns the process if it can go on."""
        left_s = self._time_limit_s
        try:
            process.connection.send(item)
            while not self._stopped.is_set():
                started = time.monotonic()
                if process.connection.poll(min(_POLL_S, left_s)):
                    message = process.connection.recv()
                    left_s -= time.monotonic() - started
                    self._put(message)
                    if isinstance(message, ItemEnd | ItemFailed):
                        return process
                    continue
                left_s -= time.monotonic() - started
                if left_s <= 0:
                    process.end()
                    self._put(self._too_long(item))
                    return None
        except (EOFError, OSError):
            self._put(_crashed(item, process.end()))
            return None
        return process

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
