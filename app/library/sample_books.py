"""The books that come with the app, for whoever has no document at hand: what they are, before they are read.

They lie beside the program and are listed with the library as long as they are not in it. Where each is from is told in
`assets/books/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from app.library.reader import content_id

BOOKS_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "books"


@dataclass(frozen=True)
class SampleBook:
    """A book that can be added with a click.

    Args:
        file_name: in `BOOKS_FOLDER`.
        title, author: as people know it.
        page_count: its document pages.
        text_characters: characters of text over all pages.
    """

    file_name: str
    title: str
    author: str
    page_count: int
    text_characters: int

    @property
    def path(self) -> Path:
        """Its file."""
        return BOOKS_FOLDER / self.file_name

    @cached_property
    def document_id(self) -> str:
        """Its id in the library: it is there under the same one, whoever has added it."""
        return content_id(self.path)


SAMPLE_BOOKS = (
    SampleBook("the-happy-prince.pdf", "The Happy Prince", "Oscar Wilde", 20, 26_887),
    SampleBook("pride-and-prejudice-volume-1.txt", "Pride and Prejudice, volume 1", "Jane Austen", 147, 230_573),
)


def sample_book(document_id: str) -> SampleBook | None:
    """The sample book of an id; None if it is another document's."""
    return next((book for book in SAMPLE_BOOKS if book.document_id == document_id), None)
