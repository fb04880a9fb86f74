"""Whether the text layer of a PDF page says which characters the page shows.

A font may come without the table from its glyphs to characters. What programs then copy out of the page are numbers of
glyphs taken for characters (`7KHGDQFHUV`): a reader sees words, a program sees none.
"""

import re
import unicodedata
from collections.abc import Sequence

from app.library.pdf.characters import Glyph

# From this share of glyphs without a known character on, a page is looked at more closely.
_UNMAPPED_SHARE = 0.3
_UNKNOWN_SHARE = 0.3
# Fewer glyphs than this tell nothing about a language.
_JUDGED_GLYPHS = 20
_PLAUSIBLE_WORDS = 0.5
# A page whose font lies about its characters, without a sign of it: only where hardly a word could be one.
_HOPELESS_WORDS = 0.1
_HOPELESS_GLYPHS = 200
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_VOWEL = re.compile("[aeiouyAEIOUY\u00c0-\u024f]")
_ONE_CASE = re.compile(r"[^\W\d_]?[^\W\d_A-Z]*|[^\W\d_a-z]+")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")


def is_garbled(glyphs: Sequence[Glyph]) -> bool:
    """Tell whether the characters of a page's glyphs are mostly not those that it shows.

    Args:
        glyphs: all of the page, in the order of the content stream.

    Returns:
        True if most of the text is unreadable, so that it is better left out. A page of few glyphs is given the benefit
        of the doubt unless its characters are plainly none.
    """
    if not glyphs:
        return False
    unmapped = sum(glyph.is_unmapped for glyph in glyphs)
    unknown = sum(is_unknown(glyph.text[0]) for glyph in glyphs)
    if unknown > _UNKNOWN_SHARE * len(glyphs):
        return True
    text = "".join((" " if glyph.after_space else "") + glyph.text for glyph in glyphs)
    if unmapped > _UNMAPPED_SHARE * len(glyphs):
        return len(glyphs) < _JUDGED_GLYPHS or word_share(text) < _PLAUSIBLE_WORDS
    return len(glyphs) >= _HOPELESS_GLYPHS and _is_hopeless(text)


def is_readable(text: str) -> bool:
    """Whether a text reads like language throughout: hardly any unknown characters, and mostly words."""
    unknown = sum(is_unknown(character) for character in text if not character.isspace())
    return unknown < 0.05 * len(text) and word_share(text) >= _PLAUSIBLE_WORDS


def is_unknown(character: str) -> bool:
    """Whether a character has no meaning of its own: a control, a private or a replacement character."""
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Co", "Cn")


def word_share(text: str) -> float:
    """The share of a text's letters and digits that stand in what could be words, by vowels and case.

    Only Latin letters are judged; letters of other scripts count as good.
    """
    good = total = 0
    for token in text.split():
        letters = sum(character.isalnum() for character in token)
        total += letters
        core = token.strip("()[]{}.,;:!?\"'\u2018\u2019\u201c\u201d\u00ab\u00bb-\u2013\u2014*/")
        if not core or core.replace(",", "").replace(".", "").isdigit():
            good += letters
        elif not _LATIN.search(core):
            good += letters if any(character.isalpha() for character in core) else 0
        elif _WORD.fullmatch(core) and _VOWEL.search(core) and _ONE_CASE.fullmatch(core.replace("-", "")):
            good += letters
    return good / total if total else 1.0


def _is_hopeless(text: str) -> bool:
    latin = len(_LATIN.findall(text))
    # Tables of codes and numbers are no language either.
    letters = sum(character.isalpha() for character in text)
    return latin > 0.5 * len(text) and letters > 0.7 * len(text.replace(" ", "")) and _lacks_vowels(text)


def _lacks_vowels(text: str) -> bool:
    latin = _LATIN.findall(text)
    vowels = sum(bool(_VOWEL.match(character)) for character in latin)
    return vowels < _HOPELESS_WORDS * len(latin)
