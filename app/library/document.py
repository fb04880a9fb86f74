"""A document as the rest of the app sees it: an identity, a name and the text of its pages.

Knows nothing of file formats or of how the text was obtained. A document page is a page of the source (a PDF page, a
chapter of an EPUB, a section of a text file); the KV cache's pages are another thing altogether.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DocumentPage:
    """One page of a document.

    Attributes:
        index: 0-based position in the document.
        page_label: what a reader calls the page: the PDF's own label ("iv", "12", "A-3"), a chapter's title, or "1",
            "2", ... for formats without pages.
        text: the page's text; empty where the page holds none or could not be read.
    """

    index: int
    page_label: str
    text: str


@dataclass(frozen=True)
class Document:
    """A document that has been read.

    Attributes:
        document_id: the first 32 hexadecimal digits of the SHA-256 of the file's bytes: the same bytes are one
            document, whatever they are called.
        name: the name of the file that was read first, without its folder; what a model is told, and never changed.
        path: where the file was read from.
        document_pages: all pages in order, with `document_pages[i].index == i`.
        unreadable_pages: labels of the pages that could not be read; their text is empty.
        picture_pages: labels of the pages that show something, but hold no text.
        assumed_encoding: the encoding that a text was read in, if that is not certain; else "".
        garbled_pages: labels of the pages whose text layer does not say which characters it shows; it was left out.
        recognised_pages: labels of the pages whose text was recognised in a picture of them (OCR), and may have errors.
        title: what people have called it; "" if they have left it at its name.
    """

    document_id: str
    name: str
    path: Path
    document_pages: tuple[DocumentPage, ...]
    unreadable_pages: tuple[str, ...] = ()
    picture_pages: tuple[str, ...] = ()
    assumed_encoding: str = ""
    garbled_pages: tuple[str, ...] = ()
    recognised_pages: tuple[str, ...] = ()
    title: str = ""

    @property
    def shown_name(self) -> str:
        """What people see: the title, or the name."""
        return self.title or self.name

    @property
    def page_count(self) -> int:
        """Number of document pages, those without text included."""
        return len(self.document_pages)

    @property
    def text_characters(self) -> int:
        """Characters of text over all pages."""
        return sum(len(page.text) for page in self.document_pages)


@dataclass(frozen=True)
class Passage:
    """A stretch of one document page, chosen because it bears on a question.

    Attributes:
        document: the document that it comes from.
        page_index: 0-based index of its document page.
        page_label: that page's label.
        start_char: first character, counted within the page's text.
        end_char: one past the last character.
        text: `document.document_pages[page_index].text[start_char:end_char]`.
    """

    document: Document
    page_index: int
    page_label: str
    start_char: int
    end_char: int
    text: str
