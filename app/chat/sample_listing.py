"""The sample books that are not in the library yet: what reading each takes here, and how much of it fits the window.

Nothing is read for it. The tokens are estimated from a stretch of one of the books; how long reading takes, from what
was measured before, and where nothing was, nobody guesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from app.chat.answers.answer import AnswerOptions
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.template import ChatTokenizer
from app.chat.reading.reading_rates import ReadingTime
from app.library.sample_books import SAMPLE_BOOKS, SampleBook
from app.models.model_loader import LoadedModel

if TYPE_CHECKING:
    from app.chat.assistant import Assistant

_STRETCH_CHARACTERS = 40_000
_tokens_per_character: WeakKeyDictionary[ChatTokenizer, float] = WeakKeyDictionary()


@dataclass(frozen=True)
class SampleReading:
    """What reading a sample book takes with the present model.

    Args:
        tokens: as people read it, e.g. "about 6,700".
        window_tokens: of the model.
        fits: whether it fits the window as a whole.
        window_share: of its tokens, what a first question is given at most.
        reading: how long the model needs for these; None if nobody knows.
    """

    tokens: str
    window_tokens: int
    fits: bool
    window_share: float
    reading: ReadingTime | None


def sample_listing(assistant: Assistant, search: str) -> list[dict[str, Any]]:
    """The sample books that can be added; with words, those that have them in title or author.

    Returns:
        The fields of each `SampleBook`, its document_id, and those of `SampleReading` in `reading`, which is None
        before the model is loaded.
    """
    words = search.casefold().split()
    return [
        {
            "document_id": book.document_id,
            "title": book.title,
            "author": book.author,
            "page_count": book.page_count,
            "reading": None if (reading := assistant.sample_reading(book)) is None else asdict(reading),
        }
        for book in SAMPLE_BOOKS
        if all(word in f"{book.title} {book.author}".casefold() for word in words)
        and assistant.library.entry_or_none(book.document_id) is None
    ]


def sample_reading(model: LoadedModel, book: SampleBook, time_of: Callable[[int], ReadingTime | None]) -> SampleReading:
    """What reading a book takes.

    Args:
        model: that would read it.
        book: of which nothing need have been read.
        time_of: how long the model takes for a number of tokens.
    """
    tokens = _estimated_tokens(model.tokenizer, book)
    options = AnswerOptions()
    room_tokens = options.max_new_tokens + model.thinking.room_tokens
    question_tokens = model.planner.first_question_tokens(tokens, options.system_prompt, room_tokens)
    return SampleReading(
        tokens=str(TokenCount(tokens, is_exact=False)),
        window_tokens=model.engine.context_tokens,
        fits=question_tokens >= tokens,
        window_share=question_tokens / tokens,
        reading=time_of(question_tokens),
    )


def _estimated_tokens(tokenizer: ChatTokenizer, book: SampleBook) -> int:
    """Tokens of a book, to three digits: both are English prose of one century."""
    if tokenizer not in _tokens_per_character:
        _tokens_per_character[tokenizer] = tokenizer.count(_stretch()) / _STRETCH_CHARACTERS
    return int(float(f"{book.text_characters * _tokens_per_character[tokenizer]:.2e}"))


@cache
def _stretch() -> str:
    longest = max(SAMPLE_BOOKS, key=lambda book: book.text_characters)
    return longest.path.read_text(encoding="utf-8")[:_STRETCH_CHARACTERS]
