"""The sources of an answer as the page's scripts read them: of a turn, or of the answer that is being made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from app.chat.answers.answer import AnswerReport
from app.chat.conversations.conversation import Conversation, Turn
from app.errors import UserFacingError


def answer_sources(
    conversation: Conversation, turn_id: str, all_turns: Callable[[Conversation], list[Turn]]
) -> dict[str, Any]:
    """What stands beside an answer.

    Args:
        conversation: whose answer it is.
        turn_id: of its turn, on whatever branch, or of the answer that is being made.
        all_turns: of a conversation, from the store.

    Returns:
        turn_id; running, whether it is still being made; passages_found, citations and unsupported, as the dataclasses
        of `app.evidence.citation`, the last two empty while it is running; pages_read: document, document_id ("" where
        the report does not say), page_label, page_index (-1), share, read_score (None where not known).

    Raises:
        UserFacingError: if there is no such answer.
    """
    running = conversation.running
    if running is not None and running.turn_id == turn_id:
        found = running.passages_found
        passages = [asdict(passage) for passage in found.passages] if found else []
        return _sources(turn_id, True, passages, None)
    turn = next((turn for turn in conversation.turns if turn.turn_id == turn_id), None)
    if turn is None:
        turn = next((turn for turn in all_turns(conversation) if turn.turn_id == turn_id), None)
    if turn is None:
        raise UserFacingError("There is no such answer in this conversation. Reload the page.")
    passages = [] if turn.report is None else [asdict(passage) for passage in turn.report.passages_found]
    return _sources(turn_id, False, passages, turn.report)


def _sources(turn_id: str, running: bool, passages: list[dict], report: AnswerReport | None) -> dict[str, Any]:
    return {
        "turn_id": turn_id,
        "running": running,
        "passages_found": passages,
        "citations": [] if report is None else [asdict(citation) for citation in report.citations],
        "unsupported": [] if report is None else [asdict(sentence) for sentence in report.unsupported],
        "pages_read": [] if report is None else [asdict(page) for page in report.pages_read],
    }
