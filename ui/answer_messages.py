"""Messages of the chat: what stands in them for questions, answers, and answers that are under way.

Markup only; where the answers come from is `ui.chat_panel`'s business.
"""

import html
import time
from collections.abc import Iterator, Sequence
from typing import Any

from app.chat.answer import (
    AnswerEvent,
    AnswerReport,
    DocumentReading,
    ModelLoading,
    PrefillEvent,
    Queued,
    TokenEvent,
)
from app.chat.conversation import Turn
from app.chat.prompt.passage_notes import passage_notes
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
# The question, the answer, and the line about the answer.
MESSAGES_PER_TURN = 3
# What is said of a turn that did not come to its end.
_ENDINGS = {
    "interrupted": "Quest Chat ended while this was written. Retry asks again.",
    "failed": "This answer failed on the way. Retry asks again.",
    "answering": "This answer is still being written.",
}


def turn_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The messages of turns: a question, and an answer with the line about it."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        messages.append({"role": "user", "content": question_content(turn.question, number, turn)})
        # Gradio leaves out a message without text, and the places of the others would not fit.
        messages.append({"role": "assistant", "content": safe_markdown(turn.answer) or _html_content("")})
        messages.append({"role": "assistant", "content": ending_content(turn)})
    return messages


def running_messages(question: str, content: Any) -> list[dict[str, Any]]:
    """The messages of a question that is being answered."""
    return [
        {"role": "user", "content": question_content(question)},
        {"role": "assistant", "content": content},
    ]


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


def prefill_content(event: PrefillEvent) -> dict[str, Any]:
    """Message content with the progress of reading the prompt."""
    line = prefill_line(event.done_tokens, event.total_tokens, event.remaining_s) + stretch_suffix(event)
    return _progress_content(line, event.done_tokens, event.total_tokens)


def ending_content(turn: Turn) -> dict[str, Any]:
    """The line below an answer: how it was made, or why there is no more of it."""
    if turn.report is not None and turn.state in ("finished", "stopped"):
        return report_content(turn.report)
    line = _ENDINGS.get(turn.state, "How this answer was made is not known any more.")
    return _html_content(f'<div class="answer-report" data-state="{turn.state}">{html.escape(line)}</div>')


def report_content(report: AnswerReport) -> dict[str, Any]:
    """The lines below an answer: how fast it came, what was reused, and what was read of a text that is too long."""
    parts = []
    if report.decode_tokens_per_s:
        parts.append(rate(report.decode_tokens_per_s))
    # Stopped before its first token, an answer has none of these.
    if report.time_to_first_token_s is not None:
        parts.append(f"first token after {seconds(report.time_to_first_token_s)}")
    restored = f", {report.restored_tokens:,} from the disk" if report.restored_tokens else ""
    parts.append(f"{report.reused_tokens:,} of {report.prompt_tokens:,} prompt tokens reused{restored}")
    if report.stretch_factor != 1.0:
        parts.append(f"positions stretched {report.stretch_factor:.3g} times")
    if report.finish_reason == "cancelled":
        parts.append("stopped")
    elif report.finish_reason == "length":
        parts.append("cut at the longest answer")
    elif report.finish_reason == "context":
        parts.append("the window is full")
    lines = [" · ".join(parts), *(f"{note[0].upper()}{note[1:]}." for note in passage_notes(report))]
    if report.left_out:
        still = "is still being read and was" if len(report.left_out) == 1 else "are still being read and were"
        lines.append(f"{listed(report.left_out)} {still} left out.")
    if report.warning:
        lines.append(report.warning)
    markup = f'<div class="answer-report">{"<br>".join(map(html.escape, lines))}</div>'
    if report.thinking:
        markup = (
            f'<details class="answer-thought"><summary>Thought: {report.thinking_tokens:,} tokens</summary>'
            f"{html.escape(report.thinking)}</details>{markup}"
        )
    return _html_content(markup)


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
