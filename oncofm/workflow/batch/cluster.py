"""The items of a batch on other machines: a dask.distributed cluster computes, this process writes.

A worker needs the package, the weights and the inputs at the paths that this machine knows them by;
it writes nothing. A worker that dies takes its pieces with it, and dask gives them to another.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from oncofm.encoders.encoder import EncoderFacts
from oncofm.errors import BatchError, MissingExtraError, OncofmError
from oncofm.workflow.batch.cluster_worker import PieceDone, compute_piece, describe_encoder
from oncofm.workflow.batch.compute import ItemOutcome
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.meter import WORKER, Meter
from oncofm.workflow.batch.reader import ItemFailed
from oncofm.workflow.batch.usage import ReaderUsage
from oncofm.workflow.settings import Settings

SCHEME = "dask://"
_ITEMS_PER_PIECE = 4
_PIECES_PER_WORKER = 4
"""How many pieces wait at a worker; bounds the memory of the scheduler and of this process."""
_PATIENCE_S = 60.0
"""How long to wait for the scheduler, and for a worker where there is none."""


class Cluster:
    """A connection to a dask scheduler.

    Parameters
    ----------
    address : str
        ``dask://host:port``.
    settings : Settings
        For the workers; weights are looked for on their machines.

    Raises
    ------
    BatchError
        If the scheduler, or a worker of it, does not answer.
    MissingExtraError
        If dask.distributed is not installed.
    """

    def __init__(self, address: str, settings: Settings) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingExtraError(
                "A cluster needs dask.distributed; install oncofm[cluster]."
            ) from error
        # Whoever waits for it is told in one sentence what it says in a page.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self._settings = settings
        self._place = address.removeprefix(SCHEME)
        with self._answering():
            at = f"tcp://{self._place}"
            self._client: Any = Client(at, timeout=_PATIENCE_S, set_as_default=False)
            self._client.wait_for_workers(1, timeout=_PATIENCE_S)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def describe_encoder(self) -> EncoderFacts:
        """Load the encoder on a worker and say what it is.

        Raises
        ------
        OncofmError
            If the worker cannot load it, for example without weights.
        BatchError
            If the worker fails otherwise, or nobody answers any more.
        """
        with self._answering():
            future = self._client.submit(describe_encoder, self._settings, pure=False)
            self._some_done([future])
            error = future.exception()
            if error is None:
                return future.result()
        raise self._failed(error)

    def begin(
        self, items: Sequence[Item], *, keep_volumes: bool, is_stopped: Callable[[], bool]
    ) -> tuple[Iterator[ItemOutcome], Meter]:
        """Compute items, each once, in no particular order; none is handed out once stopped."""
        usage = ReaderUsage()
        with self._answering():
            meter = Meter(max(1, self._n_workers()), usage, WORKER)
        return meter.waited(self._outcomes(items, keep_volumes, is_stopped, usage)), meter

    def _outcomes(
        self,
        items: Sequence[Item],
        keep_volumes: bool,
        is_stopped: Callable[[], bool],
        usage: ReaderUsage,
    ) -> Iterator[ItemOutcome]:
        starts = range(0, len(items), _ITEMS_PER_PIECE)
        pieces = (items[start : start + _ITEMS_PER_PIECE] for start in starts)
        given: dict[Any, Sequence[Item]] = {}

        def hand_out() -> None:
            most = max(1, self._n_workers()) * _PIECES_PER_WORKER
            while len(given) < most and not is_stopped() and (piece := next(pieces, None)):
                arguments = (piece, self._settings, keep_volumes)
                given[self._client.submit(compute_piece, *arguments, pure=False)] = piece

        with self._answering():
            hand_out()
        while given:
            with self._answering():
                done = [
                    self._result(future, given.pop(future)) for future in self._some_done(given)
                ]
                hand_out()
            for piece in done:
                usage.add(piece.usages)
                yield from piece.outcomes

    def _result(self, future: Any, piece: Sequence[Item]) -> PieceDone:
        """Get what a worker computed; workers that died over and over fail their items."""
        from distributed import KilledWorker

        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, KilledWorker):
            return PieceDone([_lost(item) for item in piece], [])
        raise self._failed(error)

    def _n_workers(self) -> int:
        return len(self._client.nthreads())

    def _some_done(self, futures: Iterable[Any]) -> list[Any]:
        """Wait until some are done, but not for ever where no worker is left."""
        from distributed import wait

        waiting = list(futures)
        while True:
            try:
                with self._client.as_current():
                    found: Any = wait(waiting, timeout=_PATIENCE_S, return_when="FIRST_COMPLETED")
            except TimeoutError:
                if self._n_workers():
                    continue
                raise
            return list(found.done)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Say what it means where nobody answers."""
        try:
            yield
        except (OSError, ValueError, CancelledError) as error:  # a TimeoutError is an OSError
            raise BatchError(
                f"The cluster at {self._place} has no scheduler or no worker that answers; start "
                "them, or correct --cluster. With --resume it goes on where it was."
            ) from error

    def _failed(self, error: BaseException) -> BaseException:
        """Give what to raise for what a worker raised: ours as it is, else a sentence."""
        if isinstance(error, OncofmError):
            return error
        return BatchError(
            f"A worker of the cluster at {self._place} failed ({type(error).__name__}); look at "
            "what it printed, and whether it has this version of oncofm."
        )


def _lost(item: Item) -> ItemOutcome:
    message = (
        f"Several workers ended while they computed item {item.item_id} or one that was sent with "
        "it; one of its files may crash the decoder."
    )
    failure = ItemFailed(item.position, "worker_lost", message)
    return ItemOutcome(item.position, n_cases=0, failure=failure)
