"""The file formats that can be read, and how to tell which one a file is.

The content decides where it speaks (a PDF that is named .txt is read as a PDF), the name where it does not (text and
HTML).
The readers' libraries are imported only with the reader, in the reader process.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from app.library.errors import DamagedDocumentError, EmptyDocumentError, UnsupportedFormatError
from app.library.formats.extracted_page import ExtractedPage
from app.library.limits import ReadLimits

FORMAT_BY_SUFFIX = {
    ".pdf": "pdf",
    ".txt": "plain_text",
    ".text": "plain_text",
    ".md": "plain_text",
    ".markdown": "plain_text",
    ".epub": "epub",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
SUPPORTED_SUFFIXES = tuple(FORMAT_BY_SUFFIX)
SUPPORTED_NAMES = "PDF (.pdf), EPUB (.epub), web pages (.html, .htm), text (.txt) and Markdown (.md)"

# A PDF may carry other bytes before its header; readers look for it in the first kilobyte.
_HEAD_BYTES = 1024
# An EPUB's first entry is an uncompressed file `mimetype`: a zip header of 30 bytes, the name, the content.
_EPUB_MARK = b"mimetypeapplication/epub+zip"
_EPUB_MARK_START = 30

_ADVICE_BY_SUFFIX = {
    **dict.fromkeys((".doc", ".docx", ".odt", ".rtf", ".pages"), "Open it in a word processor and save it as PDF."),
    **dict.fromkeys((".ppt", ".pptx", ".odp", ".key"), "Open it in its own program and export it as PDF."),
    **dict.fromkeys((".mobi", ".azw", ".azw3", ".fb2", ".lit"), "Convert it to EPUB, for example with Calibre."),
    **dict.fromkeys((".djvu", ".ps", ".eps"), "Convert it to PDF."),
    **dict.fromkeys(
        (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".heic", ".gif"),
        "A picture has no text: turn it into a PDF with text recognition, for example with ocrmypdf.",
    ),
    **dict.fromkeys((".zip", ".rar", ".7z", ".gz"), "Unpack it and add the documents in it."),
}
_FOREIGN_CONTENT = (
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0", "an old office document"),
    (b"AT&TFORM", "a DjVu document"),
    (b"\x1f\x8b", "a compressed file"),
)

ReadPages = Callable[[Path, str | None, ReadLimits], Iterator[ExtractedPage]]


def detect_format(path: Path) -> str:
    """Tell which reader a file needs, from its first bytes and its name.

    Args:
        path: an existing, readable file.

    Returns:
        A name for `load_reader`.

    Raises:
        EmptyDocumentError: the file has zero bytes or begins with nothing but blanks and ends there.
        UnsupportedFormatError: neither content nor name is of a supported format.
        DamagedDocumentError: the content is not what the name says.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        is_whole = not file.read(1)
    if is_whole and not head.strip(b" \t\r\n\f\v\0"):
        raise EmptyDocumentError(f'"{path.name}" is empty. Check that it was saved or downloaded completely.')
    if b"%PDF-" in head:
        return "pdf"
    suffix = path.suffix.lower()
    if head[_EPUB_MARK_START:].startswith(_EPUB_MARK) or (suffix == ".epub" and head.startswith(b"PK\x03\x04")):
        return "epub"
    if suffix not in FORMAT_BY_SUFFIX:
        advice = _ADVICE_BY_SUFFIX.get(suffix, "Convert it to one of these, or rename it if its ending is wrong.")
        raise UnsupportedFormatError(
            f'"{path.name}" is in a format that cannot be read. Supported are {SUPPORTED_NAMES}. {advice}'
        )
    found = next((name for mark, name in _FOREIGN_CONTENT if head.startswith(mark)), None)
    if suffix in (".pdf", ".epub"):
        if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
            # What a shop or a proxy sends in place of the book.
            found = "a web page"
        raise DamagedDocumentError(
            f'"{path.name}" is not {"a PDF" if suffix == ".pdf" else "an EPUB"} file'
            f"{f': it is {found}' if found else ', although its name says so'}. "
            "It may be damaged or only partly downloaded: get it again, or correct its name."
        )
    if found:
        raise DamagedDocumentError(
            f'"{path.name}" does not contain text: it is {found}. Correct its name, or convert it to a PDF.'
        )
    return FORMAT_BY_SUFFIX[suffix]


def load_reader(format_name: str) -> ReadPages:
    """Import the reader of a format, and with it the library that it needs.

    Args:
        format_name: what `detect_format` returned.

    Returns:
        `read_pages(path, password, limits)`, a generator of `ExtractedPage`s that raises `DocumentError`s.

    Raises:
        ImportError: the library that it needs is not installed.
    """
    return import_module(f"{__name__}.{format_name}").read_pages
