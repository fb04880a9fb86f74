"""The file formats that can be read, and how to tell which one a file is.

The content decides where it speaks (a PDF that is named .txt is read as a PDF), the name where it does not (text and
HTML). Word and PowerPoint files with macros are read like others: nobody looks at their macros.
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
    ".docx": "docx",
    ".docm": "docx",
    ".dotx": "docx",
    ".pptx": "pptx",
    ".pptm": "pptx",
    ".ppsx": "pptx",
    ".odt": "odt",
}
SUPPORTED_SUFFIXES = tuple(FORMAT_BY_SUFFIX)
SUPPORTED_NAMES = (
    "PDF (.pdf), EPUB (.epub), Word (.docx), PowerPoint (.pptx), OpenDocument texts (.odt), web pages (.html, .htm), "
    "text (.txt) and Markdown (.md)"
)

# A PDF may carry other bytes before its header; readers look for it in the first kilobyte.
_HEAD_BYTES = 1024
# An EPUB's first entry is an uncompressed file `mimetype`: a zip header of 30 bytes, the name, the content.
_EPUB_MARK = b"mimetypeapplication/epub+zip"
_EPUB_MARK_START = 30
_ODT_MARK = b"mimetypeapplication/vnd.oasis.opendocument.text"
_ZIP_MARK = b"PK\x03\x04"
# The names of all parts stand at the end of a zip file; of one with thousands of pictures, the last of them.
_TAIL_BYTES = 1 << 18
_PART_FORMATS = ((b"word/document", "docx"), (b"ppt/presentation", "pptx"), (b"xl/workbook", "spreadsheet"))
_ZIPPED_FORMATS = ("epub", "docx", "pptx", "odt")
# What Office puts an encrypted document into, and the entry that says so.
_OLE_MARK = b"\xd0\xcf\x11\xe0"
_ENCRYPTED_ENTRY = "EncryptedPackage".encode("utf-16-le")
_FORMAT_NAMES = {
    "pdf": "a PDF",
    "epub": "an EPUB",
    "docx": "a Word",
    "pptx": "a PowerPoint",
    "odt": "an OpenDocument",
}

_SPREADSHEET_ADVICE = "Print the sheets to a PDF file, and add that."
_ADVICE_BY_SUFFIX = {
    **dict.fromkeys((".doc", ".dot", ".rtf", ".pages"), "Open it in a word processor and save it as .docx or PDF."),
    **dict.fromkeys((".ppt", ".pps"), "Open it in its own program and save it as .pptx or PDF."),
    **dict.fromkeys((".odp", ".key"), "Open it in its own program and export it as PDF."),
    **dict.fromkeys((".xls", ".xlsx", ".xlsm", ".ods", ".numbers", ".csv"), _SPREADSHEET_ADVICE),
    **dict.fromkeys((".mobi", ".azw", ".azw3", ".fb2", ".lit"), "Convert it to EPUB, for example with Calibre."),
    **dict.fromkeys((".djvu", ".ps", ".eps"), "Convert it to PDF."),
    **dict.fromkeys(
        (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".heic", ".gif"),
        "A picture has no text: turn it into a PDF with text recognition, for example with ocrmypdf.",
    ),
    **dict.fromkeys((".zip", ".rar", ".7z", ".gz"), "Unpack it and add the documents in it."),
}
_FOREIGN_CONTENT = (
    (_ZIP_MARK, "a ZIP archive or an office document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"{\\rtf", "an RTF document"),
    (_OLE_MARK, "an old office document (.doc, .ppt)"),
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
        UnsupportedFormatError: neither content nor name is of a supported format, or it needs a password that cannot
            be used here.
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
    if head.startswith(_ZIP_MARK) and (found_format := _zipped_format(path, head, suffix)):
        return found_format
    if head.startswith(_OLE_MARK) and FORMAT_BY_SUFFIX.get(suffix) in ("docx", "pptx"):
        _refuse_encrypted(path)
    if suffix not in FORMAT_BY_SUFFIX:
        advice = _ADVICE_BY_SUFFIX.get(suffix, "Convert it to one of these, or rename it if its ending is wrong.")
        raise UnsupportedFormatError(
            f'"{path.name}" is in a format that cannot be read. Supported are {SUPPORTED_NAMES}. {advice}'
        )
    found = next((name for mark, name in _FOREIGN_CONTENT if head.startswith(mark)), None)
    if name := _FORMAT_NAMES.get(FORMAT_BY_SUFFIX[suffix]):
        if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
            # What a shop or a proxy sends in place of the book.
            found = "a web page"
        raise DamagedDocumentError(
            f'"{path.name}" is not {name} file'
            f"{f': it is {found}' if found else ', although its name says so'}. "
            "It may be damaged or only partly downloaded: get it again, or correct its name."
        )
    if found:
        raise DamagedDocumentError(
            f'"{path.name}" does not contain text: it is {found}. Correct its name, or convert it to a PDF.'
        )
    return FORMAT_BY_SUFFIX[suffix]


def _zipped_format(path: Path, head: bytes, suffix: str) -> str | None:
    """The format of a zip file, by the names of its parts; None if it is none that is read."""
    if head[_EPUB_MARK_START:].startswith(_EPUB_MARK):
        return "epub"
    if head[_EPUB_MARK_START:].startswith(_ODT_MARK):
        return "odt"
    # Not with `zipfile`: this process must not take apart what comes from anywhere.
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        names = head + file.read(_TAIL_BYTES)
    found = next((name for part, name in _PART_FORMATS if part in names), None)
    if found == "spreadsheet":
        raise UnsupportedFormatError(
            f'"{path.name}" is a spreadsheet, which cannot be read. Supported are {SUPPORTED_NAMES}. '
            f"{_SPREADSHEET_ADVICE}"
        )
    named = FORMAT_BY_SUFFIX.get(suffix)
    return found or (named if named in _ZIPPED_FORMATS else None)


def _refuse_encrypted(path: Path) -> None:
    with path.open("rb") as file:
        before = b""
        while block := file.read(_TAIL_BYTES):
            if _ENCRYPTED_ENTRY in before + block:
                raise UnsupportedFormatError(
                    f'"{path.name}" is protected with a password and cannot be opened here. Open it in its own '
                    "program, save it without a password, and add that."
                )
            before = block[-len(_ENCRYPTED_ENTRY) :]


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
