"""Things by key, those used last, as many as a number of bytes holds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class ByteCache(Generic[Kept]):
    """A cache in memory; safe to use from any thread.

    Args:
        most_bytes: of all that is kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Kept, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Kept | None:
        """What is kept under a key, now used last; None if nothing is."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Kept, size_bytes: int) -> None:
        """Keep something; what has not been used for longest goes."""
        with self._lock:
            self._drop(key)
            self._kept[key] = value, size_bytes
            self._bytes += size_bytes
            while self._bytes > self._most_bytes:
                self._drop(next(iter(self._kept)))

    def forget(self, concerns: Callable[[Hashable], bool]) -> None:
        """Drop what has such a key."""
        with self._lock:
            for key in [key for key in self._kept if concerns(key)]:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        if (dropped := self._kept.pop(key, None)) is not None:
            self._bytes -= dropped[1]
