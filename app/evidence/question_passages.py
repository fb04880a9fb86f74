"""The passages of documents that bear on a question, each narrowed to the sentences that do.

Knows nothing of prompts: the whole documents are searched, whatever the model has in context.
"""

from __future__ import annotations

from app.evidence.citation import EvidencePassage
from app.evidence.document_search import DocumentSearch, FoundPassage
from app.evidence.sentences import Sentence, split_sentences
from app.evidence.words import keys

PASSAGES_SHOWN = 3
# So many are looked at for three that do not overlap.
_CANDIDATES = 24
# A narrowed passage: the sentences with the question's words, and so many words at most.
_SPAN_WORDS = 60
# Stems of what questions ask with rather than about, and of titles.
_ASKING = frozenset(
    "say said tell told come came go went see look find found live accord mr mrs miss make made take took give gave "
    "use happen want compar word thing kind pleas explain describ summar".split()
)


def find_passages(search: DocumentSearch, question: str, count: int = PASSAGES_SHOWN) -> tuple[EvidencePassage, ...]:
    """The best passages for a question, best first; none where no word of it occurs.

    Two of them never share text.
    """
    asked = keys(question)
    wanted = {key for key in asked if key not in _ASKING} or set(asked)
    chosen: list[FoundPassage] = []
    for found in search.best(dict.fromkeys(wanted, 1.0), _CANDIDATES):
        if len(chosen) == count:
            break
        if not any(_overlap(found, other) for other in chosen):
            chosen.append(found)
    return tuple(_narrowed(search, found, wanted) for found in chosen)


def _overlap(one: FoundPassage, other: FoundPassage) -> bool:
    a, b = one.passage, other.passage
    return one.page_key == other.page_key and a.start_char < b.end_char and b.start_char < a.end_char


def _narrowed(search: DocumentSearch, found: FoundPassage, wanted: set[str]) -> EvidencePassage:
    text, passage, document = found.text, found.passage, found.document
    sentences = split_sentences(text)
    first, last = best_span(search, sentences, wanted, _SPAN_WORDS)
    start, end = _with_context(sentences, first, last)
    page = document.document_pages[passage.page_index]
    return EvidencePassage(
        document=document.shown_name,
        document_id=document.document_id,
        page_label=page.page_label,
        page_index=page.index,
        start_char=passage.start_char + start,
        end_char=passage.start_char + end,
        text=text[start:end],
        text_score=round(search.coverage(wanted, found.present(wanted)), 3),
    )


def _with_context(sentences: list[Sentence], first: int, last: int) -> tuple[int, int]:
    """The place of a span and, as far as it stays short, of what follows and precedes it: answers stand beside."""
    length = sum(map(_words, sentences[first : last + 1]))
    while last + 1 < len(sentences) and length + _words(sentences[last + 1]) <= _SPAN_WORDS:
        last += 1
        length += _words(sentences[last])
    while first > 0 and length + _words(sentences[first - 1]) <= _SPAN_WORDS:
        first -= 1
        length += _words(sentences[first])
    return sentences[first].start, sentences[last].end


def _words(sentence: Sentence) -> int:
    return sentence.text.count(" ") + 1


def best_span(search: DocumentSearch, sentences: list[Sentence], wanted: set[str], most_words: int) -> tuple[int, int]:
    """The first and the last of the neighbouring sentences that have most of the wanted terms in few words.

    Args:
        search: knows how much each term tells.
        sentences: of one passage; at least one.
        wanted: the terms.
        most_words: of the span; one sentence is taken however long.
    """
    found = [wanted.intersection(keys(sentence.text)) for sentence in sentences]
    words = list(map(_words, sentences))
    best, place = -1.0, (0, 0)
    for first in range(len(sentences)):
        present: set[str] = set()
        length = 0
        for last in range(first, len(sentences)):
            length += words[last]
            if last > first and length > most_words:
                break
            present |= found[last]
            # A sentence more must bring a word that tells something.
            value = sum(map(search.rarity, present)) - 0.01 * length
            if value > best:
                best, place = value, (first, last)
    return place
