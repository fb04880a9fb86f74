"""Which passages support an answer, sentence by sentence.

A passage supports a sentence if it holds most of what the sentence says: its words, each by how much it tells, its
numbers and its names. What the question did not say already must be among it: a wrong answer has all the words of the
question, too. A number or a name that the passage lacks counts against it. A sentence that says nothing of the
documents ("Yes.", "I do not know.") gets no verdict. What words cannot show, a denial or who did what to whom, is not
seen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from app.evidence.citation import Citation, UnsupportedSentence
from app.evidence.document_search import DocumentSearch, FoundPassage, PageKey
from app.evidence.question_passages import best_span
from app.evidence.sentences import Sentence, split_sentences
from app.evidence.words import Term, is_talk, keys, terms

# A sentence is supported from this score on, and if the passage has that share of the words that the question did not
# have.
# Chosen with the weights below on one half of the questions of `eval sources`, which reports on the other.
SUPPORTED_FROM = 0.72
_NEW_WORDS_FROM = 0.5
# What a term weighs that the passage lacks, in rarities: a word that no passage has is often just another word for
# the same, a number or a name never is.
_UNKNOWN_WORD, _MISSING_NUMBER, _UNKNOWN_NAME, _MISSING_NAME = 0.3, 3.0, 2.0, 2.0
# The question's words help to find the place, and say nothing of whether the answer is right.
_QUESTION_WEIGHT = 0.35
_CANDIDATES = 24
_SPAN_WORDS = 45


@dataclass(frozen=True)
class SentenceSupport:
    """A sentence of an answer, and the passages that may support it, best first; scores from 0.0 to 1.0."""

    sentence: Sentence
    candidates: tuple[tuple[float, FoundPassage], ...]


@dataclass(frozen=True)
class AnswerSupport:
    """The sentences of an answer that say something, in order, with what supports them."""

    search: DocumentSearch
    sentences: tuple[SentenceSupport, ...] = field(default=())

    def citations(
        self, reads: Callable[[int, int], Mapping[PageKey, float]] | None = None
    ) -> tuple[tuple[Citation, ...], tuple[UnsupportedSentence, ...]]:
        """The citations of the supported sentences, numbered by their passages, and the others.

        The text alone decides; the read scores stand beside it.

        Args:
            reads: tells of a sentence, by its first character and the one after its last, how many times as much as
                usual each page was read for it; pages that it does not name, the model did not have.
        """
        citations: list[Citation] = []
        unsupported: list[UnsupportedSentence] = []
        numbers: dict[tuple[str, int, int, int], int] = {}
        for one in self.sentences:
            sentence = one.sentence
            read_scores = reads(sentence.start, sentence.end) if reads is not None else {}
            candidates = one.candidates
            if not candidates or candidates[0][0] < SUPPORTED_FROM:
                if sentence.ends:
                    unsupported.append(UnsupportedSentence(sentence.text, sentence.start, sentence.end))
                continue
            score, found = candidates[0]
            read_score = read_scores.get(found.page_key)
            document, page_index = found.document, found.passage.page_index
            start, end = self._span(found, sentence)
            place = (document.document_id, page_index, start, end)
            page = document.document_pages[page_index]
            citations.append(
                Citation(
                    number=numbers.setdefault(place, len(numbers) + 1),
                    sentence=sentence.text,
                    sentence_start_char=sentence.start,
                    sentence_end_char=sentence.end,
                    document=document.shown_name,
                    document_id=document.document_id,
                    page_label=page.page_label,
                    page_index=page_index,
                    start_char=start,
                    end_char=end,
                    text=page.text[start:end],
                    text_score=round(score, 3),
                    read_score=None if read_score is None else round(read_score, 3),
                )
            )
        return tuple(citations), tuple(unsupported)

    def _span(self, found: FoundPassage, sentence: Sentence) -> tuple[int, int]:
        parts = split_sentences(found.text)
        first, last = best_span(self.search, parts, set(keys(sentence.text)), _SPAN_WORDS)
        return found.passage.start_char + parts[first].start, found.passage.start_char + parts[last].end


def support_answer(search: DocumentSearch, question: str, answer: str, is_whole: bool = True) -> AnswerSupport:
    """Find the passages that may support each sentence of an answer; arguments as of `Evidence.support`."""
    sentences = split_sentences(answer, with_code=False)
    if sentences and not is_whole:
        last = sentences[-1]
        sentences[-1] = Sentence(last.text, last.start, last.end, ends=False)
    asked = dict.fromkeys(keys(question), _QUESTION_WEIGHT)
    found = []
    for sentence in sentences:
        said = [term for term in terms(sentence.text) if term.is_content and not is_talk(term.key)]
        if said:
            candidates = _candidates(search, said, asked)
            found.append(SentenceSupport(sentence, candidates))
    return AnswerSupport(search, tuple(found))


def _candidates(
    search: DocumentSearch, said: list[Term], asked: dict[str, float]
) -> tuple[tuple[float, FoundPassage], ...]:
    weights = asked | {term.key: 1.0 for term in said}
    wanted = {term.key for term in said}
    scored = [
        (support_score(search, said, asked, found.present(wanted)), found)
        for found in search.best(weights, _CANDIDATES)
    ]
    # Stable: of equals the one with the higher BM25.
    return tuple(sorted(scored, key=lambda one: -one[0]))


def support_score(search: DocumentSearch, said: list[Term], asked: Collection[str], present: Collection[str]) -> float:
    """How much of what is said is present, 0.0 to 1.0: see the module's head.

    Args:
        search: knows how much each term tells.
        said: the content terms of a sentence.
        asked: the terms of the question.
        present: the terms of a passage.
    """
    held = total = new_held = new_total = 0.0
    for key, kind in {term.key: term.kind for term in said}.items():
        known, highest = search.has(key), search.highest_rarity
        rarity = search.rarity(key) if known else highest
        is_new = key not in asked
        if key in present:
            held, total = held + rarity, total + rarity
            new_held, new_total = new_held + is_new * rarity, new_total + is_new * rarity
            continue
        if kind == "number":
            weight = _MISSING_NUMBER * highest
        elif kind == "name":
            weight = _MISSING_NAME * rarity if known else _UNKNOWN_NAME * highest
        else:
            weight = rarity if known else _UNKNOWN_WORD * highest
        total += weight
        new_total += is_new * max(weight, rarity)
    if not total:
        return 0.0
    new_share = new_held / new_total if new_total else 1.0
    return min(held / total, new_share * SUPPORTED_FROM / _NEW_WORDS_FROM)
