"""Drop caps: a chapter's first letter, as high as two or three lines, which belongs to the first of them."""

from app.library.pdf.lines import weighted_median
from app.library.pdf.words import Word

# In shares of the usual font size.
_LEAST_SIZE = 1.7
_WIDEST_GAP = 1.2
# A capital is about so much of its font size high.
_CAPITAL_HEIGHT = 0.7
_MOST_LETTERS = 3


def join_drop_caps(words: list[Word]) -> list[Word]:
    """Give each drop cap to the word that it begins.

    Args:
        words: of a page, in one direction of writing; those with a drop cap change in place.

    Returns:
        The words without the drop caps that were joined.
    """
    if not words:
        return words
    usual = weighted_median((word.size, len(word.glyphs)) for word in words)
    large = [
        word
        for word in words
        if word.size >= _LEAST_SIZE * usual
        and len(word.glyphs) <= _MOST_LETTERS
        and word.text.strip("\"'\u201c\u2018").isalpha()
    ]
    joined: set[int] = set()
    for capital in large:
        first = _first_beside(capital, words, usual)
        if first is None:
            continue
        top = first.glyphs[0]
        for glyph in capital.glyphs:
            glyph.size, glyph.baseline = top.size, top.baseline
        first.glyphs[:0] = capital.glyphs
        # It ends where the word begins: the indentation of its lines is no gap.
        first.start, first.order, first.after_space = capital.start, min(first.order, capital.order), True
        joined.add(id(capital))
    return [word for word in words if id(word) not in joined] if joined else words


def _first_beside(capital: Word, words: list[Word], usual: float) -> Word | None:
    """The word of the topmost line that stands right of a drop cap, if two lines at least do."""
    top = capital.baseline - _CAPITAL_HEIGHT * capital.size
    beside = [
        word
        for word in words
        if word.size < capital.size / _LEAST_SIZE * 1.2
        and 0 <= word.start - capital.end + 0.3 * usual <= _WIDEST_GAP * usual + 0.3 * usual
        and top < word.baseline <= capital.baseline + 0.3 * usual
    ]
    baselines = sorted(word.baseline for word in beside)
    if not beside or baselines[-1] - baselines[0] < 0.8 * usual:
        return None
    return min(beside, key=lambda word: (word.baseline, word.start))
