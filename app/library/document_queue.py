"""Documents of the library that wait for some work, and the thread that does it, one after the other.

Knows who waits, how far the present one is, and what the last one has failed with; what is done with a document is the
library's to say. Nothing of it is kept. Safe to call from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from app.errors import explain
from app.library.reader import ReadingStopped, ReadProgress

# So often at most it is told how far one has come.
_PROGRESS_S = 0.2
_CLOSING_S = 5.0


class DocumentWork(Protocol):
    """What is done with a document."""

    def __call__(
        self,
        document_id: str,
        password: str | None,
        on_progress: Callable[[ReadProgress], None],
        stop: threading.Event,
    ) -> None:
        """Do it.

        Args:
            document_id: of the document.
            password: of an encrypted one.
            on_progress: to be called with how far it has come.
            stop: once it is set, the work ends with `ReadingStopped`.
        """
        ...


class DocumentQueue:
    """A queue of documents, and the thread that works on it.

    Args:
        work: is done with each.
        what: a noun for it, with which the message of a failure begins.
        on_change: called when something has changed by itself, in the thread, without a lock held.
        before: done first in the thread; a failure is logged.
    """

    def __init__(
        self,
        work: DocumentWork,
        what: str,
        on_change: Callable[[], None],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._what = what
        self._on_change = on_change
        self._before = before
        self._state = threading.Condition()
        self._waiting: OrderedDict[str, str | None] = OrderedDict()  # the password of each, the next one first
        self._present = ""
        self._stop_present = threading.Event()
        self._progress: float | None = None
        self._told_at = 0.0
        self._failures: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing more is worked on."""
        return self._closed

    def start(self) -> None:
        """Begin to work; further calls do nothing."""
        with self._state:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=self._what, daemon=True)
                self._thread.start()

    def put(self, document_id: str, password: str | None = None) -> None:
        """Work on a document after those that wait, once the queue is started; what it failed with is forgotten."""
        with self._state:
            self._failures.pop(document_id, None)
            self._waiting[document_id] = password
            self._state.notify_all()

    def stop(self, document_id: str) -> None:
        """Do not go on with a document, and wait until nobody does; one that is not there does no harm."""
        with self._state:
            self._waiting.pop(document_id, None)
            self._failures.pop(document_id, None)
            if self._present == document_id and threading.current_thread() is not self._thread:
                self._stop_present.set()
                self._state.wait_for(lambda: self._present != document_id or self._closed, timeout=_CLOSING_S)

    def queued(self) -> set[str]:
        """The documents that wait, and the present one."""
        with self._state:
            return {*self._waiting, self._present} - {""}

    def progress(self, document_id: str) -> float | None:
        """How much of the present document is done, from 0 to 1; None of another, and before anything is known."""
        with self._state:
            return self._progress if document_id == self._present else None

    def failure(self, document_id: str) -> str:
        """What the work on a document has failed with, a sentence; "" if it has not."""
        with self._state:
            return self._failures.get(document_id, "")

    def wait(self, document_id: str, timeout_s: float) -> None:
        """Return once a document is not queued any more, the queue is closed, or so many seconds are over."""
        end = time.monotonic() + timeout_s
        with self._state:
            while document_id in (self._present, *self._waiting) and not self._closed:
                if (left_s := end - time.monotonic()) <= 0:
                    return
                self._state.wait(left_s)

    def close(self) -> None:
        """End the thread; what waits is left undone. Further calls do nothing."""
        with self._state:
            self._closed = True
            self._waiting.clear()
            self._stop_present.set()
            self._state.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSING_S)

    def _run(self) -> None:
        """Work on one document after the other until the queue is closed."""
        try:
            self._before()
        except Exception as error:
            # A full disk, for instance: the work itself may be possible all the same.
            explain(error, self._what)
        while True:
            with self._state:
                self._state.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._present, password = self._waiting.popitem(last=False)
                document_id, self._progress = self._present, None
                self._stop_present.clear()
            message = ""
            try:
                self._work(document_id, password, self._note, self._stop_present)
            except ReadingStopped:
                pass
            except Exception as error:  # a thread has nobody else to tell
                message = explain(error, self._what).message
            with self._state:
                self._present = ""
                if message:
                    self._failures[document_id] = message
                self._state.notify_all()
            self._on_change()

    def _note(self, progress: ReadProgress) -> None:
        with self._state:
            self._progress = progress.done_pages / max(1, progress.total_pages)
        if (now := time.monotonic()) - self._told_at >= _PROGRESS_S:
            self._told_at = now
            self._on_change()
