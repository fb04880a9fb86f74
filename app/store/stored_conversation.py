"""A conversation as it is kept: plain data, without the database.

Knows nothing of how it came about or is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# "answering" is a turn whose answer is under way; one that a killed process left so becomes "interrupted".
TurnState = Literal["answering", "finished", "stopped", "interrupted", "failed"]


@dataclass(frozen=True)
class StoredTurn:
    """A question and what was answered.

    Args:
        turn_id: unique in the database; later turns have higher ones.
        parent_id: the turn it follows; None for a first one.
        question, answer: texts; the answer as far as it came.
        state: see `TurnState`.
        report: how the answer was made, as `AnswerReport` says it to JSON; None if it has not come to its end.
        token_ids: of the answer.
        created_at: seconds since 1970.
        siblings: all turns that follow the same turn, this one too, oldest first.
        thinking: what the model thought before it answered.
    """

    turn_id: int
    parent_id: int | None
    question: str
    answer: str
    state: TurnState
    report: dict[str, Any] | None
    token_ids: tuple[int, ...]
    created_at: float
    siblings: tuple[int, ...]
    thinking: str = ""


@dataclass(frozen=True)
class StoredDocument:
    """A document of a conversation; `was_read` once the model has read it there."""

    document_id: str
    was_read: bool


@dataclass(frozen=True)
class StoredConversation:
    """A conversation with its active branch.

    Args:
        conversation_id: 32 hexadecimal digits.
        title: "" until it has a first question, or was given one.
        documents: in their order.
        turns: of the active branch, in order.
        unanswered: the question that has got no word of an answer; "" if there is none.
        created_at, updated_at: seconds since 1970.
    """

    conversation_id: str
    title: str
    documents: tuple[StoredDocument, ...]
    turns: tuple[StoredTurn, ...]
    unanswered: str
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class ConversationSummary:
    """A conversation in a list.

    Args:
        conversation_id: 32 hexadecimal digits.
        title: "" if it has no question yet, and no name of its own.
        updated_at: seconds since 1970.
        turns: of its active branch.
        document_names: as the library shows them, in order.
    """

    conversation_id: str
    title: str
    updated_at: float
    turns: int
    document_names: tuple[str, ...]
