"""Keeps the index of each document, so that a question or an answer finds it ready.

Built in a thread when a document's text has come, or by whoever needs it first; the last ones used stay in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from app.errors import UserFacingError
from app.evidence.document_search import DocumentSearch
from app.evidence.passage_index import PassageIndex
from app.library.document import Document

# In characters of text: the indexes of several long books, about six bytes a character.
_KEPT_CHARACTERS = 40_000_000

# The same bytes under another name may be another format, and so another text.
_Key = tuple[str, int, int]


class DocumentIndexes:
    """The indexes of documents; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: OrderedDict[_Key, Future[PassageIndex]] = OrderedDict()

    def search(self, documents: Sequence[Document]) -> DocumentSearch:
        """Search over documents; indexes that are not there yet are built, or waited for.

        Raises:
            UserFacingError: a package that it needs is not installed.
        """
        return DocumentSearch([(document, self._index(document)) for document in documents])

    def prepare(self, documents: Iterable[Document]) -> None:
        """Build the indexes that are not there yet, in a thread."""
        missing = [document for document in documents if not self._has(document)]
        if missing:
            threading.Thread(target=self._build_all, args=(missing,), name="evidence-index", daemon=True).start()

    def _build_all(self, documents: Iterable[Document]) -> None:
        for document in documents:
            try:
                self._index(document)
            except UserFacingError:
                # Told to whoever asks a question.
                return

    def _has(self, document: Document) -> bool:
        with self._lock:
            return _key(document) in self._indexes

    def _index(self, document: Document) -> PassageIndex:
        key = _key(document)
        with self._lock:
            future = self._indexes.get(key)
            is_mine = future is None
            if is_mine:
                future = self._indexes[key] = Future()
            self._indexes.move_to_end(key)
            kept = sum(characters for _, _, characters in self._indexes)
            while kept > _KEPT_CHARACTERS and len(self._indexes) > 1:
                (_, _, characters), _ = self._indexes.popitem(last=False)
                kept -= characters
        if is_mine:
            try:
                future.set_result(PassageIndex(document))
            except BaseException as error:
                with self._lock:
                    self._indexes.pop(key, None)
                failure = _explained(error)
                future.set_exception(failure)
        return future.result()


def _key(document: Document) -> _Key:
    return document.document_id, document.page_count, document.text_characters


def _explained(error: BaseException) -> BaseException:
    if isinstance(error, ImportError):
        return UserFacingError(
            f"Passages cannot be found without {error.name}, which is not installed. Install requirements.txt."
        )
    return error
