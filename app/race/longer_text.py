"""As much of the documents as the window holds, for a race over a long text.

An answer about documents that are longer than the window is made from passages, a few thousand tokens; what Quest saves
shows over more. Here the documents are taken from their beginning until the window is full. Knows nothing of races.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import PromptPlan, PromptPlanner
from app.chat.prompt.template import ChatTokenizer
from app.library import Document

# The document's name, what stands between pages and around the question: what `left_tokens` does not count.
_DOCUMENT_TOKENS, _PAGE_TOKENS = 64, 4
_SHORTEN_BY = 0.97


def window_plan(
    planner: PromptPlanner,
    tokenizer: ChatTokenizer,
    context_tokens: int,
    documents: Sequence[Document],
    question: str,
    system_prompt: str,
    room_tokens: int,
) -> PromptPlan:
    """A prompt with the beginning of the documents, without former turns.

    Args:
        planner, tokenizer, context_tokens: the model's.
        documents: those of the conversation.
        question, system_prompt: as in every prompt.
        room_tokens: kept free for the answer.

    Raises:
        UserFacingError: if question and answer leave no room.
    """
    without = planner.plan([], (), question, system_prompt, room_tokens)
    left_tokens = context_tokens - len(without.token_ids) - room_tokens
    whole_tokens = TokenCount.total(map(planner.document_tokens, documents))
    while True:
        fitting = fitting_documents(tokenizer, documents, left_tokens)
        plan = planner.plan(fitting, (), question, system_prompt, room_tokens)
        if plan.mode == "whole" or left_tokens < _DOCUMENT_TOKENS:
            return replace(plan, document_tokens=whole_tokens)
        left_tokens = int(left_tokens * _SHORTEN_BY)


def fitting_documents(tokenizer: ChatTokenizer, documents: Sequence[Document], limit_tokens: int) -> list[Document]:
    """The documents up to where their text has `limit_tokens`; the last may end within a page."""
    fitting: list[Document] = []
    for document in documents:
        limit_tokens -= _DOCUMENT_TOKENS
        pages = []
        for page in document.document_pages:
            if limit_tokens <= 0:
                break
            encoded = tokenizer.encode(page.text)
            tokens = len(encoded.token_ids) + _PAGE_TOKENS
            if tokens > limit_tokens:
                kept = max(0, limit_tokens - _PAGE_TOKENS)
                pages.append(replace(page, text=page.text[: int(encoded.characters[kept - 1, 1])] if kept else ""))
                limit_tokens = 0
                break
            pages.append(page)
            limit_tokens -= tokens
        if pages:
            fitting.append(replace(document, document_pages=tuple(pages)))
    return fitting
