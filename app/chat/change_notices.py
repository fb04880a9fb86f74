"""Tells whoever watches that the library, a reading or the list of conversations has changed, but not too often.

What has changed they ask for themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_INTERVAL_S = 0.25


class ChangeNotices:
    """Many changes, few notices; the last change is always told of.

    Args:
        tell: what to do about changes, in a thread of this object.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def note(self) -> None:
        """Something has changed; returns at once."""
        self._changed.set()
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="change-notices", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Tell no more."""
        self._closed.set()
        self._changed.set()

    def _run(self) -> None:
        while True:
            self._changed.wait()
            if self._closed.is_set():
                return
            self._changed.clear()
            self._tell()
            self._closed.wait(_INTERVAL_S)
