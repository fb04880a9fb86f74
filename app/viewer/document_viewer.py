"""The documents of the library as they are shown: pages as pictures, where a passage stands, search.

Pictures are kept in memory, not on the disk: one is made in the time that it takes to read it, and of a document that
is removed nothing stays. Safe to call from any thread. What comes from a file is told by a process that can be killed.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from app.errors import UserFacingError
from app.library import Document
from app.library.errors import DocumentError
from app.library.formats import detect_format
from app.library.library import Library
from app.viewer import character_boxes
from app.viewer.byte_cache import ByteCache
from app.viewer.document_search import DocumentSearch
from app.viewer.errors import ProcessLost, RenderBusy, RenderError
from app.viewer.marks import Box, line_boxes
from app.viewer.render_connection import RenderConnection
from app.viewer.render_pool import RenderPool

# Thumbnails, and widths that screens have use for; what is asked for gets the next larger one.
WIDTH_STEPS_PX = (160, 320, 480, 800, 1200, 1600, 2400)
IMAGE_MEDIA_TYPE = "image/jpeg"
_KEPT_IMAGE_BYTES = 96 << 20
_KEPT_BOXES_BYTES = 16 << 20
_KEPT_SIZES = 32
# A page that took longer, or its process with it, is not tried again for a while.
_ANSWER_S = 15.0
_FAILED_S = 60.0
_KEPT_FAILURES = 512

Answer = TypeVar("Answer")


class DocumentViewer:
    """Shows the documents of a library.

    Args:
        library: where they are.
        pool: of render processes; one of its own if None.
    """

    def __init__(self, library: Library, pool: RenderPool | None = None) -> None:
        self._library = library
        self._pool = pool or RenderPool()
        self._search = DocumentSearch()
        self._images: ByteCache[bytes] = ByteCache(_KEPT_IMAGE_BYTES)
        self._boxes: ByteCache[tuple[array[int], float]] = ByteCache(_KEPT_BOXES_BYTES)
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, list[tuple[float, float]]] = OrderedDict()
        self._failures: OrderedDict[tuple[str, str, int], tuple[float, str]] = OrderedDict()

    def description(self, document_id: str) -> Future[dict[str, Any]]:
        """A document and its pages, as the page needs them.

        Returns:
            document_id, name, kind ("pdf" or "text"), page_count, pages (index, label, width and height in points or 0,
            note: "" or "picture", "unreadable", "garbled", "recognised"), can_render, message.

        Raises:
            UserFacingError: it is not in the library, or not read.
        """
        document = self._document(document_id)
        if _kind(document) == "text":
            return _done(_description(document, "text", [], ""))
        described: Future[dict[str, Any]] = Future()

        def describe(sizes: Future[list[tuple[float, float]]]) -> None:
            if not described.set_running_or_notify_cancel():
                return
            error = None if sizes.cancelled() else sizes.exception()
            if sizes.cancelled() or isinstance(error, RenderBusy):
                described.set_exception(error or RenderBusy("Nobody waits for this any more."))
            elif error is not None:
                described.set_result(_description(document, "pdf", [], str(error)))
            else:
                described.set_result(_description(document, "pdf", sizes.result(), ""))

        self._page_sizes(document).add_done_callback(describe)
        return described

    def image(self, document_id: str, page_index: int, width_px: int) -> Future[bytes]:
        """A document page as a picture, of `IMAGE_MEDIA_TYPE`.

        Args:
            document_id, page_index: which page.
            width_px: in pixels; the next of `WIDTH_STEPS_PX` is taken, and less of pages that are very long.

        Returns:
            The picture, later. It is a `RenderError` if there is none; `RenderBusy` if it was given up.

        Raises:
            UserFacingError: the document is not there, has no such page, or no pages that are shown as pictures.
        """
        document = self._document(document_id)
        _page_text(document, page_index)
        if _kind(document) == "text":
            raise RenderError("This document has no pages to be shown as they look. Its text is shown instead.")
        step = next((step for step in WIDTH_STEPS_PX if step >= width_px), WIDTH_STEPS_PX[-1])
        key = (document_id, page_index, step)
        if (kept := self._images.get(key)) is not None:
            return _done(kept)
        request = {"kind": "image", "path": str(document.path), "page": page_index, "width": step}

        def render(connection: RenderConnection) -> bytes:
            _, image = connection.ask(request, _ANSWER_S)
            self._images.put(key, image, len(image))
            return image

        return self._run((document_id, "image", page_index), lambda: self._images.get(key), render)

    def text(self, document_id: str, page_index: int) -> str:
        """The text of a document page, as the model is told it.

        Raises:
            UserFacingError: the document is not there, or has no such page.
        """
        return _page_text(self._document(document_id), page_index)

    def marks(self, document_id: str, page_index: int, start: int, end: int) -> Future[list[Box]]:
        """Where characters of a document page's text stand on its picture.

        Args:
            document_id, page_index: which page.
            start, end: which characters of its text, end excluded.

        Returns:
            A box a line: left, top, right, bottom as shares of the picture. None where the passage is not found, or the
            page has no picture.

        Raises:
            UserFacingError: the document is not there, or has no such page.
        """
        document = self._document(document_id)
        text = _page_text(document, page_index)
        if _kind(document) == "text" or not text:
            return _done([])
        # Read again, a document may have another text.
        key = (document_id, page_index, hash(text))
        request = {"kind": "characters", "path": str(document.path), "page": page_index, "text": text}

        def find() -> list[Box] | None:
            kept = self._boxes.get(key)
            return None if kept is None else line_boxes(text, *kept, start, end)

        def place(connection: RenderConnection) -> list[Box]:
            answer, sent = connection.ask(request, _ANSWER_S)
            boxes, aspect = character_boxes.from_bytes(sent, len(text)), float(answer["aspect"])
            self._boxes.put(key, (boxes, aspect), len(boxes) * boxes.itemsize)
            return line_boxes(text, boxes, aspect, start, end)

        return self._run((document_id, "marks", page_index), find, place, otherwise=[])

    def search(self, document_id: str, words: str, limit: int) -> dict[str, Any]:
        """Where words stand in a document; see `DocumentSearch.search`.

        Returns:
            hits (the fields of `DocumentHit`), more.

        Raises:
            UserFacingError: the document is not there.
        """
        hits, more = self._search.search(self._document(document_id), words, limit)
        return {"hits": [vars(hit) for hit in hits], "more": more}

    def forget(self, document_id: str) -> None:
        """Keep nothing of a document, and leave its file closed: it is about to be removed."""
        self._images.forget(lambda key: key[0] == document_id)
        self._boxes.forget(lambda key: key[0] == document_id)
        with self._lock:
            self._sizes.pop(document_id, None)
        self._search.forget(document_id)
        self._pool.end_processes()

    def close(self) -> None:
        """End the render processes; further calls do nothing."""
        self._pool.close()

    def _document(self, document_id: str) -> Document:
        return self._library.document(document_id)

    def _page_sizes(self, document: Document) -> Future[list[tuple[float, float]]]:
        def kept() -> list[tuple[float, float]] | None:
            with self._lock:
                return self._sizes.get(document.document_id)

        if (known := kept()) is not None:
            return _done(known)

        def ask(connection: RenderConnection) -> list[tuple[float, float]]:
            answer, _ = connection.ask({"kind": "pages", "path": str(document.path)}, _ANSWER_S)
            sizes = [(float(width), float(height)) for width, height in answer["sizes"]]
            with self._lock:
                self._sizes[document.document_id] = sizes
                while len(self._sizes) > _KEPT_SIZES:
                    self._sizes.popitem(last=False)
            return sizes

        return self._run((document.document_id, "pages", 0), kept, ask)

    def _run(
        self,
        key: tuple[str, str, int],
        kept: Callable[[], Answer | None],
        ask: Callable[[RenderConnection], Answer],
        otherwise: Answer | None = None,
    ) -> Future[Answer]:
        """Take what is kept, or ask a render process.

        Args:
            key: what is asked for; if it was the end of a process, it is not asked for again soon.
            kept: the answer, if there is one already.
            ask: gets it, and keeps it.
            otherwise: the answer if there is none; it fails if that is None.
        """
        if (found := kept()) is not None:
            return _done(found)

        def job(connection: RenderConnection) -> Answer:
            # While this was waiting, somebody else may have had it made.
            if (found := kept()) is not None:
                return found
            try:
                self._check_failures(key)
                return ask(connection)
            except RenderError as error:
                if isinstance(error, ProcessLost):
                    self._note_failure(key, error)
                if otherwise is None:
                    raise
                return otherwise

        return self._pool.run(job)

    def _check_failures(self, key: tuple[str, str, int]) -> None:
        with self._lock:
            failed_at, message = self._failures.get(key, (None, ""))
        if failed_at is not None and time.monotonic() - failed_at < _FAILED_S:
            raise RenderError(message)

    def _note_failure(self, key: tuple[str, str, int], error: RenderError) -> None:
        with self._lock:
            self._failures.pop(key, None)
            self._failures[key] = time.monotonic(), error.message
            while len(self._failures) > _KEPT_FAILURES:
                self._failures.popitem(last=False)


def _done(result: Answer) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_result(result)
    return future


def _kind(document: Document) -> str:
    try:
        return "pdf" if detect_format(document.path) == "pdf" else "text"
    except (OSError, DocumentError):
        # It is gone, or was changed; its name tells what it was.
        return "pdf" if document.path.suffix.lower() == ".pdf" else "text"


def _page_text(document: Document, page_index: int) -> str:
    if not 0 <= page_index < document.page_count:
        raise UserFacingError(f"The document has no page at {page_index}: it has {document.page_count:,} pages.")
    return document.document_pages[page_index].text


def _description(document: Document, kind: str, sizes: list[tuple[float, float]], message: str) -> dict[str, Any]:
    sizes_of_all = sizes + [(0.0, 0.0)] * (document.page_count - len(sizes))
    return {
        "document_id": document.document_id,
        "name": document.shown_name,
        "kind": kind,
        "page_count": document.page_count,
        "pages": [
            {"index": page.index, "label": page.page_label, "width": width, "height": height, "note": note}
            for page, (width, height), note in zip(
                document.document_pages, sizes_of_all, _notes(document), strict=False
            )
        ],
        "can_render": bool(sizes),
        "message": message,
    }


def _notes(document: Document) -> list[str]:
    """What is wrong with each page, in a word."""
    without_text = dict.fromkeys(document.garbled_pages, "garbled")
    without_text |= dict.fromkeys(document.picture_pages, "picture")
    without_text |= dict.fromkeys(document.unreadable_pages, "unreadable")
    with_text = dict.fromkeys(document.recognised_pages, "recognised")
    # Several pages may have one label, but a page with text is none that has none.
    return [(with_text if page.text else without_text).get(page.page_label, "") for page in document.document_pages]
