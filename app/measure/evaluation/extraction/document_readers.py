"""The readers of PDF that `eval documents` compares: this project's, and what it could have taken instead.

The rivals run in this process, without limits: they are for files that one trusts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from app.library import DocumentError, read_document
from app.library.formats.text_cleaning import clean_typeset_page

ReadTexts = Callable[[Path], list[str]]


def read_ours(path: Path) -> list[str]:
    """What the app has of a document: the text of each of its pages; nothing where it refuses the file."""
    try:
        return [page.text for page in read_document(path).document_pages]
    except DocumentError:
        return []


def read_pypdf_plain(path: Path) -> list[str]:
    """pypdf's text as it comes, its lines joined by their lengths: what the app used before."""
    return _read_pypdf(path, "plain")


def read_pypdf_layout(path: Path) -> list[str]:
    """pypdf's text in the places where it stands."""
    return _read_pypdf(path, "layout")


def _read_pypdf(path: Path, mode: str) -> list[str]:
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    texts = []
    try:
        reader = PdfReader(path)
        if reader.is_encrypted:
            reader.decrypt("")
        count = len(reader.pages)
    except Exception:
        return []
    for index in range(count):
        try:
            text = reader.pages[index].extract_text(extraction_mode=mode)
        except Exception:
            # One page that fails costs the others nothing, in the app neither.
            text = ""
        texts.append(clean_typeset_page(text, str(index + 1)))
    return texts


def read_pdfium(path: Path) -> list[str]:
    """pdfium's own text of each page, its lines joined by their lengths."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError:
        return []
    texts = []
    for index in range(len(document)):
        try:
            page = document[index]
        except pypdfium2.PdfiumError:
            texts.append("")
            continue
        text_page = page.get_textpage()
        text = text_page.get_text_range().replace("\x02", "-").replace("\ufffe", "-")
        texts.append(clean_typeset_page(text, str(index + 1)))
        text_page.close()
        page.close()
    document.close()
    return texts


PDF_READERS: dict[str, ReadTexts] = {
    "ours": read_ours,
    "pypdf plain": read_pypdf_plain,
    "pypdf layout": read_pypdf_layout,
    "pdfium text": read_pdfium,
}
