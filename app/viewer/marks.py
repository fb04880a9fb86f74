"""Boxes around the characters of a passage, one for each line that it stands on."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from app.viewer.character_boxes import FIELDS, HORIZONTAL, NOWHERE, UNITS, VERTICAL

Box = tuple[float, float, float, float]

# Characters are on one line if their boxes share so much of the lower one's height.
_LINE_OVERLAP_SHARE = 0.5
# And no further apart than so many heights: beyond is another column.
_MOST_SPACE_HEIGHTS = 2.0
# If less of the letters of a passage are found, they are found by chance, or the page shows something else.
_LEAST_FOUND_SHARE = 0.3
# A passage of more lines than this share of its characters runs the other way.
_MOST_LINES_SHARE = 0.5
# Lines are joined with each other where they are few: a page has no more.
_MOST_JOINED_LINES = 200


@dataclass
class _Line:
    """A stretch of a line: its ends along the line, and across it, both in heights of the page."""

    axis: int
    start: float
    end: float
    top: float
    bottom: float

    def takes(self, other: _Line) -> bool:
        """Whether another stretch belongs to the same line, and is near."""
        lower = min(self.bottom - self.top, other.bottom - other.top)
        overlap = min(self.bottom, other.bottom) - max(self.top, other.top)
        space = max(self.start, other.start) - min(self.end, other.end)
        return (
            self.axis == other.axis
            and overlap >= _LINE_OVERLAP_SHARE * lower
            and space <= _MOST_SPACE_HEIGHTS * max(self.bottom - self.top, other.bottom - other.top)
        )

    def take(self, other: _Line) -> None:
        """Become the stretch that covers both."""
        self.start, self.end = min(self.start, other.start), max(self.end, other.end)
        self.top, self.bottom = min(self.top, other.top), max(self.bottom, other.bottom)


def line_boxes(text: str, character_boxes: array[int], aspect: float, start: int, end: int) -> list[Box]:
    """Boxes around some characters of a text.

    Args:
        text: of a document page.
        character_boxes: of its characters, see the module of that name.
        aspect: the page's width over its height.
        start, end: which characters, end excluded.

    Returns:
        Left, top, right, bottom as shares of the page's width and height, in the order of the text. Nothing if too few
        of the characters have a box.
    """
    characters: list[tuple[Box, int]] = []
    letters = found = 0
    for position in range(max(0, start), min(end, len(text))):
        *box, axis = character_boxes[position * FIELDS : (position + 1) * FIELDS]
        letters += text[position].isalnum()
        if axis == NOWHERE:
            continue
        found += text[position].isalnum()
        left, top, right, bottom = (value / UNITS for value in box)
        characters.append(((left * aspect, top, right * aspect, bottom), axis))
    if found < _LEAST_FOUND_SHARE * letters:
        return []
    lines = _lines(characters)
    if len(lines) > _MOST_LINES_SHARE * len(characters):
        # Upright characters may be written downwards, as in Japanese.
        turned = _lines([(box, VERTICAL if axis == HORIZONTAL else HORIZONTAL) for box, axis in characters])
        lines = min(lines, turned, key=len)
    return [_box(line, aspect) for line in _joined(lines)]


def _lines(characters: list[tuple[Box, int]]) -> list[_Line]:
    """Stretches of lines, from the boxes of characters, in heights of the page, and the axes of their lines."""
    lines: list[_Line] = []
    for (left, top, right, bottom), axis in characters:
        here = _Line(axis, top, bottom, left, right) if axis == VERTICAL else _Line(axis, left, right, top, bottom)
        if lines and lines[-1].takes(here):
            lines[-1].take(here)
        else:
            lines.append(here)
    return lines


def _joined(lines: list[_Line]) -> list[_Line]:
    """Stretches of one line as one, also where the text does not run along it."""
    if len(lines) > _MOST_JOINED_LINES:
        return lines
    joined: list[_Line] = []
    for line in lines:
        for other in joined:
            if other.takes(line):
                other.take(line)
                break
        else:
            joined.append(line)
    return joined


def _box(line: _Line, aspect: float) -> Box:
    if line.axis == VERTICAL:
        box = (line.top / aspect, line.start, line.bottom / aspect, line.end)
    else:
        box = (line.start / aspect, line.top, line.end / aspect, line.bottom)
    left, top, right, bottom = (round(min(1.0, value), 5) for value in box)
    return left, top, right, bottom
