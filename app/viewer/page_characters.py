"""Where the characters of a document page's text stand on the page, told in the render process.

The text comes from another reader, cleaned; the positions come from pdfium. Bringing them together belongs to
`text_alignment`.
"""

from __future__ import annotations

import ctypes
import math
from array import array

import pypdfium2
import pypdfium2.raw as pdfium

from app.viewer.character_boxes import FIELDS, HORIZONTAL, UNITS, nowhere
from app.viewer.filled_in import Box, filled_in_characters
from app.viewer.text_alignment import NOT_FOUND, align

# Beyond, a page is no page that anybody reads.
_MOST_CHARACTERS = 100_000
# If more of the text is not found in the order in which the page draws its characters, another is tried.
_LEFT_SHARE = 0.03
_DEVICE_PX = 10_000_000
# The same character twice this close is drawn twice, to look bold or to cast a shadow.
_SAME_PLACE_SHARE = 0.25


def placed_characters(page: pypdfium2.PdfPage, text: str) -> array[int]:
    """Find the characters of a text on a page.

    Args:
        page: of a PDF.
        text: the app's text of that page.

    Returns:
        For each character of `text` its box, in the form of `character_boxes`.
    """
    found_boxes = nowhere(len(text))
    if len(text) > _MOST_CHARACTERS:
        return found_boxes
    characters, boxes, axes = _drawn_characters(page)
    to_share = _shares_of_page(page)
    shown = [to_share(box) for box in boxes]
    for position, found in enumerate(_found(text, characters, shown)):
        if found != NOT_FOUND:
            left, top, right, bottom = shown[found]
            # What lies outside of the page is not seen.
            if left < right and top < bottom:
                start = position * FIELDS
                found_boxes[start : start + FIELDS] = array("H", (left, top, right, bottom, axes[found]))
    return found_boxes


def _found(text: str, characters: list[str], shown: list[tuple[int, int, int, int]]) -> list[int]:
    """For each character of a text the index of its own on the page, or `NOT_FOUND`."""
    found = align(text, characters)
    rest = [position for position, index in enumerate(found) if index == NOT_FOUND and text[position].isalnum()]
    if len(rest) <= _LEFT_SHARE * len(text):
        return found
    # Tables are drawn by columns and read by rows: what is left may be found in the order of the rows.
    taken = set(found)
    left = _in_rows([index for index in range(len(characters)) if index not in taken], shown)
    of_rest = align([text[position] for position in rest], [characters[index] for index in left])
    for position, index in zip(rest, of_rest, strict=True):
        if index != NOT_FOUND:
            found[position] = left[index]
    return found


def _in_rows(indices: list[int], shown: list[tuple[int, int, int, int]]) -> list[int]:
    """The indices of boxes by the rows that these stand in, from left to right in each."""
    rows: list[list[int]] = []
    row_bottom = -1.0
    for index in sorted(indices, key=lambda index: shown[index][1] + shown[index][3]):
        _, top, _, bottom = shown[index]
        if (top + bottom) / 2 < row_bottom:
            rows[-1].append(index)
        else:
            rows.append([index])
            row_bottom = bottom
    return [index for row in rows for index in sorted(row, key=lambda index: shown[index][0])]


def _drawn_characters(page: pypdfium2.PdfPage) -> tuple[list[str], list[Box], list[int]]:
    """The characters that a page draws, each once; their boxes in its own coordinates; the axes of their lines."""
    text_page = page.get_textpage()
    characters: list[str] = []
    boxes: list[Box] = []
    axes: list[int] = []
    seen: dict[tuple[str, int, int], int] = {}
    turns = page.get_rotation() // 90
    rectangle = pdfium.FS_RECTF()
    reference = ctypes.byref(rectangle)
    raw = text_page.raw
    code_of, box_of, angle_of = (
        pdfium.FPDFText_GetUnicode,
        pdfium.FPDFText_GetLooseCharBox,
        pdfium.FPDFText_GetCharAngle,
    )
    high = 0
    try:
        for index in range(min(text_page.count_chars(), _MOST_CHARACTERS)):
            code = code_of(raw, index)
            if 0xD800 <= code < 0xDC00:
                # Where wide characters have 16 bits, what follows is the other half.
                high = code
                continue
            if 0xDC00 <= code < 0xE000 and high:
                code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00)
            high = 0
            if code <= 32 or code > 0x10FFFF or not box_of(raw, index, reference):
                continue
            box = (rectangle.left, rectangle.bottom, rectangle.right, rectangle.top)
            if not _is_a_box(box):
                continue
            character = chr(code)
            # The letters of a ligature have one box between them.
            if not (boxes and boxes[-1] == box) and _is_drawn_again(seen, character, box):
                continue
            angle = angle_of(raw, index)
            axes.append((round(angle / (math.pi / 2)) + turns) % 2 if math.isfinite(angle) else HORIZONTAL)
            characters.append(character)
            boxes.append(box)
    finally:
        text_page.close()
    for character, box in filled_in_characters(page):
        if _is_a_box(box):
            characters.append(character)
            boxes.append(box)
            axes.append((HORIZONTAL + turns) % 2)
    return characters, boxes, axes


def _is_a_box(box: Box) -> bool:
    return 0 < box[2] - box[0] < math.inf and 0 < box[3] - box[1] < math.inf


def _is_drawn_again(seen: dict[tuple[str, int, int], int], character: str, box: Box) -> bool:
    """Whether the character was drawn in nearly the same place before; notes where it was drawn now."""
    size = _SAME_PLACE_SHARE * min(box[2] - box[0], box[3] - box[1])
    column, row = int((box[0] + box[2]) / 2 / size), int((box[1] + box[3]) / 2 / size)
    width = round(box[2] - box[0], 2)
    for near_column in (column, column - 1, column + 1):
        for near_row in (row, row - 1, row + 1):
            if seen.get((character, near_column, near_row)) == width:
                return True
    seen[character, column, row] = width
    return False


def _shares_of_page(page: pypdfium2.PdfPage):
    """A function from a box in a page's coordinates to left, top, right, bottom of it as the page is shown."""
    origin = _shown(page, 0.0, 0.0)
    along = _shown(page, 1000.0, 0.0)
    across = _shown(page, 0.0, 1000.0)
    # Pages are turned by quarters and shifted: the picture's coordinates are linear in the page's.
    from_x = [(along[axis] - origin[axis]) / 1000 for axis in (0, 1)]
    from_y = [(across[axis] - origin[axis]) / 1000 for axis in (0, 1)]

    def to_share(box: Box) -> tuple[int, int, int, int]:
        ends = []
        for x, y in ((box[0], box[1]), (box[2], box[3])):
            ends.append([origin[axis] + x * from_x[axis] + y * from_y[axis] for axis in (0, 1)])
        (x0, y0), (x1, y1) = ends
        return _units(min(x0, x1)), _units(min(y0, y1)), _units(max(x0, x1)), _units(max(y0, y1))

    return to_share


def _shown(page: pypdfium2.PdfPage, x: float, y: float) -> tuple[float, float]:
    column, row = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page.raw, 0, 0, _DEVICE_PX, _DEVICE_PX, 0, x, y, ctypes.byref(column), ctypes.byref(row))
    return column.value / _DEVICE_PX, row.value / _DEVICE_PX


def _units(share: float) -> int:
    return round(min(1.0, max(0.0, share)) * UNITS)
