"""A document of the library as it is listed, and as it is found: plain data, without the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.library.errors import NoTextError

# "reading" is also a document whose turn has not come yet.
EntryState = Literal["reading", "read", "locked", "failed"]


@dataclass(frozen=True)
class LibraryEntry:
    """A document in the library.

    Args:
        document_id: the first 32 hexadecimal digits of the SHA-256 of its bytes.
        name: what people see; may be changed.
        file_name: what the file was called when it was added; goes into prompts.
        state: see `EntryState`.
        progress: share of its pages whose text has been extracted; None while it waits, and once it is read.
        message: of a document that is locked or has failed, a sentence that says why; else "".
        page_count: 0 until it is read.
        picture_pages, unreadable_pages, assumed_encoding: see `app.library.Document`.
        file_bytes: size of the file.
        added_at, last_used_at: seconds since 1970.
        garbled_pages, recognised_pages: see `app.library.Document`.
        failure: of one that has failed, the name of the error's class in `app.library.errors`; "" if nobody knows.
        recognition: share of its pages that are done while text is being recognised in it (OCR); else None.
        recognition_message: why that has failed since the start of the program, a sentence; "" otherwise.
    """

    document_id: str
    name: str
    file_name: str
    state: EntryState
    progress: float | None
    message: str
    page_count: int
    picture_pages: tuple[str, ...]
    unreadable_pages: tuple[str, ...]
    assumed_encoding: str
    file_bytes: int
    added_at: float
    last_used_at: float
    garbled_pages: tuple[str, ...] = ()
    recognised_pages: tuple[str, ...] = ()
    failure: str = ""
    recognition: float | None = None
    recognition_message: str = ""

    @property
    def can_be_recognised(self) -> bool:
        """Whether recognition (OCR) may find text that reading has not: in a PDF, unless it was tried before."""
        lacks_text = self.picture_pages or self.garbled_pages or self.failure == NoTextError.__name__
        is_pdf = self.file_name.lower().endswith(".pdf")
        return bool(lacks_text) and is_pdf and not self.recognised_pages and self.state in ("read", "failed")


@dataclass(frozen=True)
class LibraryHit:
    """A document page that has the words that were searched for.

    Args:
        document_id, name: of its document.
        page_label: its label; "" if only the document's name has the words.
        snippet: the text around the first of them; "" if there is none.
    """

    document_id: str
    name: str
    page_label: str
    snippet: str
