"""A document's passages and the words in them, to be searched in milliseconds.

A passage is a run of sentences of one document page, about 160 words; neighbours overlap by half, so that what stands
together is together in one of them. Ranked by BM25 (Robertson and Zaragoza, 2009). Of each document there is one index,
whatever conversations it is in. Knows nothing of questions or answers.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.evidence.sentences import split_sentences
from app.evidence.words import keys
from app.library.document import Document

PASSAGE_WORDS = 160
# BM25's usual constants: how soon a repeated word adds no more, and how much a long passage is discounted.
_K1, _B = 1.5, 0.75


@dataclass(frozen=True, slots=True)
class IndexedPassage:
    """A passage: its document page, and its characters there."""

    page_index: int
    start_char: int
    end_char: int


class PassageIndex:
    """The passages of a document.

    Args:
        document: what to index; takes about a second for 400,000 words.

    Attributes:
        passages: all of them, in document order.
    """

    def __init__(self, document: Document) -> None:
        self.passages: list[IndexedPassage] = []
        postings: dict[str, tuple[array, array]] = {}
        lengths = array("f")
        for page in document.document_pages:
            for start, end, words in _passages_of(page.text):
                number = len(self.passages)
                self.passages.append(IndexedPassage(page.index, start, end))
                lengths.append(sum(words.values()))
                for key, count in words.items():
                    posting = postings.get(key)
                    if posting is None:
                        posting = postings[key] = (array("i"), array("f"))
                    posting[0].append(number)
                    posting[1].append(count)
        self._postings = postings
        lengths_of_all = np.frombuffer(lengths, dtype=np.float32) if lengths else np.zeros(0, np.float32)
        mean = float(lengths_of_all.mean()) if lengths else 1.0
        self._discounts = _K1 * (1.0 - _B + _B * lengths_of_all / max(mean, 1.0))

    def __len__(self) -> int:
        return len(self.passages)

    def frequency(self, key: str) -> int:
        """How many passages have a term."""
        posting = self._postings.get(key)
        return 0 if posting is None else len(posting[0])

    def holds(self, key: str, number: int) -> bool:
        """Whether the passage of that number has a term."""
        posting = self._postings.get(key)
        if posting is None:
            return False
        place = bisect_left(posting[0], number)
        return place < len(posting[0]) and posting[0][place] == number

    def scores(self, weights: Mapping[str, float]) -> np.ndarray:
        """BM25 of each passage, each term with its weight, which has its rarity in it: float32 [passages]."""
        scores = np.zeros(len(self.passages), dtype=np.float32)
        for key, weight in weights.items():
            posting = self._postings.get(key)
            if posting is None or not weight:
                continue
            numbers = np.frombuffer(posting[0], dtype=np.int32)
            counts = np.frombuffer(posting[1], dtype=np.float32)
            scores[numbers] += weight * counts * (_K1 + 1.0) / (counts + self._discounts[numbers])
        return scores


def _passages_of(text: str) -> Iterator[tuple[int, int, Counter[str]]]:
    """The places of a page's passages, and how often each has its words."""
    sentences = split_sentences(text)
    words = [keys(sentence.text) for sentence in sentences]
    # The stop words are no keys, but they make a passage long.
    pairs = zip(sentences, words, strict=True)
    lengths = [max(1, sentence.text.count(" ") + 1, len(found)) for sentence, found in pairs]
    first = 0
    while first < len(sentences):
        end = first + _fill(lengths, first)
        yield sentences[first].start, sentences[end - 1].end, Counter(key for part in words[first:end] for key in part)
        if end == len(sentences):
            return
        first = max(first + 1, min(end, first + _fill(lengths, first, PASSAGE_WORDS // 2)))


def _fill(lengths: Sequence[int], first: int, limit: int = PASSAGE_WORDS) -> int:
    """How many sentences from `first` on make so many words, at least one."""
    taken = total = 0
    for length in lengths[first:]:
        if taken and total + length > limit:
            break
        taken, total = taken + 1, total + length
    return taken
