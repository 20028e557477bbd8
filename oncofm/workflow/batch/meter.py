"""How long a process works on a batch, on what, and what all of its attempts add up to."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from oncofm.errors import BatchError
from oncofm.results.manifest import Attempt, Throughput, utc_now
from oncofm.workflow.batch.ledger import Ledger
from oncofm.workflow.batch.usage import ReaderUsage
from oncofm.workflow.describe import rate
from oncofm.workflow.timing import peak_memory_mib

ATTEMPTS_FACT = "attempts"
READER, WORKER = "reader", "worker"
"""Who reads: a process of this machine, or of a cluster, which encodes, too."""
_ATTEMPTS = TypeAdapter(list[Attempt])
_SLOWEST = 10

Value = TypeVar("Value")


class Meter:
    """Measures one attempt.

    Parameters
    ----------
    n_workers : int
        Processes that read, or workers of a cluster.
    usage : ReaderUsage
        What they say about reading.
    kind : str
        What they are: ``reader`` or ``worker``.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self,
        n_workers: int,
        usage: ReaderUsage,
        kind: str = READER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._n_workers = n_workers
        self._usage = usage
        self._kind = kind
        self._clock = clock
        self._started, self._started_at = clock(), utc_now()
        self._waiting_s = self._writing_s = 0.0
        self._n_cases = self._n_lesions = 0

    def waited(self, values: Iterable[Value]) -> Iterator[Value]:
        """Pass values on, and count the time until each of them comes as waiting."""
        iterator = iter(values)
        while True:
            started = self._clock()
            try:
                value = next(iterator)
            except StopIteration:
                return
            finally:
                self._waiting_s += self._clock() - started
            yield value

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count the time of a block as writing."""
        started = self._clock()
        try:
            yield
        finally:
            self._writing_s += self._clock() - started

    def count(self, n_cases: int, n_lesions: int) -> None:
        """Count what is about to be committed."""
        self._n_cases += n_cases
        self._n_lesions += n_lesions

    def attempt(self) -> Attempt:
        """Say what was done so far."""
        memory = {"main": round(peak_memory_mib(), 1)}
        usage = self._usage.snapshot()
        if usage.peak_memory_mib is not None:
            memory[self._kind] = round(usage.peak_memory_mib, 1)
        return Attempt(
            started_at=self._started_at,
            ended_at=utc_now(),
            n_cases=self._n_cases,
            n_lesions=self._n_lesions,
            n_workers=self._n_workers,
            seconds=round(self._clock() - self._started, 3),
            waiting_s=round(self._waiting_s, 3),
            writing_s=round(self._writing_s, 3),
            reading_s=round(usage.reading_s, 3),
            held_up_s=round(usage.held_up_s, 3),
            bytes_read=usage.bytes_read,
            peak_memory_mib=memory,
            slowest=[(item, round(seconds, 3)) for item, seconds in usage.slowest],
        )


def attempts_of(ledger: Ledger) -> list[Attempt]:
    """Read what processes have done of a batch; those that finished nothing are not in it.

    Raises
    ------
    BatchError
        If the ledger holds something else.
    """
    try:
        return _ATTEMPTS.validate_json(ledger.fact(ATTEMPTS_FACT) or "[]")
    except ValidationError as error:
        raise BatchError(
            "The ledger says nothing sensible about earlier attempts; restore it from a copy, or "
            "choose another output folder."
        ) from error


def attempts_fact(attempts: Sequence[Attempt]) -> dict[str, str]:
    """Give the fact that a ledger is to hold."""
    return {ATTEMPTS_FACT: _ATTEMPTS.dump_json(list(attempts)).decode()}


def sum_up(attempts: Sequence[Attempt]) -> Throughput | None:
    """Add attempts up; None if there is none."""
    if not attempts:
        return None
    seconds = sum(each.seconds for each in attempts)
    waiting_s = sum(each.waiting_s for each in attempts)
    writing_s = sum(each.writing_s for each in attempts)
    encoding_s = max(0.0, seconds - waiting_s - writing_s)
    n_cases = sum(each.n_cases for each in attempts)
    n_lesions = sum(each.n_lesions for each in attempts)
    reading_s = _total([each.reading_s for each in attempts])
    kinds = {kind for each in attempts for kind in each.peak_memory_mib}
    # Workers of a cluster used to say nothing.
    waited_for = "cluster" if reading_s is None or WORKER in kinds else "readers"
    spent = {waited_for: waiting_s, "encoder": encoding_s, "writing": writing_s}
    bytes_read = _total([each.bytes_read for each in attempts])
    return Throughput(
        n_cases=n_cases,
        n_lesions=n_lesions,
        seconds=round(seconds, 3),
        cases_per_s=rate(n_cases, seconds),
        lesions_per_s=rate(n_lesions, seconds),
        started_at=min(each.started_at for each in attempts),
        ended_at=max(each.ended_at for each in attempts),
        limited_by=max(spent, key=lambda name: spent[name]),
        waiting_s=round(waiting_s, 3),
        encoding_s=round(encoding_s, 3),
        writing_s=round(writing_s, 3),
        reading_s=reading_s,
        held_up_s=_total([each.held_up_s for each in attempts]),
        bytes_read=None if bytes_read is None else round(bytes_read),
        n_workers=attempts[-1].n_workers,
        peak_memory_mib={
            kind: max(each.peak_memory_mib.get(kind, 0.0) for each in attempts)
            for kind in sorted(kinds)
        },
        attempts=list(attempts),
    )


def slowest_items(attempts: Sequence[Attempt]) -> list[tuple[str, float]]:
    """Give the items that took longest to read, each as in its last attempt."""
    seconds = dict(pair for each in attempts for pair in each.slowest)
    return sorted(seconds.items(), key=lambda pair: (-pair[1], pair[0]))[:_SLOWEST]


def _total(values: Sequence[float | None]) -> float | None:
    """Sum what is known; unknown if any of it is."""
    known = [value for value in values if value is not None]
    return round(sum(known), 3) if len(known) == len(values) else None
