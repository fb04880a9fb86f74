"""The document pages that an answer has in context, for the strip that shows which of them it looked at.

Of an answer of this run of the program in the order of its prompt, which is that of the heat in its telemetry. After a
restart its prompt is gone: then what the stored report of the last answer says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.chat.answers.answer import AnswerReport
from app.chat.answers.reads.live_reading import heat_levels
from app.chat.answers.reads.page_heat import placed_pages
from app.chat.conversations.conversation import Conversation
from app.library import Document


def document_pages(conversation: Conversation, documents: Sequence[Document]) -> dict[str, Any]:
    """Which document pages stand in the context of a conversation's last answer.

    Args:
        conversation: may be answering.
        documents: of the conversation, whose text is there.

    Returns:
        `documents`: in order, each with document_id, name and `pages` (index and label of each); `end`: what is known
        of an answer that an earlier run of the program made, in the form of its telemetry's "finished", else None.
    """
    plan = conversation.plan
    if plan is not None:
        pages = [(page.document, page.page_index, page.page_label) for page in placed_pages(plan)]
        return {"documents": _listed(pages), "end": None}
    pages = [(document, page.index, page.page_label) for document in documents for page in document.document_pages]
    report = next((turn.report for turn in reversed(conversation.turns) if turn.report is not None), None)
    if report is None:
        return {"documents": [], "end": None}
    return {"documents": _listed(pages), "end": _stored_end(report, pages)}


def _listed(pages: Iterable[tuple[Document, int, str]]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    for document, index, label in pages:
        if not listed or listed[-1]["document_id"] != document.document_id:
            listed.append({"document_id": document.document_id, "name": document.shown_name, "pages": []})
        listed[-1]["pages"].append([index, label])
    return listed


def _stored_end(report: AnswerReport, pages: Sequence[tuple[Document, int, str]]) -> dict[str, Any]:
    scores = {(page.document_id, page.page_index): page.read_score for page in report.pages_read}
    heat = [scores.get((document.document_id, index)) for document, index, _ in pages]
    context_tokens = report.prompt_tokens + report.thinking_tokens + report.decode_tokens
    attended_tokens = report.attended_tokens
    if attended_tokens is None:
        # An older version did not keep it; with Quest it is the budget, but for layers that are told to read all.
        attended_tokens = min(report.token_budget, context_tokens) if report.attention == "quest" else context_tokens
    return {
        "finish_reason": report.finish_reason,
        "attention": report.attention,
        "mode": "whole" if report.passages is None else "passages",
        "attended_tokens": attended_tokens,
        "context_tokens": attended_tokens if report.read_all else context_tokens,
        "drafted_tokens": report.drafted_tokens,
        "accepted_tokens": report.accepted_tokens,
        "mean_missed_share": None,
        "mean_tokens_per_s": report.decode_tokens_per_s or None,
        "time_to_first_token_s": report.time_to_first_token_s,
        "heat": heat_levels(heat) if any(score is not None for score in heat) else None,
        "heat_of": "attention",
    }
