"""Search of texts for a question's words: BM25, and which of the words occur at all.

bm25s is what llama-index's BM25Retriever is made of; the retriever itself keeps each text three times over, too much
for long documents. Knows nothing of documents. numpy and bm25s are imported on first use: the process that reads
documents imports this package, too, and needs neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# BM25's words: as its default, of two characters or more; but scripts without spaces count by the character.
_BM25_WORD = r"(?u)[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|\b\w\w+\b"
# Left out of search with bm25s' own list: they belong to the question, not to what it asks for.
_QUESTION_WORDS = "who whom whose what which when where why how do does did can could".split()


@dataclass(frozen=True)
class QuestionWords:
    """The words of a question that are searched for, in lower case, by whether they occur in the documents.

    Attributes:
        found: those that occur somewhere, also in another form ("boats" for "boat").
        missing: the others. If both are empty, the question has none but stop words.
    """

    found: tuple[str, ...]
    missing: tuple[str, ...]


class WordSearch:
    """BM25 over texts.

    Args:
        texts: what to search; there may be none, or no words in them.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s
        import Stemmer

        self._stemmer = Stemmer.Stemmer("english")
        self._scores = None
        words = bm25s.tokenize(
            texts, stopwords=_stop_words(), stemmer=self._stemmer, token_pattern=_BM25_WORD, show_progress=False
        )
        if any(words.vocab):
            self._scores = bm25s.BM25()
            self._scores.index(words, show_progress=False)

    def hits(self, question: str) -> list[int]:
        """Numbers of the texts that have words of the question, best first."""
        return [number for number, _ in self.scored_hits(question)]

    def scored_hits(self, question: str) -> list[tuple[int, float]]:
        """`hits`, each with its BM25 score."""
        import numpy as np

        stems = [stem for stem in self._stemmer.stemWords(searched_words(question)) if self._has_stem(stem)]
        if not stems:
            return []
        scores = self._scores.get_scores(stems)
        # Stable: of equal texts the first.
        ranked = np.argsort(-scores, kind="stable")[: np.count_nonzero(scores > 0)]
        return list(zip(ranked.tolist(), scores[ranked].tolist(), strict=True))

    def has(self, word: str) -> bool:
        """Whether any text has this word, in whatever form."""
        return self._has_stem(self._stemmer.stemWord(word))

    def _has_stem(self, stem: str) -> bool:
        return self._scores is not None and stem in self._scores.vocab_dict


def _stop_words() -> list[str]:
    from bm25s.stopwords import STOPWORDS_EN

    return [*STOPWORDS_EN, *_QUESTION_WORDS]


def searched_words(question: str) -> list[str]:
    """The words of a question that are searched for, in lower case."""
    import bm25s

    (words,) = bm25s.tokenize(
        [question], stopwords=_stop_words(), token_pattern=_BM25_WORD, return_ids=False, show_progress=False
    )
    return [word for word in words if word]
