"""Messages of the chat: what stands in them for questions, answers, and answers that are under way.

Markup only; where the answers come from is `ui.chat_panel`'s business.
"""

import html
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from app.chat.answer import (
    AnswerEvent,
    AnswerReport,
    DocumentReading,
    ModelLoading,
    PassagesFound,
    PrefillEvent,
    Queued,
    TokenEvent,
)
from app.chat.conversation import Turn
from app.chat.prompt.passage_notes import passage_notes
from app.evidence.citation import EvidencePassage
from ui.answer_markers import marked_markdown
from ui.safe_markdown import safe_markdown
from ui.wording import (
    listed,
    loading_line,
    prefill_line,
    queue_line,
    rate,
    reading_line,
    seconds,
    stretch_suffix,
)

# Each update makes the browser lay out the message again, and both share this machine's processor with the model.
_UPDATE_S = 0.08

# Of a thought that is under way; all of it is folded up below the answer.
_SHOWN_THOUGHT_CHARACTERS = 400
# The question, the answer, and the row below the answer.
MESSAGES_PER_TURN = 3
# Of the passages found before an answer: more would push the answer out of sight.
_SHOWN_PASSAGES = 3
_PASSAGE_CHARACTERS = 600
# What is said of a turn that did not come to its end.
_ENDINGS = {
    "interrupted": "Quest Chat ended while this was written. Retry asks again.",
    "failed": "This answer failed on the way. Retry asks again.",
    "answering": "This answer is still being written.",
}


def turn_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The messages of turns: a question, and an answer with the row below it."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        messages.append({"role": "user", "content": question_content(turn.question, number, turn)})
        # Gradio leaves out a message without text, and the places of the others would not fit.
        messages.append({"role": "assistant", "content": answer_markdown(turn) or _html_content("")})
        messages.append({"role": "assistant", "content": ending_content(turn, number)})
    return messages


def answer_markdown(turn: Turn) -> str:
    """A turn's answer with the marks of its sources."""
    # Their characters are those of the report's answer.
    if turn.report is None or turn.report.answer != turn.answer:
        return safe_markdown(turn.answer)
    return marked_markdown(turn.answer, turn.report.citations, turn.report.unsupported)


def running_messages(
    question: str, content: Any, passages: Sequence[EvidencePassage] = (), is_speaking: bool = False
) -> list[dict[str, Any]]:
    """The messages of a question that is being answered.

    Args:
        question: its text.
        content: what there is of the answer, or what it waits for.
        passages: found for it.
        is_speaking: whether the answer has begun; the passages are folded up then.
    """
    messages = [
        {"role": "user", "content": question_content(question)},
        {"role": "assistant", "content": content},
    ]
    if passages:
        messages.append({"role": "assistant", "content": passages_content(passages, not is_speaking)})
    return messages


def paced(events: Iterator[AnswerEvent]) -> Iterator[AnswerEvent]:
    """The events of an answer, its tokens at most every `_UPDATE_S`."""
    for event in events:
        yield event
        # Each token carries the whole answer so far: those that come meanwhile are missed without a loss.
        if isinstance(event, TokenEvent):
            time.sleep(_UPDATE_S)


def event_content(event: AnswerEvent) -> Any:
    """What the answer's message shows after an event; not for `Finished`."""
    if isinstance(event, ModelLoading):
        return waiting_content(loading_line(event.message))
    if isinstance(event, PassagesFound):
        return waiting_content(queue_line(0))
    if isinstance(event, DocumentReading):
        return reading_content(event)
    if isinstance(event, Queued):
        return waiting_content(queue_line(event.jobs_ahead))
    if isinstance(event, PrefillEvent):
        return prefill_content(event)
    return safe_markdown(event.answer) or thinking_content(event)


def question_content(question: str, number: int | None = None, turn: Turn | None = None) -> dict[str, Any]:
    """A question as it was typed.

    Args:
        question: its text.
        number: of its turn once that is over: it can be edited then.
        turn: with other turns in its place, the question offers to go to them.
    """
    attributes = "" if number is None else f' turn="{number}"'
    if turn is not None and len(turn.siblings) > 1:
        attributes += f' turn-id="{html.escape(turn.turn_id)}" siblings="{html.escape(" ".join(turn.siblings))}"'
    return _html_content(f"<quest-question{attributes}>{html.escape(question)}</quest-question>")


def waiting_content(line: str) -> dict[str, Any]:
    """Message content for a step whose length nobody knows."""
    return _html_content(f'<div class="answer-wait"><span class="pulse"></span>{html.escape(line)}</div>')


def reading_content(event: DocumentReading) -> dict[str, Any]:
    """Message content while the question waits for a document's text."""
    line = reading_line(event.name, event.share)
    return waiting_content(line) if event.share is None else _progress_content(line, event.share, 1)


def thinking_content(event: TokenEvent) -> dict[str, Any]:
    """Message content before the answer's first word: the end of the model's thought, if it thinks."""
    if not event.thinking_tokens:
        return waiting_content("Answering")
    return _html_content(
        f'<div class="answer-wait"><span class="pulse"></span>Thinking: {event.thinking_tokens:,} tokens</div>'
        f'<div class="answer-thought">{html.escape(event.thinking[-_SHOWN_THOUGHT_CHARACTERS:])}</div>'
    )


def passages_content(passages: Sequence[EvidencePassage], is_unfolded: bool) -> dict[str, Any]:
    """The best passages, to be read while the model reads; folded up once it speaks."""
    unfolded = " unfolded" if is_unfolded else ""
    heading = "Passages found in the text"
    return _html_content(
        f'<quest-passages heading="{heading}" passages="{_json_attribute(_passages_json(passages))}"{unfolded}>'
        "</quest-passages>"
    )


def prefill_content(event: PrefillEvent) -> dict[str, Any]:
    """Message content with the progress of reading the prompt."""
    line = prefill_line(event.done_tokens, event.total_tokens, event.remaining_s) + stretch_suffix(event)
    return _progress_content(line, event.done_tokens, event.total_tokens)


def ending_content(turn: Turn, number: int | None = None) -> dict[str, Any]:
    """The row below an answer: its sources and how it was made, or why there is no more of it."""
    if turn.report is not None and turn.state in ("finished", "stopped"):
        return report_content(turn.report, number, turn.turn_id)
    line = _ENDINGS.get(turn.state, "How this answer was made is not known any more.")
    return _row_content(turn.answer, number, turn.turn_id, [("said", line)], state=turn.state)


def report_content(report: AnswerReport, number: int | None = None, turn_id: str = "") -> dict[str, Any]:
    """The row below an answer.

    In the open: sources, speed, and what must be known; behind the row's info button how the answer was made.

    Args:
        report: of the answer.
        number: of its turn, for Retry; None offers none.
        turn_id: of its turn.
    """
    slots = [("said", line) for line in _must_be_known(report)]
    in_passages = ["read in passages"] if report.passages is not None else []
    if speed := [rate(report.decode_tokens_per_s)] * bool(report.decode_tokens_per_s) + in_passages:
        slots.append(("speed", " · ".join(speed)))
    slots += [("details", line) for line in _details(report)]
    sources = {
        "citations": [asdict(one) for one in report.citations],
        "unsupported": len(report.unsupported),
        "passages_found": _passages_json(report.passages_found),
    }
    return _row_content(report.answer, number, turn_id, slots, sources, report)


def _must_be_known(report: AnswerReport) -> list[str]:
    """Sentences that are never folded away: what is missing from an answer, and what went wrong."""
    lines = []
    if report.finish_reason == "cancelled":
        lines.append("Stopped.")
    elif report.finish_reason == "length":
        lines.append("Cut at the longest answer; Settings has its length.")
    elif report.finish_reason == "context":
        lines.append("Cut because the window is full.")
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
        parts.append(f"first token after {seconds(report.time_to_first_token_s)}")
    restored = f", {report.restored_tokens:,} from the disk" if report.restored_tokens else ""
    parts.append(f"{report.reused_tokens:,} of {report.prompt_tokens:,} prompt tokens reused{restored}")
    if report.stretch_factor != 1.0:
        parts.append(f"positions stretched {report.stretch_factor:.3g} times")
    line = " · ".join(parts)
    lines = [f"{line[0].upper()}{line[1:]}"]
    if report.passages is not None and report.passages.found_words:
        lines += _notes(report)
    return lines


def _notes(report: AnswerReport) -> list[str]:
    return [f"{note[0].upper()}{note[1:]}." for note in passage_notes(report)]


def _row_content(
    answer: str,
    number: int | None,
    turn_id: str,
    slots: Sequence[tuple[str, str]],
    sources: dict[str, Any] | None = None,
    report: AnswerReport | None = None,
    state: str = "finished",
) -> dict[str, Any]:
    attributes = f' answer="{html.escape(answer)}" data-state="{state}"'
    if number is not None:
        attributes += f' turn="{number}" turn-id="{html.escape(turn_id)}"'
    if sources is not None:
        attributes += f' sources="{_json_attribute(sources)}"'
    # A span, because Gradio gives paragraphs margins of their own.
    markup = "".join(f'<span slot="{slot}">{html.escape(line)}</span>' for slot, line in slots)
    if report is not None and report.thinking:
        summary = f"<summary>Thought: {report.thinking_tokens:,} tokens</summary>"
        thought = html.escape(report.thinking)
        markup += f'<details class="answer-thought" slot="details">{summary}{thought}</details>'
    return _html_content(f'<quest-answer-row class="answer-report"{attributes}>{markup}</quest-answer-row>')


def _passages_json(passages: Sequence[EvidencePassage]) -> list[dict[str, Any]]:
    return [asdict(one) | {"text": one.text[:_PASSAGE_CHARACTERS]} for one in passages[:_SHOWN_PASSAGES]]


def _json_attribute(value: Any) -> str:
    return html.escape(json.dumps(value, ensure_ascii=False))


def _progress_content(line: str, done: float, total: float) -> dict[str, Any]:
    return _html_content(
        f'<div class="answer-wait">{html.escape(line)}</div>'
        f'<progress class="answer-progress" value="{done}" max="{total}"></progress>'
    )


def _html_content(markup: str) -> dict[str, Any]:
    # The wire form of a `gr.HTML` in a message. Building the component anew for each earlier answer at each token
    # costs more than the answer's own text.
    return {
        "type": "component",
        "component": "html",
        "value": markup,
        "constructor_args": {},
        "props": {"html_template": "${value}", "css_template": "", "js_on_load": None, "apply_default_css": False},
    }
