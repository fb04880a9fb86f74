"""How the boxes of characters on a document page travel from the render process.

Of each character left, top, right and bottom, as fractions of the page's width and height in 1/`UNITS`, and the axis
that its line runs along: uint16 [characters, FIELDS], flat.
"""

from __future__ import annotations

from array import array

FIELDS = 5
UNITS = 65_000
HORIZONTAL, VERTICAL, NOWHERE = 0, 1, 2


def nowhere(characters: int) -> array[int]:
    """The boxes of so many characters that stand nowhere."""
    return array("H", (0, 0, 0, 0, NOWHERE)) * characters


def from_bytes(sent: bytes, characters: int) -> array[int]:
    """Boxes as they were sent.

    Raises:
        ValueError: if they are not those of so many characters.
    """
    received = array("H")
    received.frombytes(sent)
    if len(received) != FIELDS * characters:
        raise ValueError(f"{len(sent)} bytes are not the boxes of {characters} characters")
    return received
