"""Scores from 0.0 to 1.0 of an answer's text against what was expected.

`contains_score` as for needles in RULER (arXiv 2404.06654), by whole words; exact match and F1 over normalised words
as in SQuAD (arXiv 1606.05250, section 6.1). Nothing here knows how an answer came about.
"""

from __future__ import annotations

import re
import string
from collections import Counter

from app.measure.evaluation.question import LongQuestion

PUNCTUATION = str.maketrans("", "", string.punctuation)


def contains_score(answer: str, question: LongQuestion) -> float:
    """The share of the expected answers that stand in `answer` as whole words; where any will do, 1.0 for one."""
    text = _unify_spaces(answer)
    found = [bool(re.search(rf"(?<!\w){re.escape(_unify_spaces(each))}(?!\w)", text)) for each in question.answers]
    return float(any(found)) if question.needs == "any" else sum(found) / len(found)


def exact_match(answer: str, references: tuple[str, ...]) -> float:
    """1.0 where the normalised answer is one of the normalised references."""
    return float(_normalise(answer) in [_normalise(reference) for reference in references])


def token_f1(answer: str, references: tuple[str, ...]) -> float:
    """The harmonic mean of precision and recall over normalised words, for the reference where it is best."""
    return max(_word_f1(_normalise(answer), _normalise(reference)) for reference in references)


def _word_f1(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference))


def _normalise(text: str) -> list[str]:
    words = text.lower().translate(PUNCTUATION).split()
    return [word for word in words if word not in ("a", "an", "the")]


def _unify_spaces(text: str) -> str:
    return " ".join(text.lower().split())
