"""How a running job shows itself: a bar on a terminal, JSON lines on request, else nothing."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
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
