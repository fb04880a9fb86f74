"""Plain text and Markdown: find the encoding, cut the text into pages. Markdown stays as it is written."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from app.library.errors import DamagedDocumentError, EmptyDocumentError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.pagination import split_into_pages
from app.library.formats.text_cleaning import clean_indented
from app.library.limits import ReadLimits

# UTF-32's mark begins with UTF-16's: the longer ones first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")
_BINARY_SHARE = 0.02


def decode_text(data: bytes) -> str:
    """Decode text of unknown encoding: by its byte order mark, else as UTF-8, else as Windows-1252.

    Args:
        data: the whole of the text.

    Returns:
        The text; bytes that mean nothing in the encoding become U+FFFD.

    Raises:
        ValueError: the bytes are not text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    controls = len(data) - len(data.translate(None, _BINARY_CONTROLS))
    if controls > _BINARY_SHARE * len(data) or data.count(0) > 1 + len(data) // 10_000:
        raise ValueError("binary content")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


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
        text = decode_text(path.read_bytes())
    except ValueError:
        raise DamagedDocumentError(
            f'"{path.name}" does not contain text but binary data. Correct its name, or convert it to a PDF.'
        ) from None
    # Form feeds mark pages, and cleaning would take them for line ends.
    pages = split_into_pages("\f".join(clean_indented(part) for part in text.split("\f")))
    if not pages:
        raise EmptyDocumentError(f'"{path.name}" is empty: it holds nothing but blanks.')
    for number, page in enumerate(pages, start=1):
        yield ExtractedPage(str(number), page, number, len(pages))
