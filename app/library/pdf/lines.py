"""From words to lines of text: what stands on one line, in reading order, with spaces where the gaps are.

Works within one block, that is a column, a cell or another area whose text is read from top to bottom.
"""

import re
import statistics
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.library.pdf.words import Word
from app.library.pdf.writing_direction import is_right_to_left_line, reading_order

# In shares of the font size.
_SAME_LINE = 0.4
_SMALL = 0.8
_RAISED_UP, _RAISED_DOWN = 0.75, 0.35
_RAISED_GAP = 0.35
_SPACE_GAP = 0.15
_DRAWN_SPACE_GAP = 0.06
# Where spaces are drawn as characters, a gap without one beside a single letter may be that of a badly fitted font.
_UNDRAWN_SPACE_GAP = 0.24
# Letters that stand further apart than this, at even distances, are one spaced-out word.
_SPACED_LETTERS = 4
_SPACED_WORD_GAP = 1.6
_SPACED_WIDEST = 0.8
_MOST_SPACES = 80
_SUPERSCRIPTS = str.maketrans("0123456789+-\u2212n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
_SUPERSCRIPT_TEXT = re.compile("[0-9]+|[-+\u2212][0-9]+|n")
_PRESENTATION_FORMS = re.compile("[\ufb1d-\ufdff\ufe70-\ufefc]+")
_LAM_ALEF = str.maketrans({"\ufef5": "لآ", "\ufef6": "لآ", "\ufef7": "لأ", "\ufef8": "لأ", "\ufef9": "لإ"})
# Scripts that put no spaces between words.
_UNSPACED = re.compile("[\u2e80-\u312f\u3190-\ua4cf\uf900-\ufaff\uff00-\uffee\U00020000-\U0003ffff]")


@dataclass(slots=True)
class Line:
    """One line of text.

    Attributes:
        text: in reading order.
        start, end, baseline, size: as in `Glyph`; the size is that of most of its text.
        is_right_to_left: whether it is read from the right.
        is_fixed_pitch: whether all its glyphs are equally wide: typewritten text, code.
    """

    text: str
    start: float
    end: float
    baseline: float
    size: float
    is_right_to_left: bool
    is_fixed_pitch: bool


def build_lines(words: Sequence[Word]) -> list[Line]:
    """Put the words of one block into lines, from top to bottom.

    Args:
        words: in any order.

    Returns:
        The lines; none is empty.
    """
    if not words:
        return []
    usual_size = weighted_median((word.size, len(word.glyphs)) for word in words)
    groups: list[list[Word]] = []
    small: list[Word] = []
    for word in sorted(words, key=lambda word: word.baseline):
        if word.size < _SMALL * usual_size:
            small.append(word)
        elif groups and word.baseline - groups[-1][0].baseline <= _SAME_LINE * min(word.size, groups[-1][0].size):
            groups[-1].append(word)
        else:
            groups.append([word])
    groups += _attach_small(small, groups)
    lines = [_line(group) for group in groups]
    return sorted((line for line in lines if line.text), key=lambda line: (line.baseline, line.start))


def weighted_median(values_and_weights: Iterable[tuple[float, float]]) -> float:
    """The value below and above which half of the weight lies.

    Args:
        values_and_weights: at least one pair.
    """
    pairs = sorted(values_and_weights)
    half = sum(weight for _, weight in pairs) / 2
    for value, weight in pairs:
        half -= weight
        if half <= 0:
            return value
    return pairs[-1][0]


def is_unspaced(character: str) -> bool:
    """Whether a character's script puts no spaces between words (Chinese, Japanese)."""
    return bool(_UNSPACED.match(character))


def _attach_small(small: list[Word], groups: list[list[Word]]) -> list[list[Word]]:
    """Put raised and lowered words into the lines that they touch; the others become lines, which are returned."""
    own: list[list[Word]] = []
    for word in small:
        neighbour = _touched_line(word, groups)
        if neighbour is not None:
            neighbour.append(word)
        elif own and word.baseline - own[-1][0].baseline <= _SAME_LINE * word.size:
            own[-1].append(word)
        else:
            own.append([word])
    return own


def _touched_line(word: Word, groups: list[list[Word]]) -> list[Word] | None:
    best, best_distance = None, float("inf")
    for group in groups:
        first = group[0]
        shift = word.baseline - first.baseline
        if not -_RAISED_UP * first.size <= shift <= _RAISED_DOWN * first.size:
            continue
        reach = _RAISED_GAP * first.size
        touches = any(other.start - reach <= word.end and word.start <= other.end + reach for other in group)
        if (touches or abs(shift) < 0.1 * first.size) and abs(shift) < best_distance:
            best, best_distance = group, abs(shift)
    return best


def _line(words: list[Word]) -> Line:
    words.sort(key=lambda word: (word.start, word.end))
    size = weighted_median((word.size, len(word.glyphs)) for word in words)
    main = [word for word in words if word.size >= _SMALL * size]
    baseline = statistics.median_low(word.baseline for word in main)
    pitch = _fixed_pitch(words, size)
    units = _spaced_units(words, size, baseline, pitch)
    is_rtl = is_right_to_left_line(units)
    text = "".join(reading_order(units) if is_rtl else units)
    text = _PRESENTATION_FORMS.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)
    return Line(
        text.strip(),
        words[0].start,
        max(word.end for word in words),
        baseline,
        size,
        is_rtl,
        pitch > 0,
    )


def _fixed_pitch(words: list[Word], size: float) -> float:
    """The width of all glyphs of a typewritten line; 0 where they are not equally wide."""
    widths = [glyph.end - glyph.start for word in words for glyph in word.glyphs if len(glyph.text) == 1]
    if len(widths) < 2 or max(widths) - min(widths) > 0.02 * size or is_unspaced(words[0].text[0]):
        return 0.0
    return widths[0]


def _spaced_units(words: list[Word], size: float, baseline: float, pitch: float) -> list[str]:
    """The line's glyphs from left to right, with a space for each gap between words; several in typewritten lines."""
    spaced_gap = _spaced_out_gap(words, size)
    draws_spaces = any(word.after_space for word in words[1:])
    units: list[str] = []
    end: float | None = None
    previous: Word | None = None
    for word in words:
        raised = _as_raised(word, size, baseline)
        if previous is not None:
            gap = word.start - end
            # Of two neighbours, the one that was drawn later tells of the space between them.
            drawn_space = (word if word.order > previous.order else previous).after_space
            is_loose = draws_spaces and 1 in (len(word.glyphs), len(previous.glyphs))
            least_gap = spaced_gap or (_UNDRAWN_SPACE_GAP if is_loose else _SPACE_GAP) * size
            is_spaced = gap > least_gap or (drawn_space and gap > _DRAWN_SPACE_GAP * size and not spaced_gap)
            if raised:
                is_spaced = gap > 2 * _SPACE_GAP * size
            if is_spaced and not (is_unspaced(previous.text[-1]) and is_unspaced(word.text[0]) and gap < 0.6 * size):
                units.append(" " * min(_MOST_SPACES, max(1, int(gap / pitch + 0.3))) if pitch > 0 else " ")
        units += [raised] if raised else _units(word)
        end = word.end if end is None else max(end, word.end)
        previous = word
    return units


def _units(word: Word) -> list[str]:
    return [_in_reading_order(glyph.text) for glyph in word.glyphs]


def _in_reading_order(text: str) -> str:
    if text < "\u0600":
        return text
    # pdfium turns the letters of a ligature round: lam and alef are the one that every Arabic font has.
    if len(text) == 2 and text[1] == "\u0644" and text[0] in "\u0622\u0623\u0625\u0627":
        return text[::-1]
    return text.translate(_LAM_ALEF)


def _as_raised(word: Word, size: float, baseline: float) -> str:
    """A raised number as superscript characters, "" for other words: 10² must not be read as 102."""
    if word.size >= _SMALL * size or baseline - word.baseline < 0.15 * size:
        return ""
    text = word.text
    return text.translate(_SUPERSCRIPTS) if _SUPERSCRIPT_TEXT.fullmatch(text) else ""


def _spaced_out_gap(words: list[Word], size: float) -> float:
    """Of a line whose letters are spaced out, the gap from which on two words are apart; 0 for other lines."""
    letters = [word for word in words if len(word.glyphs) == 1 and word.text.isalpha()]
    if len(letters) < _SPACED_LETTERS or len(letters) < 0.8 * len(words) or is_unspaced(letters[0].text[0]):
        return 0.0
    gaps = sorted(after.start - before.end for before, after in zip(words, words[1:], strict=False))
    # Even distances are those between the letters of a word; a marked jump is the end of one.
    between_letters = gaps[len(gaps) // 4]
    return _SPACED_WORD_GAP * between_letters if 0 < between_letters < _SPACED_WIDEST * size else 0.0
