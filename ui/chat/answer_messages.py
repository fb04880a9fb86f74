"""Messages of the chat: what stands in them for questions, answers, and answers that are under way.

Markup only; where the answers come from belongs to `ui.chat.chat_panel`.
"""

import html
import time
from collections.abc import Iterator, Sequence
from typing import Any

from app.chat.answers.answer import (
    AnswerEvent,
    DocumentReading,
    ModelLoading,
    PassagesFound,
    PrefillEvent,
    Queued,
    TokenEvent,
)
from app.chat.conversations.conversation import Turn
from app.evidence.citation import EvidencePassage
from ui.chat.answer_markers import marked_markdown
from ui.chat.answer_row import ending_content
from ui.chat.message_markup import html_content, json_attribute, passages_json
from ui.chat.safe_markdown import safe_markdown
from ui.chat.streamed_markdown import streamed_markdown
from ui.wording import (
    loading_line,
    prefill_line,
    queue_line,
    reading_line,
    stretch_suffix,
)

# Each update makes the browser lay out the message again, and both share this machine's processor with the model.
_UPDATE_S = 0.08

# Of a thought that is under way; all of it is folded up below the answer.
_SHOWN_THOUGHT_CHARACTERS = 400
_ROW_TO_COME = '<div class="row-to-come"></div>'
_STOPPED = "Stopped before the answer."
_UNANSWERED = "Not answered."


def turn_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The messages of turns: a question, and an answer with the row below it."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        messages.append({"role": "user", "content": question_content(turn.question, number, turn)})
        # Gradio leaves out a message without text, and the places of the others would not fit.
        messages.append({"role": "assistant", "content": answer_markdown(turn) or html_content("")})
        messages.append({"role": "assistant", "content": ending_content(turn, number, number == len(turns) - 1)})
    return messages


def unanswered_messages(question: str, was_stopped: bool) -> list[dict[str, Any]]:
    """The messages of a question that got no word of an answer; none without one."""
    if not question:
        return []
    said = _STOPPED if was_stopped else _UNANSWERED
    ask_again = f'<quest-ask-again question="{html.escape(question)}">{said}</quest-ask-again>'
    return [
        {"role": "user", "content": question_content(question)},
        {"role": "assistant", "content": html_content(ask_again)},
    ]


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
    # What comes below the answer when it is complete has its place already.
    below = passages_content(passages, not is_speaking) if passages else html_content(_ROW_TO_COME)
    messages.append({"role": "assistant", "content": below})
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
    return streamed_markdown(event.answer) or thinking_content(event)


def begun_content(answer: str, line: str = "Going on") -> Any:
    """What the message of an answer shows that goes on, before its next word."""
    return f"{safe_markdown(answer)}\n\n*{line} …*"


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
    return html_content(f"<quest-question{attributes}>{html.escape(question)}</quest-question>")


def waiting_content(line: str) -> dict[str, Any]:
    """Message content for a step whose length nobody knows."""
    return html_content(f'<div class="answer-wait"><span class="pulse"></span>{html.escape(line)}</div>')


def reading_content(event: DocumentReading) -> dict[str, Any]:
    """Message content while the question waits for a document's text."""
    line = reading_line(event.name, event.share)
    return waiting_content(line) if event.share is None else _progress_content(line, event.share, 1)


def thinking_content(event: TokenEvent) -> dict[str, Any]:
    """Message content before the answer's first word: the end of the model's thought, if it thinks."""
    if not event.thinking_tokens:
        return waiting_content("Answering")
    return html_content(
        f'<div class="answer-wait"><span class="pulse"></span>Thinking: {event.thinking_tokens:,} tokens</div>'
        f'<div class="answer-thought">{html.escape(event.thinking[-_SHOWN_THOUGHT_CHARACTERS:])}</div>'
    )


def passages_content(passages: Sequence[EvidencePassage], is_unfolded: bool) -> dict[str, Any]:
    """The best passages, to be read while the model reads; folded up once it speaks."""
    unfolded = " unfolded" if is_unfolded else ""
    heading = "Passages found in the text"
    return html_content(
        f'<quest-passages heading="{heading}" passages="{json_attribute(passages_json(passages))}"{unfolded}>'
        "</quest-passages>"
    )


def prefill_content(event: PrefillEvent) -> dict[str, Any]:
    """Message content with the progress of reading the prompt."""
    read = event.progress
    line = prefill_line(read.done_tokens, read.total_tokens, event.remaining_s, reused_tokens=read.reused_tokens)
    line += stretch_suffix(event)
    if line.endswith("Answering"):
        return waiting_content(line)
    return _progress_content(line, read.done_tokens, read.total_tokens)


def _progress_content(line: str, done: float, total: float) -> dict[str, Any]:
    return html_content(
        f'<div class="answer-wait">{html.escape(line)}</div>'
        f'<progress class="answer-progress" value="{done}" max="{total}"></progress>'
    )
