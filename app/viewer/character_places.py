"""How the places of characters on a document page travel from the render process: a row of numbers for each.

Left, top, right and bottom, as shares of the page's width and height in 1/`UNITS`, and the axis that its line runs
along. Unsigned, 16 bits each.
"""

from __future__ import annotations

from array import array

FIELDS = 5
UNITS = 65_000
HORIZONTAL, VERTICAL, NOWHERE = 0, 1, 2


def nowhere(characters: int) -> array[int]:
    """The places of so many characters that stand nowhere."""
    return array("H", (0, 0, 0, 0, NOWHERE)) * characters


def from_bytes(places: bytes, characters: int) -> array[int]:
    """Places as they were sent.

    Raises:
        ValueError: if they are not those of so many characters.
    """
    received = array("H")
    received.frombytes(places)
    if len(received) != FIELDS * characters:
        raise ValueError(f"{len(places)} bytes are not the places of {characters} characters")
    return received
