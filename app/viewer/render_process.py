"""The process that renders PDF pages: `python -m app.viewer.render_process`.

Takes a JSON line on stdin a request, and answers each with a JSON line on stdout, which may say how many bytes follow
it. It lives for many requests and keeps the documents used last open. It puts itself under memory and CPU limits and
ends with its parent, which watches the clock and kills it. What is asked is said at the functions below.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import sys
import time
from collections import OrderedDict
from io import BytesIO
from typing import Any, BinaryIO

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from app.limited_process import end_with_starter, limit_this_process
from app.viewer.page_characters import placed_characters

MEMORY_BYTES = 1 << 30
# Over the life of the process, which its parent replaces before.
CPU_S = 1200
# A page of 200 inches at a useful width, and one of one point, are both pages of a PDF.
_MOST_SIDE_PX = 10_000
_MOST_PIXELS = 16_000_000
# Text stays crisp, in colour too, and it takes a tenth of WebP's time; over the loopback bytes cost nothing.
_JPEG = {"quality": 90, "subsampling": 0}
_OPEN_DOCUMENTS = 2
_NO_FORM = 0
_MEMORY_PAGE_BYTES = mmap.PAGESIZE


class _Refusal(Exception):
    """A request cannot be answered; the reason is one of "locked", "missing", "damaged", "no_page", "too_large"."""


_documents: OrderedDict[str, pypdfium2.PdfDocument] = OrderedDict()


def main() -> None:
    """Answer requests until stdin ends."""
    # What a library prints must not get between the answers.
    requests, answers, sys.stdout = sys.stdin.buffer, sys.stdout.buffer, sys.stderr
    logging.disable(logging.CRITICAL)
    end_with_starter()
    # Libraries are loaded: they are trusted, and must not count against the limits.
    Image.preinit()
    limit_this_process(MEMORY_BYTES, CPU_S)
    for line in requests:
        _answer(answers, json.loads(line))


def _answer(answers: BinaryIO, request: dict[str, Any]) -> None:
    payload = b""
    try:
        answer, payload = _ANSWERS[request["kind"]](request)
    except _Refusal as refusal:
        answer = {"error": str(refusal)}
    except (MemoryError, Image.DecompressionBombError):
        answer = {"error": "too_large"}
    except Exception:
        # pypdfium2 raises a handful of kinds on malformed files.
        answer = {"error": "damaged"}
    answer |= {"bytes": len(payload), "cpu_s": int(time.process_time()), "memory_bytes": _memory_bytes()}
    answers.write(json.dumps(answer).encode() + b"\n" + payload)
    answers.flush()


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


def _memory_bytes() -> int:
    """The memory that this process has; 0 where that is not told."""
    # Not `getrusage`: what that calls the most it ever had is what its parent had when it was started.
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _MEMORY_PAGE_BYTES
    except OSError:
        return 0


_ANSWERS = {"pages": _pages, "image": _image, "characters": _characters}


def _document(path: str) -> pypdfium2.PdfDocument:
    if path in _documents:
        _documents.move_to_end(path)
        return _documents[path]
    while len(_documents) >= _OPEN_DOCUMENTS:
        _documents.popitem(last=False)[1].close()
    try:
        document = pypdfium2.PdfDocument(path)
    except FileNotFoundError as error:
        raise _Refusal("missing") from error
    except pypdfium2.PdfiumError as error:
        is_locked = getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD
        raise _Refusal("locked" if is_locked else "damaged") from error
    if document.get_formtype() != _NO_FORM:
        # What has been filled in is part of the page.
        document.init_forms()
    _documents[path] = document
    return document


def _page(path: str, index: int) -> pypdfium2.PdfPage:
    document = _document(path)
    if not 0 <= index < len(document):
        raise _Refusal("no_page")
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
        raise _Refusal("damaged")
    return min(width_px / width, _MOST_SIDE_PX / height, math.sqrt(_MOST_PIXELS / (width * height)))


if __name__ == "__main__":
    main()
