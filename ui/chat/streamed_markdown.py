"""An answer's markdown while it is being written: what cannot be drawn yet as it will stand is held back.

A table whose head is not complete would stand there as a line of bars and then leap into a table, a formula without its
end as raw TeX. Of a fence that is open nothing has to wait: code grows line by line.
"""

from __future__ import annotations

import re

from ui.chat.answer_markers import fences, with_room_for_marks
from ui.chat.safe_markdown import safe_markdown

# A head, the line below it, and the first row.
_LEAST_TABLE_LINES = 3
# What has waited for so long is no formula.
_MOST_HELD_CHARACTERS = 600
_ROW = re.compile(r"[ \t>]*\|")
_BEGUN_FENCE = re.compile(r"[ \t>]*[`~]{1,2}$")
_OPENINGS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"))


def streamed_markdown(answer: str) -> str:
    """What can be shown of an answer that goes on, as safe markdown."""
    _, open_fence = fences(answer)
    return safe_markdown(with_room_for_marks(answer if open_fence else _settled(answer)))


def _settled(text: str) -> str:
    """The beginning of a text that will look the same with more after it."""
    return _without_begun_formula(_without_begun_rows(text))


def _without_begun_rows(text: str) -> str:
    """Without the row of a table that is being written, and without a table that has no row yet."""
    *lines, begun = text.split("\n")
    if _BEGUN_FENCE.fullmatch(begun):
        return "\n".join(lines)
    if begun.strip() and not _ROW.match(begun):
        return text
    rows = 0
    while rows < len(lines) and _ROW.match(lines[-1 - rows]):
        rows += 1
    is_table = rows >= _LEAST_TABLE_LINES
    return "\n".join(lines if is_table or not rows else lines[:-rows])


def _without_begun_formula(text: str) -> str:
    paragraph = text.rfind("\n\n") + 1
    for opening, closing in _OPENINGS:
        begun = text.rfind(opening, paragraph)
        if opening == closing:
            is_open = text.count(opening, paragraph) % 2 == 1
        else:
            is_open = begun >= 0 and text.find(closing, begun) < 0
        if is_open and len(text) - begun < _MOST_HELD_CHARACTERS:
            return text[:begun].rstrip(" ")
    return text
