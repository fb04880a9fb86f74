"""What has been written into a PDF page's form fields and typed over it: pdfium's text of a page leaves it out.

Of each letter only the field is known. For the render process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import pypdfium2
import pypdfium2.raw as pdfium

Box = tuple[float, float, float, float]

_MOST_FIELDS = 5000
_MOST_BYTES = 20_000


def filled_in_characters(page: pypdfium2.PdfPage) -> Iterator[tuple[str, Box]]:
    """The characters of a page's form fields and typed notes, with the boxes of these, in the page's coordinates."""
    rectangle = pdfium.FS_RECTF()
    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page.raw), _MOST_FIELDS)):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, index)
        if not annotation:
            continue
        try:
            text = _text_of(page, annotation)
            if text and pdfium.FPDFAnnot_GetRect(annotation, ctypes.byref(rectangle)):
                box = (rectangle.left, rectangle.bottom, rectangle.right, rectangle.top)
                yield from ((character, box) for character in text if not character.isspace())
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _text_of(page: pypdfium2.PdfPage, annotation: pdfium.FPDF_ANNOTATION) -> str:
    if pdfium.FPDFAnnot_GetFlags(annotation) & pdfium.FPDF_ANNOT_FLAG_HIDDEN:
        return ""
    kind = pdfium.FPDFAnnot_GetSubtype(annotation)
    if kind == pdfium.FPDF_ANNOT_FREETEXT:
        return _written(lambda *buffer: pdfium.FPDFAnnot_GetStringValue(annotation, b"Contents", *buffer))
    if kind == pdfium.FPDF_ANNOT_WIDGET and page.formenv:
        return _written(lambda *buffer: pdfium.FPDFAnnot_GetFormFieldValue(page.formenv.raw, annotation, *buffer))
    return ""


def _written(write: Callable[..., int]) -> str:
    """What a function of pdfium writes, as UTF-16, into a buffer of so many bytes; it returns how many there are."""
    size_bytes = write(None, 0)
    if not 2 < size_bytes <= _MOST_BYTES:
        return ""
    buffer = ctypes.create_string_buffer(size_bytes)
    write(ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size_bytes)
    return buffer.raw.decode("utf-16-le", "replace").rstrip("\0")
