"""Plain text and Markdown, cut into pages. Markdown stays as it is written."""

from collections.abc import Iterator
from pathlib import Path

from app.library.errors import DamagedDocumentError, EmptyDocumentError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.pagination import split_into_pages
from app.library.formats.text_cleaning import clean_indented
from app.library.formats.text_encoding import decode_text
from app.library.limits import ReadLimits


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read a text file as pages labelled "1", "2", ...

    Args:
        path: the file.
        password: ignored.
        limits: ignored; the caller counts pages and characters.

    Yields:
        The pages in order.

    Raises:
        DamagedDocumentError: the content is not text.
        EmptyDocumentError: the file holds nothing but blanks.
    """
    try:
        decoded = decode_text(path.read_bytes())
    except ValueError:
        raise DamagedDocumentError(
            f'"{path.name}" does not contain text but binary data. Correct its name, or convert it to a PDF.'
        ) from None
    # Form feeds mark pages, and cleaning would take them for line ends.
    pages = split_into_pages("\f".join(clean_indented(part) for part in decoded.text.split("\f")))
    if not pages:
        raise EmptyDocumentError(f'"{path.name}" is empty: it holds nothing but blanks.')
    for number, page in enumerate(pages, start=1):
        yield ExtractedPage(str(number), page, number, len(pages), assumed_encoding=decoded.assumed_encoding)
