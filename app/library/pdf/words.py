"""From glyphs to words: what was drawn twice is dropped, accents join their letters, neighbours become a word.

A word here is a stretch of glyphs that are drawn one after the other without a gap; whether two of them belong together
is decided by `lines`, which sees the whole line.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from app.library.pdf.characters import Glyph

# In shares of the font size.
_TWICE_DISTANCE = 0.12
_WORD_GAP = 0.15
_OVERLAP = 0.35
_BASELINE_SHIFT = 0.12
_SIZE_RATIO = 0.8
# Accents that some fonts draw as glyphs of their own, and the combining characters that they mean.
_COMBINING = {
    "\u00b4": "\u0301",
    "\u02ca": "\u0301",
    "`": "\u0300",
    "\u02cb": "\u0300",
    "^": "\u0302",
    "\u02c6": "\u0302",
    "\u00a8": "\u0308",
    "~": "\u0303",
    "\u02dc": "\u0303",
    "\u00b8": "\u0327",
    "\u02c7": "\u030c",
    "\u02da": "\u030a",
    "\u02d8": "\u0306",
    "\u02d9": "\u0307",
    "\u02db": "\u0328",
    "\u02dd": "\u030b",
    "\u00af": "\u0304",
}
_DOTLESS = {"\u0131": "i", "\u0237": "j"}


@dataclass(slots=True)
class Word:
    """Glyphs drawn side by side, from left to right as they stand.

    Attributes:
        glyphs: at least one.
        start, end, baseline, size: as in `Glyph`; baseline and size are its first glyph's.
        order: the smallest of its glyphs' orders.
        after_space: whether a space character was drawn before it.
    """

    glyphs: list[Glyph]
    start: float
    end: float
    baseline: float
    size: float
    order: int
    after_space: bool

    @property
    def text(self) -> str:
        """Its characters from left to right."""
        return "".join(glyph.text for glyph in self.glyphs)


def build_words(glyphs: Iterable[Glyph]) -> list[Word]:
    """Join the glyphs of one direction of writing into words.

    Args:
        glyphs: in the order of the content stream; accents change their letters in place.

    Returns:
        The words in the order of the content stream.
    """
    return _chain(_join_accents(_drop_repeated(glyphs)))


def is_right_to_left(text: str) -> bool:
    """Whether the first letter of a text is Hebrew, Arabic or of another script written from right to left."""
    return any(unicodedata.bidirectional(character) in ("R", "AL") for character in text[:1])


def _drop_repeated(glyphs: Iterable[Glyph]) -> list[Glyph]:
    """Leave out a glyph that stands where the same one stands already: fake bold, shadows, lines drawn twice."""
    kept: list[Glyph] = []
    by_cell: dict[tuple[str, int, int], list[Glyph]] = {}
    after_space = False
    for glyph in glyphs:
        reach = _TWICE_DISTANCE * glyph.size
        columns = _cells(glyph.start, reach)
        rows = _cells(glyph.baseline, reach)
        if any(
            abs(other.start - glyph.start) < reach
            and abs(other.baseline - glyph.baseline) < reach
            and abs(other.size - glyph.size) < 0.2 * glyph.size
            for column in columns
            for row in rows
            for other in by_cell.get((glyph.text, column, row), ())
        ):
            after_space = after_space or glyph.after_space
            continue
        if after_space:
            glyph.after_space, after_space = True, False
        by_cell.setdefault((glyph.text, columns[0], rows[0]), []).append(glyph)
        kept.append(glyph)
    return kept


def _cells(place: float, reach: float) -> tuple[int, ...]:
    """The cell of a place, and the one beside it where that is within reach. Cells are four reaches wide."""
    cell, rest = divmod(place, 4 * reach)
    if rest < reach:
        return int(cell), int(cell) - 1
    return (int(cell), int(cell) + 1) if rest > 3 * reach else (int(cell),)


def _join_accents(glyphs: list[Glyph]) -> list[Glyph]:
    """Put an accent that is drawn over a letter, before or after it, into that letter."""
    kept: list[Glyph] = []
    waiting: Glyph | None = None
    for glyph in glyphs:
        combining = _COMBINING.get(glyph.text)
        if combining or unicodedata.combining(glyph.text[0]):
            previous = kept[-1] if kept else None
            if previous and not glyph.after_space and previous.text[-1].isalpha() and _stands_over(glyph, previous):
                previous.text = _composed(previous.text, combining or glyph.text)
                continue
            if combining:
                if waiting:
                    kept.append(waiting)
                waiting = glyph
                continue
        if waiting:
            if glyph.text[0].isalpha() and _stands_over(waiting, glyph):
                glyph.text = _composed(glyph.text, _COMBINING[waiting.text])
                glyph.after_space = glyph.after_space or waiting.after_space
            else:
                kept.append(waiting)
            waiting = None
        kept.append(glyph)
    return [*kept, waiting] if waiting else kept


def _composed(text: str, combining: str) -> str:
    return unicodedata.normalize("NFC", text[:-1] + _DOTLESS.get(text[-1], text[-1]) + combining)


def _stands_over(accent: Glyph, letter: Glyph) -> bool:
    middle = (accent.start + accent.end) / 2
    is_near = abs(accent.baseline - letter.baseline) < 0.5 * letter.size
    return is_near and letter.start - 0.05 * letter.size <= middle <= letter.end + 0.05 * letter.size


def _chain(glyphs: list[Glyph]) -> list[Word]:
    words: list[Word] = []
    word: Word | None = None
    for glyph in glyphs:
        size = glyph.size
        if (
            word is not None
            and not glyph.after_space
            and abs(glyph.baseline - word.glyphs[-1].baseline) <= _BASELINE_SHIFT * size
            and _SIZE_RATIO * size <= word.size <= size / _SIZE_RATIO
        ):
            gap = glyph.start - word.end
            if -_OVERLAP * size <= gap <= _WORD_GAP * size and glyph.start >= word.glyphs[-1].start - 0.01:
                word.glyphs.append(glyph)
                word.end = max(word.end, glyph.end)
                continue
            # pdfium gives lines written from right to left in that order.
            gap = word.start - glyph.end
            if -_OVERLAP * size <= gap <= _WORD_GAP * size and glyph.start < word.start:
                word.glyphs.insert(0, glyph)
                word.start = min(word.start, glyph.start)
                continue
        word = Word([glyph], glyph.start, glyph.end, glyph.baseline, size, glyph.order, glyph.after_space)
        words.append(word)
    return words
