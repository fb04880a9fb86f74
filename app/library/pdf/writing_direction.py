"""From the order in which a line stands on the page to the order in which it is read.

A PDF keeps glyphs where they stand. A line of Hebrew or Arabic is read from the right, but numbers and Latin words in
it from the left; this undoes what the Unicode bidirectional algorithm (UAX 9) does for display, for one level of
embedding.
"""

import unicodedata
from collections.abc import Sequence

_RIGHT_TO_LEFT = ("R", "AL")
_NUMBERS = ("EN", "AN")
# Separators of numbers, which stay inside them.
_NUMBER_PARTS = ("ES", "CS")


def is_right_to_left_line(units: Sequence[str]) -> bool:
    """Whether more letters of a line are written from right to left than from left to right."""
    right = left = 0
    for unit in units:
        for character in unit:
            direction = unicodedata.bidirectional(character)
            right += direction in _RIGHT_TO_LEFT
            left += direction == "L"
    return right > left


def reading_order(units: Sequence[str]) -> list[str]:
    """Put the units of a line that is written from right to left into the order of reading.

    Args:
        units: the line's glyphs and spaces from left to right; a unit of several characters (a ligature) is in reading
            order within itself.

    Returns:
        The units from first to last; brackets are turned where the glyphs show the mirrored ones.
    """
    kinds = [_kind(unit) for unit in units]
    _settle_neutrals(kinds)
    ordered: list[str] = []
    position = len(units) - 1
    while position >= 0:
        if kinds[position] == "right":
            ordered.append(units[position])
            position -= 1
            continue
        first = position
        while first > 0 and kinds[first - 1] == "left":
            first -= 1
        ordered.extend(units[first : position + 1])
        position = first - 1
    return _turn_brackets(ordered)


def _kind(unit: str) -> str:
    direction = unicodedata.bidirectional(unit[0])
    if direction in _RIGHT_TO_LEFT or direction == "NSM":
        return "right"
    if direction == "L":
        return "left"
    if direction in _NUMBERS:
        return "number"
    if direction == "ET":
        return "number sign"
    return "number part" if direction in _NUMBER_PARTS else "neutral"


def _settle_neutrals(kinds: list[str]) -> None:
    """Make every kind "left" or "right": separators go with numbers on both sides, blanks with Latin on both sides."""
    _settle_signs(kinds)
    position = 0
    while position < len(kinds):
        if kinds[position] not in ("neutral", "number part"):
            position += 1
            continue
        end = position
        while end < len(kinds) and kinds[end] in ("neutral", "number part"):
            end += 1
        before = kinds[position - 1] if position else "right"
        after = kinds[end] if end < len(kinds) else "right"
        only_parts = all(kind == "number part" for kind in kinds[position:end])
        joins_numbers = "number" in (before, after) and only_parts and "right" not in (before, after)
        joins_latin = "left" in (before, after) and before != "right" and after != "right"
        kind = "left" if joins_numbers or joins_latin else "right"
        kinds[position:end] = [kind] * (end - position)
        position = end
    for index, kind in enumerate(kinds):
        if kind == "number":
            kinds[index] = "left"


def _settle_signs(kinds: list[str]) -> None:
    """Make per cent and currency signs part of the number that they touch, and neutral elsewhere."""
    for positions in (range(1, len(kinds)), range(len(kinds) - 2, -1, -1)):
        step = positions.step
        for position in positions:
            if kinds[position] == "number sign" and kinds[position - step] == "number":
                kinds[position] = "number"
    kinds[:] = ["neutral" if kind == "number sign" else kind for kind in kinds]


_MIRRORED = {"(": ")", ")": "(", "[": "]", "]": "[", "{": "}", "}": "{"}
_OPENING = "([{"


def _turn_brackets(units: list[str]) -> list[str]:
    """Let brackets open before they close: pdfium mirrors some that stand in such lines, and not others."""
    turned = list(units)
    for opening, closing in ("()", "[]", "{}"):
        places = [place for place, unit in enumerate(units) if unit in (opening, closing)]
        found = [units[place] for place in places]
        pairs = len(found) // 2
        if len(found) % 2 or _balance(found) == pairs:
            continue
        mirrored = [_MIRRORED[unit] for unit in found]
        for place, unit in zip(
            places, mirrored if _balance(mirrored) == pairs else [opening, closing] * pairs, strict=True
        ):
            turned[place] = unit
    return turned


def _balance(brackets: list[str]) -> int:
    """How many brackets close one that was open."""
    is_open = closed = 0
    for bracket in brackets:
        if bracket in _OPENING:
            is_open += 1
        elif is_open:
            is_open -= 1
            closed += 1
    return closed
