"""The items of a batch on other machines: a dask.distributed cluster computes, this process writes.

A worker needs the package, the weights and the inputs at the paths that this machine knows them by;
it writes nothing. A worker that dies takes its pieces with it, and dask gives them to another.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from oncofm.encoders.encoder import Encoder, EncoderFacts, FixedBatches
from oncofm.errors import BatchError, MissingExtraError
from oncofm.workflow.batch.compute import ItemOutcome, compute_items
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.reader import ItemFailed, Message, read_item
from oncofm.workflow.job import start_loading
from oncofm.workflow.settings import Settings
from oncofm.workflow.timing import Timing

SCHEME = "dask://"
_ITEMS_PER_PIECE = 4
_PIECES_PER_WORKER = 4
"""How many pieces wait at a worker; bounds the memory of the scheduler and of this process."""
_PATIENCE_S = 60.0
"""How long to wait for the scheduler, and for a first worker."""


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
        self._settings = settings
        place = address.removeprefix(SCHEME)
        try:
            self._client = Client(f"tcp://{place}", timeout=_PATIENCE_S, set_as_default=False)
            self._client.wait_for_workers(1, timeout=_PATIENCE_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise BatchError(
                f"The cluster at {place} has no scheduler or no worker that answers; start them, "
                "or correct --cluster."
            ) from error

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def n_workers(self) -> int:
        """How many workers there are now, at least one."""
        return max(1, len(self._client.scheduler_info()["workers"]))

    def describe_encoder(self) -> EncoderFacts:
        """Load the encoder on a worker and say what it is."""
        return self._client.submit(_describe, self._settings, pure=False).result()

    def outcomes(
        self,
        items: Sequence[Item],
        *,
        keep_volumes: bool,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[ItemOutcome]:
        """Compute items; yields each once, in no particular order."""
        from distributed import as_completed

        starts = range(0, len(items), _ITEMS_PER_PIECE)
        pieces = (items[start : start + _ITEMS_PER_PIECE] for start in starts)
        pending = as_completed(loop=self._client.loop)
        given: dict[Any, Sequence[Item]] = {}

        def hand_out() -> None:
            piece = None if is_stopped() else next(pieces, None)
            if piece is not None:
                future = self._client.submit(
                    _compute, piece, self._settings, keep_volumes, pure=False
                )
                given[future.key] = piece
                pending.add(future)

        for _ in range(self.n_workers * _PIECES_PER_WORKER):
            hand_out()
        for future in pending:
            piece = given.pop(future.key)
            yield from _result(future, piece)
            hand_out()


def _result(future: Any, piece: Sequence[Item]) -> list[ItemOutcome]:
    """Get what a worker computed; workers that died over and over fail their items."""
    error = future.exception()
    if error is None:
        return future.result()
    from distributed import KilledWorker

    if not isinstance(error, KilledWorker):
        raise error
    return [_lost(item) for item in piece]


def _lost(item: Item) -> ItemOutcome:
    message = (
        f"Several workers ended while they computed item {item.item_id} or one that was sent with "
        "it; one of its files may crash the decoder."
    )
    failure = ItemFailed(item.position, "worker_lost", message)
    return ItemOutcome(item.position, n_cases=0, failure=failure)


# --- on a worker --------------------------------------------------------------------------


def _describe(settings: Settings) -> EncoderFacts:
    return EncoderFacts.of(_encoder(settings))


def _compute(items: Sequence[Item], settings: Settings, keep_volumes: bool) -> list[ItemOutcome]:
    def messages() -> Iterator[Message]:
        for item in items:
            yield from read_item(item, settings, keep_volumes)

    return list(compute_items(messages(), lambda: _encoder(settings)))


@lru_cache(maxsize=1)
def _encoder(settings: Settings) -> Encoder:
    """Load the encoder once in the life of a worker."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as loader:
        return FixedBatches(start_loading(loader, settings, Timing())())
