"""Questions about real texts with the document pages that hold their answers, and sentences that no page holds.

The sets in `assets/evaluation/questions` were written for the books beside them, each with an answer in other words,
the words of the text that it rests on, a false sentence, and for many the answer with one word changed. Planted facts
come on top: invented sentences that are put into the text. Knows nothing of models or of how sources are found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from app.errors import UserFacingError
from app.library.document import Document, DocumentPage
from app.measure.evaluation.planted_facts import (
    ANIMALS,
    FIRST_NAMES,
    MONTHS,
    PLACES,
    SURNAMES,
    TEMPLATES,
    THINGS,
)

_SETS = Path(__file__).parents[3] / "assets" / "evaluation" / "questions"
_SENTENCE_END = re.compile(r"[.!?][\"”’]?\s+(?=\S)")


@dataclass(frozen=True)
class SourceQuestion:
    """A question, an answer to it, and what holds it.

    Args:
        question, answer: the answer is a whole sentence.
        quote: the text's own words.
        pages: indexes of the document pages that have the quote.
        unsupported: sentences about the same matter that the document does not hold.
        is_held_out: whether no threshold was chosen on it.
    """

    question: str
    answer: str
    quote: str
    pages: tuple[int, ...]
    unsupported: tuple[str, ...]
    is_held_out: bool = True


def written_questions(document: Document) -> list[SourceQuestion]:
    """The set that was written for a text, found by the name of its file; empty if there is none.

    Every second question is held out. One whose quote is in none of the document's pages is left out.
    """
    path = _SETS / f"{Path(document.name).stem}.json"
    if not path.is_file():
        return []
    questions = []
    for number, one in enumerate(json.loads(path.read_text(encoding="utf-8"))["questions"]):
        pages = pages_with(document, one["quote"])
        unsupported = tuple(one[kind] for kind in ("false", "changed") if kind in one)
        if pages:
            questions.append(
                SourceQuestion(one["question"], one["answer"], one["quote"], pages, unsupported, number % 2 == 1)
            )
    return questions


def pages_with(document: Document, quote: str) -> tuple[int, ...]:
    """Indexes of the pages whose text has a quote, whatever its blanks and capitals."""
    wanted = _plain(quote)
    return tuple(page.index for page in document.document_pages if wanted in _plain(page.text))


def holds(text: str, quote: str) -> bool:
    """Whether a text has a quote, whatever its blanks and capitals."""
    return _plain(quote) in _plain(text)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def plant_facts(document: Document, trials: int, seed: int) -> tuple[Document, list[SourceQuestion]]:
    """A document with invented facts on pages evenly spread over it, and a question about each.

    Args:
        document: stays as it is.
        trials: how many facts; every template is used before one is used again.
        seed: of facts, names and places.

    Raises:
        UserFacingError: if the document has fewer pages with text.
    """
    with_text = [page.index for page in document.document_pages if len(page.text) > 400]
    if len(with_text) < trials:
        raise UserFacingError(f"{document.name} has {len(with_text)} pages of text; give fewer --trials than {trials}.")
    pages = list(document.document_pages)
    questions = []
    for number in range(trials):
        random = Random(f"sources/{document.name}/{seed}/{number}")
        index = with_text[(2 * number + 1) * len(with_text) // (2 * trials)]
        fact, question = _planted(random, (seed + number) % len(TEMPLATES), index)
        pages[index] = _with_sentence(pages[index], fact, random)
        questions.append(question)
    changed = replace(document, document_id=f"{document.document_id[:-8]}{seed:08x}", document_pages=tuple(pages))
    return changed, questions


def _planted(random: Random, template: int, page_index: int) -> tuple[str, SourceQuestion]:
    names = random.sample([f"{first} {last}" for first in FIRST_NAMES for last in SURNAMES], 2)
    values = {
        "person": names,
        "place": random.sample(PLACES, 2),
        "thing": random.sample(THINGS, 2),
        "animal": random.sample(ANIMALS, 2),
        "month": random.sample(MONTHS, 2),
        "number": random.sample(range(13, 100), 2),
    }
    fact, question, beginning, answer = (
        part.format(**{name: value[0] for name, value in values.items()}) for part in TEMPLATES[template]
    )
    wrong = TEMPLATES[template][3].format(**{name: value[1] for name, value in values.items()})
    return fact, SourceQuestion(question, f"{beginning} {answer}.", fact, (page_index,), (f"{beginning} {wrong}.",))


def _with_sentence(page: DocumentPage, sentence: str, random: Random) -> DocumentPage:
    """The page with a sentence between two others of its own."""
    ends: Sequence[int] = [match.end() for match in _SENTENCE_END.finditer(page.text)] or [len(page.text)]
    place = random.choice(ends)
    return replace(page, text=f"{page.text[:place]}{sentence} {page.text[place:]}")
