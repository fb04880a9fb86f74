"""The row below an answer: its sources, what can be done with it, and how it was made.

Figures and sentences come as elements with slots, sources as JSON in an attribute; `assets/js/chat/answer-row.js` shows
them.
"""

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.chat.answers.answer import AnswerReport
from app.chat.answers.engine_words import engine_cut_words, estimate_words
from app.chat.conversations.conversation import Turn
from app.chat.prompt.passage_notes import passage_notes
from ui.chat.message_markup import html_content, json_attribute, passages_json
from ui.wording import counted, listed, rate, seconds

# What is said of a turn that did not come to its end.
_ENDINGS = {
    "interrupted": "Quest Chat ended while this was written.",
    "failed": "This answer failed on the way.",
    "answering": "This answer is still being written.",
}


def ending_content(turn: Turn, number: int | None = None, is_last: bool = False) -> dict[str, Any]:
    """The row below an answer: its sources and how it was made, or why there is no more of it.

    Args:
        turn: whose answer it is.
        number: of the turn, for Retry; None offers none.
        is_last: whether nothing follows it: it can go on then, if it was cut.
    """
    goes_on = is_last and bool(turn.answer_token_ids)
    if turn.report is not None and turn.state in ("finished", "stopped"):
        goes_on = goes_on and turn.report.finish_reason in ("length", "cancelled")
        return report_content(turn.report, number, turn.turn_id, turn.question, goes_on)
    line = _ENDINGS.get(turn.state, "How this answer was made is not known any more.")
    if turn.state == "failed" and turn.report is not None and turn.report.warning:
        line = f"{line} {turn.report.warning}"
    goes_on = goes_on and turn.state in ("interrupted", "failed")
    row = _Row(turn.answer, number, turn.turn_id, turn.question, turn.state, goes_on)
    return _row_content(row, [("said", line)])


def report_content(
    report: AnswerReport, number: int | None = None, turn_id: str = "", question: str = "", goes_on: bool = False
) -> dict[str, Any]:
    """The row below an answer.

    In the open: sources, speed, and what must be known; behind the row's info button how the answer was made.

    Args:
        report: of the answer.
        number: of its turn, for Retry; None offers none.
        turn_id: of its turn.
        question: that it answers, to be raced.
        goes_on: whether it was cut and can go on.
    """
    slots = [("said", line) for line in _must_be_known(report)]
    in_passages = ["read in passages"] if report.passages is not None else []
    if speed := [rate(report.decode_tokens_per_s)] * bool(report.decode_tokens_per_s) + in_passages:
        slots.append(("speed", " · ".join(speed)))
    slots += [("details", line) for line in _details(report)]
    sources = {
        "citations": [asdict(one) for one in report.citations],
        "unsupported": len(report.unsupported),
        "passages_found": passages_json(report.passages_found),
    }
    row = _Row(report.answer, number, turn_id, question, "finished", goes_on)
    return _row_content(row, slots, sources, report)


def _must_be_known(report: AnswerReport) -> list[str]:
    """Sentences that are never folded away: what is missing from an answer, and what went wrong."""
    lines = []
    if report.finish_reason == "cancelled":
        lines.append("Stopped.")
    elif report.finish_reason == "length":
        lines.append(f"Cut at {counted(report.decode_tokens, 'token')}.")
    elif report.finish_reason == "context":
        lines.append("Cut: the model can hold no more. Ask on in a new chat, or with fewer documents.")
    elif report.finish_reason == "engine":
        lines.append(engine_cut_words(report))
    if report.passages is not None and not report.passages.found_words:
        lines += _notes(report)
    if report.left_out:
        still = "is still being read and was" if len(report.left_out) == 1 else "are still being read and were"
        lines.append(f"{listed(report.left_out)} {still} left out.")
    if report.warning:
        lines.append(report.warning)
    return lines


def _details(report: AnswerReport) -> list[str]:
    """How an answer was made: times, what was reused, what of a text that is too long was read."""
    parts = []
    # Stopped before its first token, an answer has none.
    if report.time_to_first_token_s is not None:
        parts.append(f"first word after {seconds(report.time_to_first_token_s)}")
    restored = f", {report.restored_tokens:,} of them on the disk" if report.restored_tokens else ""
    if report.tokens_estimated:
        parts.append(estimate_words(report))
    else:
        parts.append(f"{report.reused_tokens:,} of {report.prompt_tokens:,} tokens were read before{restored}")
    if report.stretch_factor != 1.0:
        parts.append(f"the window was stretched {report.stretch_factor:.3g} times")
    if report.drafted_tokens:
        parts.append(f"{report.accepted_tokens:,} of {report.drafted_tokens:,} drafted tokens accepted")
    line = " · ".join(parts)
    lines = [f"{line[0].upper()}{line[1:]}"]
    if report.passages is not None and report.passages.found_words:
        lines += _notes(report)
    return lines


def _notes(report: AnswerReport) -> list[str]:
    return [f"{note[0].upper()}{note[1:]}." for note in passage_notes(report)]


@dataclass(frozen=True)
class _Row:
    """Of which answer a row is: see `report_content`; `state` is that of its turn."""

    answer: str
    number: int | None
    turn_id: str
    question: str
    state: str
    goes_on: bool


def _row_content(
    row: _Row,
    slots: Sequence[tuple[str, str]],
    sources: dict[str, Any] | None = None,
    report: AnswerReport | None = None,
) -> dict[str, Any]:
    attributes = f' answer="{html.escape(row.answer)}" data-state="{row.state}"'
    if row.number is not None:
        attributes += f' turn="{row.number}" turn-id="{html.escape(row.turn_id)}"'
        attributes += f' question="{html.escape(row.question)}"'
    if row.goes_on:
        attributes += " goes-on"
    if sources is not None:
        attributes += f' sources="{json_attribute(sources)}"'
    # A span, because Gradio gives paragraphs margins of their own.
    markup = "".join(f'<span slot="{slot}">{html.escape(line)}</span>' for slot, line in slots)
    if report is not None and report.thinking:
        summary = f"<summary>Thought: {report.thinking_tokens:,} tokens</summary>"
        thought = html.escape(report.thinking)
        markup += f'<details class="answer-thought" slot="details">{summary}{thought}</details>'
    return html_content(f'<quest-answer-row class="answer-report"{attributes}>{markup}</quest-answer-row>')
