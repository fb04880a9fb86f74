"""A question in another language than the documents' is translated by the model, so that it can be searched for.

A short generation of its own before the prompt is planned. A bad translation does no harm: the question's own words are
searched for, too. Knows nothing of prompts with documents.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from app.chat.answers.answer import Queued
from app.chat.answers.language_guess import asks_in_another_language, documents_language, guess_language
from app.chat.conversations.conversation import Conversation
from app.chat.engine_jobs import run_job
from app.library import Document, question_words

if TYPE_CHECKING:
    from app.models.model_loader import LoadedModel
    from quest_core.engine import Cancellation

_INSTRUCTIONS = "You are a translator."
_MAX_TOKENS = 48
# A question longer than this has words enough.
_MOST_CHARACTERS = 400


def translated_question(
    model: LoadedModel, conversation: Conversation, documents: Sequence[Document], question: str
) -> Generator[Queued, None, str]:
    """The question in the documents' language, if it is in another; "" otherwise, and if it was cancelled.

    Yields:
        `Queued` while others are served.

    Raises:
        UserFacingError: for whatever stops the engine, or llama-index is not installed.
    """
    language = documents_language(documents)
    words = question_words(documents, question)
    if len(question) > _MOST_CHARACTERS or not asks_in_another_language(question, words, language):
        return ""
    translation = ""
    with closing(run_job(conversation, model.engine, _translation_work(model, question, language))) as events:
        for event in events:
            if isinstance(event, Queued):
                yield event
            else:
                translation = event
    translation = translation.strip()
    # A model that cannot translate repeats the question, or goes on in its language.
    return translation if guess_language(translation, preferred=language) == language else ""


def _translation_work(model: LoadedModel, question: str, language: str) -> Callable[[Cancellation], Iterator[str]]:
    """What the engine's thread does: yields the text so far, of one line."""
    from quest_core.config import QuestConfig, SamplingConfig

    tokenizer = model.tokenizer
    task = f"Translate this question into {language}. Write only the translation.\n\n{question}"
    token_ids = [
        *tokenizer.before_system,
        *tokenizer.encode(_INSTRUCTIONS).token_ids,
        *tokenizer.before_question,
        *tokenizer.encode(task).token_ids,
        *tokenizer.before_answer,
        *(tokenizer.end_of_thought if tokenizer.opens_thought else ()),
    ]
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=_MAX_TOKENS, stop_token_ids=model.stop_token_ids)

    def work(cancellation: Cancellation) -> Iterator[str]:
        session, drawn = model.engine.new_session(), []
        try:
            for _ in session.prefill(token_ids, cancellation, _MAX_TOKENS):
                pass
            if cancellation.requested:
                return
            for step in session.decode(QuestConfig(attention="dense"), sampling, cancellation, trace_reads=False):
                if step.finish_reason == "stop":
                    return
                drawn.append(step.token_id)
                text = tokenizer.decode(drawn).lstrip()
                yield text.partition("\n")[0]
                if "\n" in text:
                    return
        finally:
            session.close()

    return work
