"""What the render process is asked for: sizes and pictures of a PDF's pages, and where their characters stand.

Each function of `ANSWERS` takes a request and returns an answer, which can be written as JSON, and the bytes that
belong to it. The documents that were asked for last stay open. Only for a process that may hang, swell and crash.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from io import BytesIO
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from app.viewer.page_characters import placed_characters

# A page of 200 inches at a useful width, and one of one point, are both pages of a PDF.
_MOST_SIDE_PX = 10_000
_MOST_PIXELS = 16_000_000
# Text stays crisp, in colour too, and it takes a tenth of WebP's time; over the loopback bytes cost nothing.
_JPEG = {"quality": 90, "subsampling": 0}
_OPEN_DOCUMENTS = 2
_NO_FORM = 0

_documents: OrderedDict[str, pypdfium2.PdfDocument] = OrderedDict()


class Refusal(Exception):
    """A request cannot be answered; the reason is one of "locked", "missing", "damaged", "no_page", "too_large"."""


def load_all() -> None:
    """Load what is loaded with the first picture otherwise."""
    Image.preinit()


def _pages(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Request: path. Answer: width and height of each page in points, rotated as it is shown."""
    document = _document(request["path"])
    return {"sizes": [_size(document, index) for index in range(len(document))]}, b""


def _image(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Request: path, page, width in pixels. Answer: the page as a JPEG, smaller where it would be too large."""
    page = _page(request["path"], request["page"])
    try:
        # What is a hair below a whole number is rounded up to it.
        scale = _scale(page, request["width"]) * (1 - 1e-9)
        bitmap = page.render(scale=scale, rev_byteorder=True)
        try:
            image = bitmap.to_pil().convert("RGB")
        finally:
            bitmap.close()
    finally:
        page.close()
    written = BytesIO()
    image.save(written, "JPEG", **_JPEG)
    return {}, written.getvalue()


def _characters(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Request: path, page, text. Answer: where each character of the text stands; see `placed_characters`."""
    page = _page(request["path"], request["page"])
    try:
        width, height = page.get_size()
        return {"aspect": width / height}, placed_characters(page, request["text"]).tobytes()
    finally:
        page.close()


def _document(path: str) -> pypdfium2.PdfDocument:
    if path in _documents:
        _documents.move_to_end(path)
        return _documents[path]
    while len(_documents) >= _OPEN_DOCUMENTS:
        _documents.popitem(last=False)[1].close()
    try:
        document = pypdfium2.PdfDocument(path)
    except FileNotFoundError as error:
        raise Refusal("missing") from error
    except pypdfium2.PdfiumError as error:
        is_locked = getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD
        raise Refusal("locked" if is_locked else "damaged") from error
    if document.get_formtype() != _NO_FORM:
        # What has been filled in is part of the page.
        document.init_forms()
    _documents[path] = document
    return document


def _page(path: str, index: int) -> pypdfium2.PdfPage:
    document = _document(path)
    if not 0 <= index < len(document):
        raise Refusal("no_page")
    return document[index]


def _size(document: pypdfium2.PdfDocument, index: int) -> tuple[float, float]:
    try:
        width, height = document.get_page_size(index)
    except pypdfium2.PdfiumError:
        return 0.0, 0.0
    is_a_size = math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0
    return (round(width, 2), round(height, 2)) if is_a_size else (0.0, 0.0)


def _scale(page: pypdfium2.PdfPage, width_px: int) -> float:
    """Pixels a point."""
    width, height = page.get_size()
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0):
        raise Refusal("damaged")
    return min(width_px / width, _MOST_SIDE_PX / height, math.sqrt(_MOST_PIXELS / (width * height)))


ANSWERS = {"pages": _pages, "image": _image, "characters": _characters}
