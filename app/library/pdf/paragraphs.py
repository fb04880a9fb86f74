"""From the lines of a block to paragraphs, with the broken words and lines of the typesetter joined.

As `text_cleaning.clean_typeset_page` does with bare lines of text, but by their places: a line was broken by the
typesetter if it fills its column, or if the next line's first word would not have fitted into it.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from app.library.formats.text_cleaning import (
    LIST_ITEM,
    SENTENCE_END,
    clean_characters,
    clean_indented,
    is_prose,
    join_broken_word,
)
from app.library.pdf.layout import Block
from app.library.pdf.lines import Line, is_unspaced

# A column narrower than this, in font sizes, holds labels, verse or entries whose line breaks mean something.
_LEAST_PROSE_WIDTH = 9
_LEAST_FULL_WIDTH = 22
_FULL_SHARE = 0.8
_SENTENCE_FULL_SHARE = 0.95
_SAME_SIZE = 0.12
_WIDEST_PITCH = 1.3
_INDENT = 0.8
_CODE_LINES = 2
_MOST_INDENT = 120
# "3.1.2 Heading", and the dots of a table of contents.
_NUMBERED = re.compile(r"\d{1,2}(?:\.\d{1,2}){1,4}\.?\s+[^\W\d_]")
_LEADERS = re.compile(r"(?:\s?\.){5,}\s*")
_LEADERS_END = re.compile(_LEADERS.pattern + r"[\w\s,\u2013-]{0,60}$")
_LEADERS_REACH = 200
_SOFT_HYPHEN = "\u00ad"


def block_text(block: Block) -> str:
    """The text of one block, a line of text for each paragraph, row or line that stands alone."""
    if block.is_table:
        return "\n".join(clean_characters(line.text.replace(_SOFT_HYPHEN, "")) for line in block.lines)
    texts = []
    for is_code, lines in _without_code(block.lines):
        texts.append(_code_text(lines) if is_code else _flowing_text(lines))
    return "\n".join(texts)


def _without_code(lines: Sequence[Line]) -> list[tuple[bool, list[Line]]]:
    """Stretches of lines, and whether they are typewritten and not prose."""
    stretches = [(is_fixed, list(group)) for is_fixed, group in groupby(lines, key=lambda line: line.is_fixed_pitch)]
    parts: list[tuple[bool, list[Line]]] = []
    for is_fixed, stretch in stretches:
        is_code = is_fixed and len(stretch) >= _CODE_LINES and not _is_flowing(stretch)
        if parts and not is_code and not parts[-1][0]:
            parts[-1][1].extend(stretch)
        else:
            parts.append((is_code, stretch))
    return parts


def _flowing_text(lines: Sequence[Line]) -> str:
    left, right = min(_first_edge(line) for line in lines), max(_last_edge(line) for line in lines)
    pitch, usual_edge = _usual_pitch(lines), _usual_edge(lines)
    texts = [clean_characters(line.text) for line in lines]
    lower_text = " ".join(texts).lower()
    joined = [texts[0]]
    for index in range(1, len(lines)):
        previous, line = lines[index - 1], lines[index]
        is_close = line.baseline - previous.baseline <= max(_WIDEST_PITCH * pitch, 0.2)
        is_same = abs(line.size - previous.size) <= _SAME_SIZE * previous.size
        word = join_broken_word(joined[-1], texts[index], lower_text) if is_same and is_close else None
        if word is not None:
            joined[-1] = word
        elif is_same and is_close and _continues(lines, texts, index, left, right, usual_edge):
            separator = "" if is_unspaced(joined[-1][-1:]) and is_unspaced(texts[index][:1]) else " "
            joined[-1] += separator + texts[index]
        else:
            joined.append(texts[index])
    # Leaders guide the eye; a model pays for each of their dots.
    return "\n".join(_LEADERS.sub(" ... ", text.replace(_SOFT_HYPHEN, "")).rstrip() for text in joined)


def _continues(
    lines: Sequence[Line], texts: Sequence[str], index: int, left: float, right: float, usual_edge: float
) -> bool:
    """Whether a line goes on with the sentence of the line before it."""
    previous, line = lines[index - 1], lines[index]
    width, size = right - left, line.size
    if width < _LEAST_PROSE_WIDTH * size or LIST_ITEM.match(texts[index]) or _NUMBERED.match(texts[index]):
        return False
    if _LEADERS_END.search(texts[index - 1][-_LEADERS_REACH:]):
        return False
    if not (is_prose(texts[index]) or is_unspaced(texts[index][:1]) or len(texts[index].split()) > 2):
        return False
    if _is_new_indent(lines, index, usual_edge):
        return False
    room = right - _last_edge(previous)
    first_word = texts[index].split(" ", 1)[0]
    needed = (line.end - line.start) * (len(first_word) + 1) / max(1, len(texts[index]))
    is_broken = room < (size * 1.05 if is_unspaced(texts[index][:1]) else needed)
    if SENTENCE_END.search(texts[index - 1]):
        return is_broken and _last_edge(previous) - left >= _SENTENCE_FULL_SHARE * width
    if width < _LEAST_FULL_WIDTH * size:
        return is_broken
    return is_broken or _last_edge(previous) - left >= _FULL_SHARE * width


def _is_new_indent(lines: Sequence[Line], index: int, usual_edge: float) -> bool:
    """Whether a line's indentation, or in a list with hanging indents its lack, begins a paragraph."""
    line, previous = lines[index], lines[index - 1]
    indent = _INDENT * line.size
    edge = _first_edge(line)
    if edge - usual_edge >= indent:
        # A line after another that is indented as far may belong to the same verse or quotation.
        return edge - _first_edge(previous) >= indent or bool(SENTENCE_END.search(previous.text))
    return usual_edge - edge >= indent and _first_edge(previous) - edge >= indent


def _usual_edge(lines: Sequence[Line]) -> float:
    """Where most lines begin."""
    edges = sorted(_first_edge(line) for line in lines)
    near = 0.5 * lines[0].size
    return max(edges, key=lambda edge: (sum(abs(other - edge) < near for other in edges), -edge))


def _first_edge(line: Line) -> float:
    return -line.end if line.is_right_to_left else line.start


def _last_edge(line: Line) -> float:
    return -line.start if line.is_right_to_left else line.end


def _usual_pitch(lines: Sequence[Line]) -> float:
    pitches = sorted(after.baseline - before.baseline for before, after in zip(lines, lines[1:], strict=False))
    pitches = [pitch for pitch in pitches if pitch > 0.5 * lines[0].size]
    return pitches[len(pitches) // 2] if pitches else 1.2 * lines[0].size


def _is_flowing(lines: Sequence[Line]) -> bool:
    """Whether typewritten lines are prose: most are full and begin at the same place."""
    if len(lines) < 3:
        return False
    left, right = min(line.start for line in lines), max(line.end for line in lines)
    full = sum(line.end - left >= _FULL_SHARE * (right - left) for line in lines)
    return full >= 0.6 * len(lines) and right - left > _LEAST_FULL_WIDTH * lines[0].size


def _code_text(lines: Sequence[Line]) -> str:
    """Typewritten lines as they stand, with their indentation."""
    left = min(line.start for line in lines)
    texts = []
    for line in lines:
        text = clean_indented(line.text)
        advance = (line.end - line.start) / max(1, len(text))
        indent = min(_MOST_INDENT, round((line.start - left) / advance)) if advance > 0 else 0
        texts.append(" " * indent + text)
    return "\n".join(texts)
