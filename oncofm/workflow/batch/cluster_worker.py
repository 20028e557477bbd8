"""What a worker of a cluster does: read some items, compute them, say what that took.

It writes nothing, and is sent everything it needs to know but the weights and the inputs.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from oncofm.encoders.encoder import Encoder, EncoderFacts, FixedBatches
from oncofm.workflow.batch.compute import ItemOutcome, compute_items
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.reader import Message, read_item
from oncofm.workflow.batch.usage import ItemUsage, bytes_read_by
from oncofm.workflow.job import start_loading
from oncofm.workflow.settings import Settings
from oncofm.workflow.timing import Timing, peak_memory_mib


@dataclass(frozen=True)
class PieceDone:
    """What a worker made of some items, and what reading them took."""

    outcomes: list[ItemOutcome]
    usages: list[ItemUsage]


def describe_encoder(settings: Settings) -> EncoderFacts:
    """Load the encoder and say what it is."""
    return EncoderFacts.of(_encoder(settings))


def compute_piece(items: Sequence[Item], settings: Settings, keep_volumes: bool) -> PieceDone:
    """Read and compute some items; see `oncofm.workflow.batch.reader.read_item`."""
    usages: list[ItemUsage] = []

    def messages() -> Iterator[Message]:
        for item in items:
            yield from _watched(item, read_item(item, settings, keep_volumes), usages)

    return PieceDone(list(compute_items(messages(), lambda: _encoder(settings))), usages)


def _watched(item: Item, messages: Iterator[Message], usages: list[ItemUsage]) -> Iterator[Message]:
    """Pass messages on, and note what it took to read them; meanwhile the encoder holds them up."""
    process = os.getpid()
    reading_s = held_up_s = 0.0
    n_bytes: int | None = 0
    while True:
        started, bytes_before = time.monotonic(), bytes_read_by(process)
        message = next(messages, None)
        ended, bytes_now = time.monotonic(), bytes_read_by(process)
        reading_s += ended - started
        if n_bytes is None or bytes_before is None or bytes_now is None:
            n_bytes = None
        else:
            n_bytes += bytes_now - bytes_before
        if message is None:
            break
        yield message
        held_up_s += time.monotonic() - ended
    usages.append(ItemUsage(item.item_id, reading_s, held_up_s, peak_memory_mib(), n_bytes))


@lru_cache(maxsize=1)
def _encoder(settings: Settings) -> Encoder:
    """Load the encoder once in the life of a worker."""
    with ThreadPoolExecutor(1) as loader:
        return FixedBatches(start_loading(loader, settings, Timing())())
