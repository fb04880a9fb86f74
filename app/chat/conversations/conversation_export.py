"""A conversation as a file of its own: Markdown to read, JSON to work with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.chat.answers.reads.reading_words import reading_words
from app.chat.conversations.conversation import Conversation, Turn

_ENDINGS = {
    "stopped": "The answer was stopped here.",
    "interrupted": "The answer was interrupted here: Quest Chat ended.",
    "failed": "The answer failed here.",
}
_UNTITLED = "Conversation"


def exported_markdown(conversation: Conversation, document_names: Sequence[str]) -> str:
    """Title, documents, and each question with its answer."""
    parts = [f"# {conversation.title or _UNTITLED}"]
    if document_names:
        parts.append("\n".join(["Documents:", "", *(f"- {name}" for name in document_names)]))
    for turn in conversation.turns:
        parts += ["## Question", turn.question, "## Answer", turn.answer or "(none)"]
        if turn.state in _ENDINGS:
            parts.append(f"*{_ENDINGS[turn.state]}*")
        if turn.report is not None:
            parts.append(f"*{_about(turn)}*")
    if question := _unanswered(conversation):
        parts += ["## Question without an answer", question]
    return "\n\n".join(parts) + "\n"


def exported_json(conversation: Conversation, document_names: Sequence[str], stored_turns: Sequence[Turn]) -> str:
    """All that is known of each turn, those of other branches apart; reports as in `ask --json`.

    Args:
        conversation: its turns may be changing.
        document_names: as the library shows them.
        stored_turns: of all branches.
    """
    turns = list(conversation.turns)
    shown_ids = {turn.turn_id for turn in turns}
    values = {
        "conversation_id": conversation.conversation_id,
        "title": conversation.title,
        "documents": list(document_names),
        "turns": [_turn_values(turn) for turn in turns],
        "other_turns": [_turn_values(turn) for turn in stored_turns if turn.turn_id not in shown_ids],
        "unanswered": _unanswered(conversation),
    }
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def _unanswered(conversation: Conversation) -> str:
    """The question that has no answer, or none yet."""
    running = conversation.running
    return conversation.unanswered or (running.question if running is not None else "")


def _turn_values(turn: Turn) -> dict[str, Any]:
    return {
        "turn_id": turn.turn_id,
        "parent_id": turn.parent_id,
        "question": turn.question,
        "answer": turn.answer,
        "state": turn.state,
        "report": turn.report and turn.report.to_json(),
    }


def _about(turn: Turn) -> str:
    report = turn.report
    parts = [report.model, reading_words(report), f"{report.decode_tokens} tokens"]
    return ", ".join([*parts, *(f"{name} left out" for name in report.left_out)])
