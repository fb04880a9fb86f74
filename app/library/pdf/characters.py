"""The characters of a PDF page with their places, through pdfium (pypdfium2).

Knows nothing of words, lines or columns. pdfium also guesses spaces and line ends; those guesses are dropped here,
because what follows decides from geometry. Coordinates of a `Glyph` run along and across the direction of its own text,
so that text of any rotation looks upright to what follows.
"""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium

_BLANKS = frozenset((0x20, 0xA0, 0x09, 0x3000, *range(0x2000, 0x200B), 0x202F, 0x205F))
_LINE_ENDS = frozenset((0x0A, 0x0D))
# pdfium's own mark for a hyphen at a line's end.
_HYPHEN_MARKS = frozenset((0x02, 0xFFFE))
# Bullets of the fonts Symbol and Wingdings, where they come as characters for private use.
_SYMBOL_FONT_BULLETS = {0xF0B7: "\u2022", 0xF0A7: "\u25aa", 0xF0D8: "\u2023", 0xF0FC: "\u2713"}
# Text that leans less than this is taken as upright: scanned pages are never quite straight.
_UPRIGHT_RADIANS = math.radians(6)
# A page beyond this holds no text for a reader; Python objects for each would not fit the memory limit.
_MAXIMUM_CHARACTERS = 400_000
# What a filled-in form and a typed note show is drawn as an annotation.
_SHOWN_ANNOTATIONS = frozenset((pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP))
_MAXIMUM_ANNOTATIONS = 2_000


@dataclass(slots=True)
class Glyph:
    """One drawn glyph; a ligature's letters are one.

    Attributes:
        text: the characters that it stands for; a run of several for a ligature.
        start, end: from where to where it takes up its line, in points along the direction of writing.
        baseline: where its line stands, in points, growing downwards on the page as it is read.
        size: font size as drawn, in points.
        order: its position in the content stream.
        after_space: whether a space character was drawn between the previous glyph and this one.
        is_unmapped: whether the font does not say which character this is, so that `text` is a guess.
    """

    text: str
    start: float
    end: float
    baseline: float
    size: float
    order: int
    after_space: bool
    is_unmapped: bool


class TooManyCharactersError(Exception):
    """A page holds more characters than any reader could want."""


@contextmanager
def open_document(path: Path, password: str | None) -> Iterator[pypdfium2.PdfDocument]:
    """Open a PDF with pdfium, and close it at the end.

    Raises:
        pypdfium2.PdfiumError: pdfium cannot open it.
    """
    document = pypdfium2.PdfDocument(path, password=password)
    try:
        yield document
    finally:
        document.close()


def read_glyphs(document: pypdfium2.PdfDocument, index: int) -> dict[int, list[Glyph]]:
    """Read the glyphs of one page.

    Args:
        document: an open document.
        index: of the page, from 0.

    Returns:
        For each direction of writing (degrees, counterclockwise) its glyphs in the order of the content stream.

    Raises:
        pypdfium2.PdfiumError: the page cannot be loaded. TooManyCharactersError: as its name says.
    """
    page = document[index]
    try:
        if _shows_annotations(page) and pdfium.FPDFPage_Flatten(page.raw, pdfium.FLAT_NORMALDISPLAY) == (
            pdfium.FLATTEN_SUCCESS
        ):
            page.close()
            page = document[index]
        text_page = page.get_textpage()
        try:
            return _glyphs_by_direction(text_page.raw)
        finally:
            text_page.close()
    finally:
        page.close()


def _shows_annotations(page: pypdfium2.PdfPage) -> bool:
    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page.raw), _MAXIMUM_ANNOTATIONS)):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, index)
        if not annotation:
            continue
        subtype = pdfium.FPDFAnnot_GetSubtype(annotation)
        pdfium.FPDFPage_CloseAnnot(annotation)
        if subtype in _SHOWN_ANNOTATIONS:
            return True
    return False


def _glyphs_by_direction(text_page: ctypes.c_void_p) -> dict[int, list[Glyph]]:
    count = pdfium.FPDFText_CountChars(text_page)
    if count > _MAXIMUM_CHARACTERS:
        raise TooManyCharactersError(f"{count:,} characters on one page")
    glyphs: dict[int, list[Glyph]] = {}
    box = pdfium.FS_RECTF()
    x, y = ctypes.c_double(), ctypes.c_double()
    after_space = False
    last_object = last_place = None
    size = cosine = sine = 0.0
    direction = 0
    is_slanted = False
    # Called for each character of a book: looking them up in the module would cost as much as some of them do.
    get_unicode, get_object, get_origin = (
        pdfium.FPDFText_GetUnicode,
        pdfium.FPDFText_GetTextObject,
        pdfium.FPDFText_GetCharOrigin,
    )
    get_box, has_map_error = pdfium.FPDFText_GetLooseCharBox, pdfium.FPDFText_HasUnicodeMapError
    address_of, isfinite = ctypes.c_void_p.from_buffer, math.isfinite
    for index in range(count):
        code = get_unicode(text_page, index)
        if code in _BLANKS or code in _LINE_ENDS:
            after_space = after_space or (code in _BLANKS and pdfium.FPDFText_IsGenerated(text_page, index) != 1)
            continue
        text_object = address_of(get_object(text_page, index)).value
        if text_object != last_object or last_object is None:
            last_object = text_object
            size, angle = _size_and_angle(text_page, index)
            quarter = round(angle / (math.pi / 2))
            is_slanted = abs(angle - quarter * math.pi / 2) > _UPRIGHT_RADIANS
            angle = angle if is_slanted else quarter * math.pi / 2
            direction = round(math.degrees(angle)) % 360
            cosine, sine = math.cos(angle), math.sin(angle)
        if not get_origin(text_page, index, x, y):
            continue
        get_box(text_page, index, box)
        baseline = x.value * sine - y.value * cosine
        if is_slanted:
            start = x.value * cosine + y.value * sine
            end = start + 0.5 * size
        else:
            first = box.left * cosine + box.bottom * sine
            second = box.right * cosine + box.top * sine
            start, end = (first, second) if first <= second else (second, first)
        if not (isfinite(start + end + baseline)):
            continue
        is_unmapped = code == 0 or has_map_error(text_page, index) == 1
        if code in _HYPHEN_MARKS and not is_unmapped:
            text = "-"
        else:
            text = _SYMBOL_FONT_BULLETS.get(code) or chr(code or 0xFFFD)
        group = glyphs.setdefault(direction, [])
        place = (start, end, baseline, last_object)
        if place == last_place and group and not after_space:
            # One glyph that stands for several characters comes as several characters in one place.
            group[-1].text += text
            continue
        last_place = place
        group.append(Glyph(text, start, end, baseline, size, index, after_space, is_unmapped))
        after_space = False
    return glyphs


def _size_and_angle(text_page: ctypes.c_void_p, index: int) -> tuple[float, float]:
    """The size of a character as drawn, in points, and the angle of its line, in radians."""
    matrix = pdfium.FS_MATRIX()
    size = abs(pdfium.FPDFText_GetFontSize(text_page, index)) or 1.0
    if not pdfium.FPDFText_GetMatrix(text_page, index, matrix):
        return size, 0.0
    height = math.hypot(matrix.c, matrix.d)
    return max(size * height, 0.1), math.atan2(matrix.b, matrix.a)
