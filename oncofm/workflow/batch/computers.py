"""What turns the items of a batch into outcomes: this process with its readers, or a cluster."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import takewhile
from typing import Protocol

from oncofm.encoders.encoder import Encoder, EncoderFacts, FixedBatches
from oncofm.workflow.batch.compute import ItemOutcome, compute_items
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.meter import Meter
from oncofm.workflow.batch.options import BatchOptions
from oncofm.workflow.batch.readers import Readers
from oncofm.workflow.job import start_loading
from oncofm.workflow.settings import Settings
from oncofm.workflow.timing import Timing


class Computer(Protocol):
    """What turns items into outcomes."""

    def describe_encoder(self) -> EncoderFacts:
        """Say what computes."""
        ...

    def begin(
        self, items: Sequence[Item], *, keep_volumes: bool, is_stopped: Callable[[], bool]
    ) -> tuple[Iterator[ItemOutcome], Meter]:
        """Compute items, each once, in no particular order; none is begun once stopped.

        The meter knows how long this process waited for others.
        """
        ...


@contextmanager
def open_computer(options: BatchOptions, settings: Settings, timing: Timing) -> Iterator[Computer]:
    """Give what computes; it begins to get ready at once.

    Parameters
    ----------
    options : BatchOptions
        Whether it is a cluster; else how many processes read, and how long they may take.
    settings : Settings
        Which encoder.
    timing : Timing
        Seconds per step; those of loading are added.

    Raises
    ------
    BatchError
        If the cluster does not answer.
    MissingExtraError
        If the program for clusters is not installed.
    """
    if options.cluster:
        from oncofm.workflow.batch.cluster import Cluster

        with Cluster(options.cluster, settings) as cluster:
            yield cluster
    else:
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as loader:
            yield _ThisProcess(settings, options, start_loading(loader, settings, timing))


class _ThisProcess:
    """Readers in processes of their own, the encoder in this one."""

    def __init__(
        self, settings: Settings, options: BatchOptions, load_encoder: Callable[[], Encoder]
    ) -> None:
        self._settings = settings
        self._options = options
        self._load_encoder = load_encoder

    def describe_encoder(self) -> EncoderFacts:
        return EncoderFacts.of(self._load_encoder())

    def begin(
        self, items: Sequence[Item], *, keep_volumes: bool, is_stopped: Callable[[], bool]
    ) -> tuple[Iterator[ItemOutcome], Meter]:
        n_readers = max(1, min(self._options.n_readers, len(items)))
        readers = Readers(
            takewhile(lambda _: not is_stopped(), items),
            self._settings,
            keep_volumes=keep_volumes,
            n_processes=n_readers,
            time_limit_s=self._options.time_limit_s,
        )
        meter = Meter(n_readers, readers.usage)
        return self._outcomes(readers, meter), meter

    def _outcomes(self, readers: Readers, meter: Meter) -> Iterator[ItemOutcome]:
        # Which lesions share a batch is chance, and must not be seen in the features.
        encoder = FixedBatches(self._load_encoder())
        with readers:
            yield from compute_items(meter.waited(readers.messages()), lambda: encoder)
