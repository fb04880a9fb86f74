"""How rows of tables and items of lists are written in plain text, whatever format they come from."""

from collections.abc import Sequence

CELL_SEPARATOR = " | "
BULLET = "•"
_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
    (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip


def row_line(cells: Sequence[str]) -> str:
    """One row of a table as a line; empty cells keep their place, but those at the end.

    Args:
        cells: the cells' texts; line breaks in them become blanks.
    """
    texts = [" ".join(cell.split()) for cell in cells]
    while texts and not texts[-1]:
        texts.pop()
    return CELL_SEPARATOR.join(texts).replace("|  |", "| |").lstrip()


def letters(number: int) -> str:
    """1 as "a", 26 as "z", 27 as "aa"; "" below 1."""
    text = ""
    while number > 0:
        number, letter = divmod(number - 1, 26)
        text = chr(ord("a") + letter) + text
    return text


def roman(number: int) -> str:
    """A number from 1 to 3,999 in lower-case Roman numerals; others as they are."""
    if not 0 < number < 4000:
        return str(number)
    text = ""
    for value, numeral in _ROMAN:
        count, number = divmod(number, value)
        text += numeral * count
    return text
