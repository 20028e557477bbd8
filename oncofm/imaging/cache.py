"""Decoded pixels that may be needed again, bounded in bytes over all volumes of a process."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """The values used last, dropped oldest first once they take too many bytes.

    It may be shared by threads. The newest value stays even if it is too large by itself.
    """

    def __init__(self, max_bytes: int, n_bytes_of: Callable[[Value], int]) -> None:
        self._max_bytes = max_bytes
        self._n_bytes_of = n_bytes_of
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """Look a value up; None if it is not there (any more)."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Hashable, value: Value) -> None:
        """Keep a value, and drop the oldest ones for it."""
        with self._lock:
            if key in self._values:
                self._n_bytes -= self._n_bytes_of(self._values.pop(key))
            self._values[key] = value
            self._n_bytes += self._n_bytes_of(value)
            while self._n_bytes > self._max_bytes and len(self._values) > 1:
                self._n_bytes -= self._n_bytes_of(self._values.popitem(last=False)[1])

    def drop(self, owner: object) -> None:
        """Forget every value whose key is `owner`, or a tuple that starts with it."""
        with self._lock:
            for key in [key for key in self._values if _owner(key) is owner]:
                self._n_bytes -= self._n_bytes_of(self._values.pop(key))


def _owner(key: Hashable) -> object:
    return key[0] if isinstance(key, tuple) else key
