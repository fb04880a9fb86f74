"""Whether a PDF page shows anything: an image, a filled area, a drawing.

Follows a page's content stream, and the forms that it draws, up to the first thing that leaves a mark. White areas and
rules do not count: word processors paint and print them on empty pages. Looks at no pixel, so a scanned blank sheet is
a picture. Operators: ISO 32000-1, annex A.
"""

from collections.abc import Sequence
from typing import Any

from pypdf import PageObject
from pypdf.generic import ContentStream, DictionaryObject

# A stream of this size is no blank page's, and parsing it would take long.
_LARGE_STREAM_BYTES = 500_000
_FORM_DEPTH = 8
# A rectangle this many times longer than wide is a rule.
_RULE_RATIO = 50
# Images of no more samples are spacers.
_SPACER_SAMPLES = 16

_FILLS = frozenset((b"f", b"F", b"f*", b"B", b"B*", b"b", b"b*"))
_STROKES = frozenset((b"S", b"s", b"B", b"B*", b"b", b"b*"))
_FILL_COLOURS = frozenset((b"g", b"rg", b"k", b"sc", b"scn"))
_STROKE_COLOURS = frozenset((b"G", b"RG", b"K", b"SC", b"SCN"))
# What these three mean by white, by the number of their operands: gray, RGB and CMYK.
_WHITE = {1: (1,), 3: (1, 1, 1), 4: (0, 0, 0, 0)}


def shows_picture(page: PageObject) -> bool:
    """Tell whether a page shows an image or a drawing; its text does not matter.

    Args:
        page: of a PDF that is open.

    Returns:
        True at the first image, shading, or area or line in a colour other than white that is not a mere rule.

    Raises:
        Exception: whatever pypdf raises on content that it cannot parse.
    """
    content = page.get_contents()
    if content is None:
        return False
    return _shows_picture(content, page.get("/Resources"), depth=0)


def _shows_picture(content: ContentStream, resources: Any, depth: int) -> bool:
    if len(content.get_data()) > _LARGE_STREAM_BYTES:
        return True
    fill_is_white = stroke_is_white = False
    kept: list[tuple[bool, bool]] = []
    path_is_area = False
    position = (0.0, 0.0)
    for operands, operator in content.operations:
        if operator == b"q":
            kept.append((fill_is_white, stroke_is_white))
        elif operator == b"Q" and kept:
            fill_is_white, stroke_is_white = kept.pop()
        elif operator in _FILL_COLOURS:
            fill_is_white = _is_white(operands)
        elif operator in _STROKE_COLOURS:
            stroke_is_white = _is_white(operands)
        elif operator == b"re":
            path_is_area |= _is_area(operands)
        elif operator in (b"m", b"l"):
            start, position = position, tuple(operands[:2])
            path_is_area |= operator == b"l" and start[0] != position[0] and start[1] != position[1]
        elif operator in (b"c", b"v", b"y"):
            path_is_area = True
        elif operator == b"n":
            path_is_area = False
        elif operator in _FILLS or operator in _STROKES:
            is_visible = (operator in _FILLS and not fill_is_white) or (operator in _STROKES and not stroke_is_white)
            if path_is_area and is_visible:
                return True
            path_is_area = False
        elif operator in (b"INLINE IMAGE", b"sh"):
            return True
        elif operator == b"Do" and _shows_object(operands, resources, content.pdf, depth):
            return True
    return False


def _is_white(operands: Sequence[Any]) -> bool:
    return tuple(operands) == _WHITE.get(len(operands))


def _is_area(operands: Sequence[Any]) -> bool:
    width, height = abs(operands[2]), abs(operands[3])
    return min(width, height) * _RULE_RATIO > max(width, height)


def _shows_object(operands: Sequence[Any], resources: Any, pdf: Any, depth: int) -> bool:
    """Whether `Do` draws an image, or a form that shows something."""
    objects = _dictionary(_dictionary(resources).get("/XObject"))
    drawn = _dictionary(objects.get(operands[0]))
    if drawn.get("/Subtype") == "/Image":
        return drawn.get("/Width", 0) * drawn.get("/Height", 0) > _SPACER_SAMPLES
    if drawn.get("/Subtype") != "/Form" or depth == _FORM_DEPTH:
        return False
    return _shows_picture(ContentStream(drawn, pdf), drawn.get("/Resources", resources), depth + 1)


def _dictionary(value: Any) -> DictionaryObject:
    found = value.get_object() if value is not None else None
    return found if isinstance(found, DictionaryObject) else DictionaryObject()
