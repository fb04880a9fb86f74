"""Words that are searched for in the database: how texts are indexed, how a query asks, what is shown of a hit.

SQLite's FTS5 takes a run of letters for a word, without accents and without case. Scripts that write no spaces would
be one word a sentence: their characters are set apart, in the texts and in the queries alike. Knows no tables.
"""

from __future__ import annotations

import re
import unicodedata

# Thai to Burmese, Khmer, Japanese, Chinese, Korean. What is indexed hangs on it: another choice needs a migration that
# builds the indexes anew.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_MOST_QUERY_CHARACTERS = 1000
_MOST_QUERY_WORDS = 32
_SNIPPET_CHARACTERS = 160
_BEFORE_HIT_CHARACTERS = 60


def indexed_text(text: str | None) -> str:
    """A text as it is indexed: with spaces between the characters of scripts that write none."""
    return _UNSPACED.sub(r" \g<0> ", text or "")


def match_expression(query: str) -> str:
    """A query for FTS5 that asks for all words of `query`; "" if it has none.

    Longer words may begin with them; a single letter is a word of its own, as half of all words begin with some. Every
    word is quoted, so that nothing in it is an operator.
    """
    words = [
        word.replace('"', '""').replace("\0", "")
        for word in query[:_MOST_QUERY_CHARACTERS].split()
        if any(character.isalnum() for character in word)
    ]
    return " ".join(
        f'"{indexed_text(word).strip()}"{"*" if len(word) > 1 else ""}' for word in words[:_MOST_QUERY_WORDS]
    )


def snippet(text: str, query: str) -> str:
    """The part of a text around the first word of a query that occurs in it, on one line; its beginning if none does.

    Args:
        text: of a page or a turn.
        query: as it was typed.
    """
    folded = _folded(text)
    found = [at for word in query.split() if word and (at := folded.find(_folded(word))) >= 0]
    # Folding keeps lengths: a place in the one is the same in the other.
    start = max(0, min(found, default=0) - _BEFORE_HIT_CHARACTERS)
    part = text[start : start + _SNIPPET_CHARACTERS]
    if start and not part[0].isspace():
        # Not from the middle of a word, unless it has no end in sight.
        cut = re.search(r"\s", part[:_BEFORE_HIT_CHARACTERS])
        part = part[cut.end() :] if cut else part
    shown = " ".join(part.split())
    return f"{'…' if start else ''}{shown}{'…' if start + _SNIPPET_CHARACTERS < len(text) else ''}"


def _folded(text: str) -> str:
    """Without case and accents, and as long as before."""
    return text.lower() if text.isascii() else "".join(map(_folded_character, text))


def _folded_character(character: str) -> str:
    lowered = unicodedata.normalize("NFD", character)[0].lower()
    return lowered if len(lowered) == 1 else character
