"""A conversation's turns as a model is told of them: one that another model answered has other tokens."""

from __future__ import annotations

from dataclasses import replace

from app.chat.conversations.conversation import Conversation, Turn
from app.models.model_loader import LoadedModel


def told_turns(model: LoadedModel, conversation: Conversation) -> list[Turn]:
    """The turns as this model is told of them; they stay so."""
    with conversation.lock:
        if conversation.checked_by is not model.tokenizer:
            conversation.checked_by = model.tokenizer
            conversation.checked_ids.clear()
        for index, turn in enumerate(conversation.turns):
            if turn.turn_id in conversation.checked_ids or not turn.answer:
                continue
            conversation.checked_ids.add(turn.turn_id)
            conversation.turns[index] = as_told(model, turn)
        return list(conversation.turns)


def as_told(model: LoadedModel, turn: Turn) -> Turn:
    """A turn whose answer is in this model's tokens."""
    if not turn.answer or _is_text_of(model, turn):
        return turn
    return replace(turn, answer_token_ids=own_token_ids(model, turn))


def _is_text_of(model: LoadedModel, turn: Turn) -> bool:
    if not all(0 <= token_id < model.vocab_size for token_id in turn.answer_token_ids):
        return False
    return model.tokenizer.decode(turn.answer_token_ids).strip().startswith(turn.answer.strip())


def own_token_ids(model: LoadedModel, turn: Turn) -> tuple[int, ...]:
    """Of a turn's answer, in this model's tokens."""
    return turn.answer_token_ids if _is_text_of(model, turn) else tuple(model.tokenizer.encode(turn.answer).token_ids)
