"""Search over the passages of several documents together, and how much a word tells.

A word tells the more, the fewer passages have it (inverse document frequency over all the documents searched). Knows
nothing of where documents come from or how long their indexes are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.evidence.passage_index import IndexedPassage, PassageIndex
from app.library.document import Document

# A document page, by the id of its document and its index.
PageKey = tuple[str, int]


@dataclass(frozen=True)
class FoundPassage:
    """A passage that has words of what was searched for, with its BM25 score; `number` is its place in the index."""

    document: Document
    index: PassageIndex
    number: int
    score: float

    @property
    def passage(self) -> IndexedPassage:
        return self.index.passages[self.number]

    @property
    def text(self) -> str:
        page = self.document.document_pages[self.passage.page_index]
        return page.text[self.passage.start_char : self.passage.end_char]

    def present(self, wanted: Iterable[str]) -> set[str]:
        """Those of the terms that the passage has."""
        return {key for key in wanted if self.index.holds(key, self.number)}

    @property
    def page_key(self) -> PageKey:
        """Names its document page."""
        return self.document.document_id, self.passage.page_index


class DocumentSearch:
    """The passages of these documents, searched as one collection.

    Args:
        documents: each with its index; some may have no text.
    """

    def __init__(self, documents: Sequence[tuple[Document, PassageIndex]]) -> None:
        self._documents = [(document, index) for document, index in documents if len(index)]
        self._indexes = [index for _, index in self._documents]
        self._passages = sum(map(len, self._indexes))
        self._rarity: dict[str, float] = {}

    def has(self, key: str) -> bool:
        """Whether any passage has a term."""
        return any(index.frequency(key) for index in self._indexes)

    def rarity(self, key: str) -> float:
        """The inverse document frequency of a term, in nats; that of a term which no passage has is the highest."""
        if key not in self._rarity:
            frequency = sum(index.frequency(key) for index in self._indexes)
            self._rarity[key] = math.log1p((self._passages - frequency + 0.5) / (frequency + 0.5))
        return self._rarity[key]

    @property
    def highest_rarity(self) -> float:
        """The rarity of a term that one passage has."""
        return math.log1p((self._passages - 0.5) / 1.5) if self._passages else 0.0

    def best(self, weights: Mapping[str, float], count: int) -> list[FoundPassage]:
        """The passages that have most of the terms, best first.

        Args:
            weights: of each term, without its rarity, which is reckoned in here.
            count: how many at most.
        """
        weights = {key: weight * self.rarity(key) for key, weight in weights.items()}
        found: list[FoundPassage] = []
        for document, index in self._documents:
            scores = index.scores(weights)
            # Stable: of equals the first in the document.
            best = np.argsort(-scores, kind="stable")[:count] if len(scores) <= 4 * count else _top(scores, count)
            found += [
                FoundPassage(document, index, int(number), float(scores[number]))
                for number in best
                if scores[number] > 0
            ]
        return sorted(found, key=lambda one: -one.score)[:count]

    def coverage(self, wanted: Iterable[str], present: frozenset[str] | set[str]) -> float:
        """How much of the wanted terms is present, each by its rarity: 0.0 to 1.0."""
        wanted = list(wanted)
        total = sum(map(self.rarity, wanted))
        return sum(self.rarity(key) for key in wanted if key in present) / total if total else 0.0


def _top(scores: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the `count` highest scores, highest first, of equals the first."""
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    numbers = np.flatnonzero(scores >= threshold)
    return numbers[np.argsort(-scores[numbers], kind="stable")][:count]
