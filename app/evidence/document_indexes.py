"""Keeps the index of each document, so that a question or an answer finds it ready.

Built in a thread when a document's text has come, or when somebody needs it; the last ones used stay in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait

from app.errors import UserFacingError
from app.evidence.document_search import DocumentSearch
from app.evidence.passage_index import PassageIndex
from app.library.document import Document

# In characters of text, of which each takes a few bytes: the indexes of several long books.
_KEPT_CHARACTERS = 40_000_000

# The same bytes under another name may be another format, and so another text.
_Key = tuple[str, int, int]


class DocumentIndexes:
    """The indexes of documents; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: OrderedDict[_Key, Future[PassageIndex]] = OrderedDict()

    def prepare(self, documents: Iterable[Document]) -> None:
        """Build the indexes that are not there yet, in a thread."""
        self._futures(documents)

    def search(self, documents: Sequence[Document], most_s: float) -> tuple[DocumentSearch, bool]:
        """Search over documents.

        Args:
            documents: where to look.
            most_s: how long to wait for indexes that are being built; documents without one by then are left out.

        Returns:
            the search, and whether it has all the documents.

        Raises:
            UserFacingError: a package that it needs is not installed.
        """
        futures = self._futures(documents)
        wait(futures, most_s)
        ready = [
            (document, future.result()) for document, future in zip(documents, futures, strict=True) if future.done()
        ]
        return DocumentSearch(ready), len(ready) == len(futures)

    def _futures(self, documents: Iterable[Document]) -> list[Future[PassageIndex]]:
        futures, missing = [], []
        with self._lock:
            for document in documents:
                key = _key(document)
                if key not in self._indexes:
                    self._indexes[key] = Future()
                    missing.append((document, self._indexes[key]))
                self._indexes.move_to_end(key)
                futures.append(self._indexes[key])
            kept = sum(characters for _, _, characters in self._indexes)
            while kept > _KEPT_CHARACTERS and len(self._indexes) > len(futures):
                (_, _, characters), _ = self._indexes.popitem(last=False)
                kept -= characters
        if missing:
            threading.Thread(target=self._build, args=(missing,), name="evidence-index", daemon=True).start()
        return futures

    def _build(self, missing: list[tuple[Document, Future[PassageIndex]]]) -> None:
        # The short ones first: somebody may be waiting.
        for document, future in sorted(missing, key=lambda one: one[0].text_characters):
            try:
                future.set_result(PassageIndex(document))
            except BaseException as error:  # it belongs to whoever asks
                with self._lock:
                    self._indexes.pop(_key(document), None)
                future.set_exception(_explained(error))


def _key(document: Document) -> _Key:
    return document.document_id, document.page_count, document.text_characters


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, ImportError):
        return UserFacingError(
            f"Passages cannot be found without {error.name}, which is not installed. Install requirements.txt."
        )
    return error
