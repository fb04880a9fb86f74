"""Texts of documents in memory: of each document one object for all who hold it.

What is derived of a text (its passages, how its pages are joined) is remembered by the object, so that two of one
document would cost twice. Safe to call from any thread. Knows nothing of where texts come from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakValueDictionary

from app.library.document import Document

# Texts that nobody holds any more, but may ask for again.
_KEPT_DOCUMENTS = 8


class DocumentTexts:
    """The texts that somebody holds, and the last few that somebody has asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: WeakValueDictionary[str, Document] = WeakValueDictionary()
        self._recent: OrderedDict[str, Document] = OrderedDict()
        self._forgotten = 0  # so far, to see whether any was while one was made

    def find_or_make(self, document_id: str, make: Callable[[], Document]) -> Document:
        """The text of a document; `make` is called where there is none, without a lock held, and may raise."""
        while True:
            with self._lock:
                if (document := self._held.get(document_id)) is not None:
                    return document
                forgotten = self._forgotten
            document = make()
            with self._lock:
                # Else it may have been made of what was removed or replaced meanwhile.
                if self._forgotten == forgotten:
                    # Of two threads that have made it, both take the first one's.
                    document = self._held.setdefault(document_id, document)
                    self._recent[document_id] = document
                    self._recent.move_to_end(document_id)
                    while len(self._recent) > _KEPT_DOCUMENTS:
                        self._recent.popitem(last=False)
                    return document

    def forget(self, document_id: str) -> None:
        """The text is another one from now on, or none; whoever holds the old one keeps that."""
        with self._lock:
            self._held.pop(document_id, None)
            self._recent.pop(document_id, None)
            self._forgotten += 1
