"""How a running job shows itself: a bar on a terminal, JSON lines on request, else nothing."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Report = Callable[[dict[str, Any]], None]
"""Takes one event: ``{"event": "start" | "case" | "end", ...}``."""


@contextlib.contextmanager
def show_progress(json_lines: bool) -> Iterator[Report]:
    """Yield the function that a job reports its events to.

    Parameters
    ----------
    json_lines : bool
        One JSON object per line on standard output instead of a bar.
    """
    if json_lines:
        # A stream of its own: what else prints must not get between the lines.
        stream = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            yield lambda event: print(json.dumps(event), file=stream, flush=True)
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield lambda event: None


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("reading headers", total=None)

        def report(event: dict[str, Any]) -> None:
            if event["event"] == "start":
                progress.update(task, description="lesions", total=event["n_lesions"])
            elif event["event"] == "case":
                progress.advance(task, event["n_lesions"])

        yield report


_LINE_EVERY_S = 30.0


@contextlib.contextmanager
def show_batch_progress(json_lines: bool, metrics: Path | None) -> Iterator[Report]:
    """Yield the function that a batch reports its events to.

    Parameters
    ----------
    json_lines : bool
        One JSON object per event on standard output; else one line on standard error, which
        stays in place on a terminal and comes every half minute elsewhere.
    metrics : pathlib.Path or None
        File for Prometheus.
    """
    from oncofm.errors import OutputNotWritableError
    from oncofm.workflow.batch.progress import BatchProgress, MetricsFile

    progress = BatchProgress()
    file = None if metrics is None else MetricsFile(metrics, progress)
    with show_progress(True) if json_lines else _line(progress) as show:

        def report(event: dict[str, Any]) -> None:
            progress.take(event)
            try:
                show(event)
            except BrokenPipeError as error:
                raise OutputNotWritableError(
                    "Nobody reads the progress of this batch any more; go on with --resume."
                ) from error
            if file is not None:
                file.refresh(at_once=event["event"] != "case")

        yield report


@contextlib.contextmanager
def _line(progress: Any) -> Iterator[Report]:
    """Show a line for a person, rarely enough for a log."""
    on_terminal = sys.stderr.isatty()
    every_s = 0.5 if on_terminal else _LINE_EVERY_S
    shown_at = time.monotonic()

    def report(event: dict[str, Any]) -> None:
        nonlocal shown_at
        if event["event"] != "end" and time.monotonic() - shown_at < every_s:
            return
        shown_at = time.monotonic()
        start, end = ("\r\x1b[2K", "") if on_terminal else ("", "\n")
        print(f"{start}{progress.line()}", end=end, file=sys.stderr, flush=True)

    yield report
    if on_terminal:
        print(file=sys.stderr)
