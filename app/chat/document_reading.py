"""How a document's text comes, as a generator: what the terminal shows, step by step, until it is there or cannot be.

Knows the library; the model's own reading of the text is `app.chat.reading`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from app.library.library import Library
from app.library.library_entry import LibraryEntry

# How often a reading is looked at.
_POLL_S = 0.2


def follow_reading(
    library: Library, document_id: str, password: str | None, recognises: bool
) -> Iterator[LibraryEntry]:
    """A document while its text is read, again and again; last as it is when nobody goes on with it.

    Args:
        password: opens a document that is locked, also where it has been in the library before.
        recognises: go on with text recognition (OCR) where pages have no text and it may find some.

    Raises:
        UserFacingError: it is removed meanwhile, or Tesseract is wanted and not installed.
    """
    entry = yield from _until_read(library, document_id)
    if entry.state == "locked" and password is not None:
        library.unlock(document_id, password)
        entry = yield from _until_read(library, document_id)
    if recognises and entry.can_be_recognised:
        library.recognise(document_id, password)
        entry = yield from _until_recognised(library, document_id)
    yield entry


def _until_read(library: Library, document_id: str) -> Generator[LibraryEntry, None, LibraryEntry]:
    while (entry := library.wait(document_id, _POLL_S)).state == "reading":
        yield entry
    return entry


def _until_recognised(library: Library, document_id: str) -> Generator[LibraryEntry, None, LibraryEntry]:
    while (entry := library.wait_recognised(document_id, _POLL_S)).recognition is not None:
        yield entry
    return entry
