"""Text of PDF pages that are pictures, or whose text layer says nothing: rendered, and recognised by Tesseract (OCR).

Runs in the reader process: the pages are rendered with pypdfium2 and handed to `tesseract - -` one by one, each within
a time limit. Knows nothing of how the other pages are read.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pypdfium2

from app.library.errors import DocumentError, NoTextError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.text_cleaning import clean_typeset_page
from app.library.tesseract import TextRecognition
from app.parent_process import end_with_parent

_DPI = 300
_POINTS_AN_INCH = 72
# Of a picture of a page; a poster is rendered with fewer dots an inch.
_MOST_PIXELS = 30_000_000
_PAGE_S = 60.0
# Words that it is less sure of on the average are no text, but what it sees in a photograph.
_LEAST_CONFIDENCE = 45.0
_NICENESS = 10
# Tesseract's table: level, page, block, paragraph, line, word, place and size (4), confidence, text.
_COLUMNS = 12
_WORD_LEVEL = "5"


def recognised_pages(
    pages: Iterator[ExtractedPage], path: Path, password: str | None, recognition: TextRecognition
) -> Iterator[ExtractedPage]:
    """Recognise the text of those pages that have none.

    Args:
        pages: all pages of a PDF in their order, as its reader finds them.
        path, password: of the PDF.
        recognition: how.

    Yields:
        The pages, those with recognised text with `is_recognised=True`; where none was found, as they were.

    Raises:
        NoTextError: no page has text, or text that could be recognised.
        DocumentError: Tesseract fails. Whatever `pages` raises.
    """
    with suppress(OSError, AttributeError):
        # An answer that is being made goes first.
        os.nice(_NICENESS)
    recogniser = _Recogniser(path, password, recognition)
    count, has_recognised = 0, False
    try:
        for page in pages:
            if page.is_picture or page.is_garbled:
                page = recogniser.recognised(page, count)
                has_recognised |= page.is_recognised
            count += 1
            yield page
    except NoTextError:
        # A scan; its reader may have told that before it gave out its pages.
        for index in range(count, recogniser.page_count):
            blank = ExtractedPage(recogniser.label(index), "", index + 1, recogniser.page_count, is_picture=True)
            page = recogniser.recognised(blank, index)
            has_recognised |= page.is_recognised
            yield page
        if not has_recognised:
            raise NoTextError(
                f'No text was recognised in "{path.name}" (languages: {recognition.languages}). Choose other languages '
                "with --ocr-languages, or scan it anew with more contrast."
            ) from None
    recogniser.check()


class _Recogniser:
    """Renders and recognises pages of one PDF.

    Args:
        path, password: of the PDF.
        recognition: how.
    """

    def __init__(self, path: Path, password: str | None, recognition: TextRecognition) -> None:
        self._name = path.name
        self._recognition = recognition
        self._failures: list[str] = []
        self._has_run = False
        self.page_count = 0
        try:
            self._document = pypdfium2.PdfDocument(path, password=password)
            self.page_count = len(self._document)
        except pypdfium2.PdfiumError as error:
            # Its reader may manage where pdfium does not, or knows what to say of it.
            self._failures.append(str(error))

    def label(self, index: int) -> str:
        """What the PDF calls a page."""
        return self._document.get_page_label(index).strip() or str(index + 1)

    def recognised(self, page: ExtractedPage, index: int) -> ExtractedPage:
        """The page with the text that is recognised in it, or as it was."""
        if index >= self.page_count:
            return page
        try:
            picture, dots_an_inch = self._rendered(index)
        except (pypdfium2.PdfiumError, ValueError) as error:
            self._failures.append(str(error))
            return page
        table = self._table(picture, dots_an_inch)
        text = clean_typeset_page(_text_of(table), page.label.lower(), str(index + 1))
        if not any(map(str.isalnum, text)):
            return page
        return replace(page, text=text, is_picture=False, is_garbled=False, is_recognised=True)

    def check(self) -> None:
        """Raise a `DocumentError` if Tesseract has failed at every page."""
        if self._failures and not self._has_run:
            raise DocumentError(
                f'The text of "{self._name}" could not be recognised: {self._failures[0]}. Check that Tesseract works.'
            )

    def _rendered(self, index: int) -> tuple[bytes, int]:
        """A page as a grey picture in the PGM format, and its dots an inch."""
        page = self._document[index]
        try:
            width, height = page.get_size()
            fitting = math.sqrt(_MOST_PIXELS / max(1.0, width * height)) * _POINTS_AN_INCH
            dots_an_inch = max(1, min(_DPI, int(fitting)))
            bitmap = page.render(scale=dots_an_inch / _POINTS_AN_INCH, grayscale=True)
            try:
                rows = memoryview(bitmap.buffer).cast("B")
                header = f"P5 {bitmap.width} {bitmap.height} 255\n".encode()
                lines = (rows[y * bitmap.stride : y * bitmap.stride + bitmap.width] for y in range(bitmap.height))
                return header + b"".join(lines), dots_an_inch
            finally:
                bitmap.close()
        finally:
            page.close()

    def _table(self, picture: bytes, dots_an_inch: int) -> str:
        recognition = self._recognition
        # 1: which way up it is, too; 3: its parts and their order alone.
        mode = "1" if recognition.finds_orientation else "3"
        command = [recognition.program, "-", "-", "-l", recognition.languages, "--psm", mode]
        command += ["--dpi", str(dots_an_inch), "tsv"]
        # One thread is as fast, and leaves the others to the model.
        environment = os.environ | {"OMP_THREAD_LIMIT": "1"}
        is_tied = sys.platform == "linux"
        try:
            done = subprocess.run(
                command,
                input=picture,
                capture_output=True,
                timeout=_PAGE_S,
                env=environment,
                preexec_fn=partial(end_with_parent, os.getpid()) if is_tied else None,
            )
        except subprocess.TimeoutExpired:
            self._failures.append(f"Tesseract took longer than {_PAGE_S:g} seconds for a page")
            return ""
        except OSError as error:
            self._failures.append(f"Tesseract does not run: {error}")
            return ""
        if done.returncode != 0:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            self._failures.append(f"Tesseract says: {told[-1] if told else f'status {done.returncode}'}")
            return ""
        self._has_run = True
        return done.stdout.decode("utf-8", "replace")


def _text_of(table: str) -> str:
    """The text in Tesseract's table of words: lines, and empty lines between paragraphs; "" if it is a guess."""
    lines: list[list[str]] = []
    places: list[list[str]] = []
    confidences: list[float] = []
    for row in table.splitlines():
        cells = row.split("\t", _COLUMNS - 1)
        if len(cells) < _COLUMNS or cells[0] != _WORD_LEVEL or not cells[-1].strip():
            continue
        # Block, paragraph and line.
        place = cells[2:5]
        if not places or place != places[-1]:
            lines.append([])
            places.append(place)
        lines[-1].append(cells[-1].strip())
        with suppress(ValueError):
            confidences.append(float(cells[10]))
    if not confidences or sum(confidences) / len(confidences) < _LEAST_CONFIDENCE:
        return ""
    text = ""
    for index, words in enumerate(lines):
        is_new = index > 0 and places[index][:2] != places[index - 1][:2]
        text += ("" if not index else "\n\n" if is_new else "\n") + " ".join(words)
    return text
