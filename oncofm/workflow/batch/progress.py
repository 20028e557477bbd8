"""How fast a batch is, for people and for monitoring."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncofm.errors import OutputNotWritableError
from oncofm.results.files import write_text

log = logging.getLogger(__name__)

_METRICS_EVERY_S = 5.0
_METRICS = (
    ("oncofm_batch_cases", "gauge", "Cases of the batch."),
    ("oncofm_batch_cases_before", "gauge", "Cases that an earlier process had finished."),
    ("oncofm_batch_cases_finished_total", "counter", "Cases finished by this process, by state."),
    ("oncofm_batch_not_done_total", "counter", "Cases that are not done, by reason."),
    ("oncofm_batch_lesions_done_total", "counter", "Lesions that got features."),
    ("oncofm_batch_seconds", "gauge", "Seconds since the start of this process's work."),
    ("oncofm_batch_finished", "gauge", "1 when the tables are written."),
)


@dataclass
class BatchProgress:
    """What the events of a batch add up to.

    Attributes
    ----------
    n_cases, n_before : int
        Of the plan, and those finished by an earlier process.
    states, reasons : collections.Counter
        Of the cases finished by this one.
    n_lesions_done : int
        Their lesions that have features.
    is_finished : bool
        Whether the tables are written.
    """

    clock: Callable[[], float] = time.monotonic
    n_cases: int = 0
    n_before: int = 0
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    n_lesions_done: int = 0
    is_finished: bool = False
    _started: float = 0.0

    def take(self, event: dict[str, Any]) -> None:
        """Take an event of `oncofm.workflow.batch.run.run_batch`."""
        if event["event"] == "start":
            self.n_cases, self.n_before = event["n_cases"], event["n_before"]
            self._started = self.clock()
        elif event["event"] == "case":
            self.states[event["state"]] += 1
            self.n_lesions_done += event["n_done"]
            if event["reason"]:
                self.reasons[event["reason"]] += 1
        else:
            self.is_finished = True

    @property
    def seconds(self) -> float:
        """Since the start of the work."""
        return self.clock() - self._started if self.n_cases else 0.0

    def line(self) -> str:
        """Say in one line how far it is."""
        finished, seconds = self.states.total(), self.seconds
        left = self.n_cases - self.n_before - finished
        parts = [f"{self.n_before + finished}/{self.n_cases} cases"]
        if finished and seconds > 0:
            parts.append(f"{finished / seconds:.2f} cases/s")
            parts.append(f"{self.n_lesions_done / seconds:.2f} lesions/s")
            parts.append(f"{_duration(left * seconds / finished)} left")
        parts += [f"{count} {reason}" for reason, count in self.reasons.most_common(4)]
        return ", ".join(parts)

    def metrics(self) -> str:
        """Everything in the text format of Prometheus."""
        samples = {
            "oncofm_batch_cases": [("", self.n_cases)],
            "oncofm_batch_cases_before": [("", self.n_before)],
            "oncofm_batch_cases_finished_total": _labelled("state", self.states),
            "oncofm_batch_not_done_total": _labelled("reason", self.reasons),
            "oncofm_batch_lesions_done_total": [("", self.n_lesions_done)],
            "oncofm_batch_seconds": [("", round(self.seconds, 3))],
            "oncofm_batch_finished": [("", int(self.is_finished))],
        }
        lines = []
        for name, kind, text in _METRICS:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{labels} {value}" for labels, value in samples[name]]
        return "\n".join(lines) + "\n"


class MetricsFile:
    """A file that a Prometheus node exporter collects, written anew every few seconds."""

    def __init__(self, path: Path, progress: BatchProgress) -> None:
        self._path = path
        self._progress = progress
        self._written_at = float("-inf")

    def refresh(self, at_once: bool) -> None:
        """Write it, if it is time.

        Raises
        ------
        OutputNotWritableError
            If it cannot be written the first time; later that is logged, and the batch goes on.
        """
        now = self._progress.clock()
        if not (at_once or now - self._written_at >= _METRICS_EVERY_S):
            return
        is_first = self._written_at == float("-inf")
        self._written_at = now
        try:
            write_text(self._path, self._progress.metrics())
        except OutputNotWritableError as error:
            if is_first:
                raise
            log.warning("%s", error)


def _labelled(name: str, counts: Counter[str]) -> list[tuple[str, int]]:
    # States and reasons are codes of ours: nothing in them needs escaping.
    return [(f'{{{name}="{value}"}}', count) for value, count in sorted(counts.items())]


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
