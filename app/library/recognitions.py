"""Text recognition of the library's documents, one after the other, in a thread; the documents can be used meanwhile.

Knows who waits, how far the present one is, and what the last one has failed with; how text is recognised and what
becomes of it is the library's to say. Nothing of it is kept: after a restart it is asked for again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from app.errors import UserFacingError, explain
from app.library.reader import ReadingStopped, ReadProgress

# So often at most it is told how far one has come.
_PROGRESS_S = 0.2
_CLOSING_S = 5.0


class Recognitions:
    """A queue of documents, and the thread that works on it.

    Args:
        recognise: recognises the text of a document and keeps it; takes its id, a password, what to tell of progress,
            and what stops it with `ReadingStopped`.
        on_change: called when something has changed, in any thread, without a lock held.
    """

    def __init__(
        self,
        recognise: Callable[[str, str | None, Callable[[ReadProgress], None], threading.Event], None],
        on_change: Callable[[], None],
    ) -> None:
        self._recognise = recognise
        self._on_change = on_change
        self._state = threading.Condition()
        self._waiting: OrderedDict[str, str | None] = OrderedDict()
        self._present = ""
        self._stop_present = threading.Event()
        self._share = 0.0
        self._told_at = 0.0
        self._failures: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, document_id: str, password: str | None = None) -> None:
        """Recognise a document's text, after those that wait; returns at once."""
        with self._state:
            if self._closed or document_id == self._present:
                return
            self._failures.pop(document_id, None)
            self._waiting[document_id] = password
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="text-recognition", daemon=True)
                self._thread.start()
            self._state.notify_all()
        self._on_change()

    def stop(self, document_id: str) -> None:
        """Do not go on with a document, and wait until nobody does; what is not there does no harm."""
        with self._state:
            self._waiting.pop(document_id, None)
            self._failures.pop(document_id, None)
            if self._present == document_id and threading.current_thread() is not self._thread:
                self._stop_present.set()
                self._state.wait_for(lambda: self._present != document_id or self._closed, timeout=_CLOSING_S)
        self._on_change()

    def share(self, document_id: str) -> float | None:
        """How much of a document is done; 0 while it waits, None if nobody recognises its text."""
        with self._state:
            if document_id == self._present:
                return self._share
            return 0.0 if document_id in self._waiting else None

    def failure(self, document_id: str) -> str:
        """Why it has failed, a sentence; "" if it has not."""
        with self._state:
            return self._failures.get(document_id, "")

    def wait(self, document_id: str, timeout_s: float) -> float | None:
        """`share`, once nobody recognises its text any more, or after so many seconds."""
        end = time.monotonic() + timeout_s
        with self._state:
            while document_id in (self._present, *self._waiting) and (left_s := end - time.monotonic()) > 0:
                self._state.wait(left_s)
        return self.share(document_id)

    def close(self) -> None:
        """End the thread; further calls do nothing."""
        with self._state:
            self._closed = True
            self._waiting.clear()
            self._stop_present.set()
            self._state.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSING_S)

    def _work(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._present, password = self._waiting.popitem(last=False)
                document_id, self._share = self._present, 0.0
                self._stop_present.clear()
            try:
                self._recognise(document_id, password, self._note, self._stop_present)
                message = ""
            except ReadingStopped:
                message = ""
            except UserFacingError as error:
                message = error.message
            except Exception as error:  # a thread has nobody else to tell
                message = explain(error, "Recognising the text").message
            with self._state:
                self._present = ""
                if message:
                    self._failures[document_id] = message
                self._state.notify_all()
            self._on_change()

    def _note(self, progress: ReadProgress) -> None:
        share = progress.done_pages / max(1, progress.total_pages)
        with self._state:
            self._share = share
        # Pages take seconds, but those that need no recognition.
        if (now := time.monotonic()) - self._told_at >= _PROGRESS_S:
            self._told_at = now
            self._on_change()
