"""How much of a text was read, and in which order, beside the text that the author wrote.

Both measures take words in Unicode form NFKC, so that a raised 2 and a plain one, a ligature and its letters count the
same; cell separators and white space do not count; in scripts without spaces each character is a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_UNSPACED = re.compile("([\u2e80-\u312f\u3190-\ua4cf\uf900-\ufaff\uff00-\uffee\U00020000-\U0003ffff])")


def words_of(text: str) -> list[str]:
    """The words of a text, as both measures count them."""
    text = unicodedata.normalize("NFKC", text).replace("\u00ad", "").replace("|", " ")
    return _UNSPACED.sub(r" \1 ", text).split()


def character_accuracy(found: str, right: str) -> float:
    """How many of the characters are right, whatever the order of the words.

    The F-score of two multisets: the pairs of neighbouring characters of each text's words, each word with a blank
    before and behind it. What is missing, what is too much, and words that are torn or stuck together all count; a
    word in another place does not.

    Returns:
        0 to 1; 1 if both are empty.
    """
    return _f_score(_pairs_in_words(words_of(found)), _pairs_in_words(words_of(right)))


def order_accuracy(found: str, right: str) -> float:
    """How much of the order of reading is kept: the share of the right text's neighbouring words that are neighbours.

    Returns:
        0 to 1, over a multiset of pairs of words; 1 where the right text has fewer than two words.
    """
    right_pairs = _neighbours(words_of(right))
    kept = right_pairs & _neighbours(words_of(found))
    return kept.total() / right_pairs.total() if right_pairs else 1.0


def _pairs_in_words(words: Iterable[str]) -> Counter[str]:
    return Counter(pair for word in words for pair in map("".join, zip(f" {word}", f"{word} ", strict=True)))


def _neighbours(words: list[str]) -> Counter[tuple[str, str]]:
    return Counter(zip(words, words[1:], strict=False))


def _f_score(found: Counter[str], right: Counter[str]) -> float:
    total = found.total() + right.total()
    return 2 * (found & right).total() / total if total else 1.0
