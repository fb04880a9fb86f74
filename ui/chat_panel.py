"""The conversation: ask, watch the answer arrive, stop, ask again, edit a question, clear.

What is shown is always derived from the conversation's turns plus the one that is being answered; the browser keeps
no history of its own that could differ from what the model is told.
"""

import html
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import gradio as gr

from app.chat.answer import AnswerReport, Finished, ModelLoading, PrefillEvent, Queued, TokenEvent
from app.chat.assistant import Assistant
from app.chat.conversation import Conversation, Turn
from app.chat.prompt.passage_notes import passage_notes
from app.errors import UserFacingError, explain
from ui.documents_panel import DocumentsPanel
from ui.notices import notice_line, shown_to_user, user_error, warn
from ui.page_script import WITH_CONVERSATION
from ui.raw_html import raw_html
from ui.safe_markdown import safe_markdown
from ui.settings_panel import SettingsPanel, options
from ui.wording import counted, loading_line, prefill_line, queue_line, rate, seconds, stretch_suffix

# All handlers that use the engine form one group, wide enough that none waits in Gradio's own queue: the engine has
# a queue, and only from that one can the page tell how many are ahead.
ENGINE_QUEUE: dict[str, Any] = {"concurrency_id": "engine", "concurrency_limit": 16}
# Each update makes the browser lay out the message again, and both share this machine's processor with the model.
_UPDATE_S = 0.08

# Of a thought that is under way; all of it is folded up below the answer.
_SHOWN_THOUGHT_CHARACTERS = 400
# The question, the answer, and the line about the answer.
MESSAGES_PER_TURN = 3

EXAMPLE_QUESTIONS = (
    "What is this document about?",
    "Who are the main characters, and what do they want?",
    "How does it end?",
)
# Questions are edited in `assets/js/question-bubble.js`, which tells by an event what was sent.
_TELL_EDITED = 'window.addEventListener("quest-edited", (event) => trigger("click", event.detail));'
# How long a cleared conversation can be brought back; `assets/js/undo.js` takes the offer away then.
_UNDO_S = 10
_TELL_UNDO = """
element.addEventListener("click", (event) => event.target.closest("button") && trigger("click"));
"""
_EMPTY = (
    "### Ask a long document\n"
    "Add a document, or try the sample book, then ask. The model keeps the whole text in context "
    "and reads only the parts of it that each word of the answer needs."
)


class ChatPanel:
    """Messages and question box.

    Args:
        assistant: what answers.
        settings_panel: gives the options of each answer.
        documents_panel: its context meter follows the conversation.
    """

    def __init__(
        self, assistant: Assistant, settings_panel: SettingsPanel, documents_panel: DocumentsPanel
    ) -> None:
        self._assistant = assistant
        self._settings_panel = settings_panel
        self._documents_panel = documents_panel
        self._answering: set[str] = set()
        self._lock = threading.Lock()
        self.messages = gr.Chatbot(
            show_label=False,
            container=False,
            buttons=["copy"],
            layout="bubble",
            placeholder=_EMPTY,
            examples=[{"text": question} for question in EXAMPLE_QUESTIONS],
            # What could be a tag comes as text; see `ui.safe_markdown`.
            allow_tags=False,
            # The line about an answer is a message of its own: Gradio offers to copy only what is all text.
            group_consecutive_messages=False,
            elem_id="messages",
            height=None,
        )
        self._cleared = raw_html(js_on_load=_TELL_UNDO, elem_id="cleared")
        self._edited = raw_html(js_on_load=_TELL_EDITED, elem_id="edited-question", visible="hidden")
        self.question = gr.Textbox(
            placeholder="Ask about the document",
            label="Question",
            show_label=False,
            container=False,
            lines=1,
            max_lines=6,
            submit_btn="Ask",
            elem_id="question",
        )
        notice_line("question")

    def connect(self, conversation_id: gr.Textbox) -> None:
        """Attach the handlers.

        Args:
            conversation_id: the hidden field that holds the tab's conversation.
        """
        shown = [self.messages, self.question, self._documents_panel.meter]
        option_inputs = self._settings_panel.inputs
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        engine = plain | ENGINE_QUEUE
        quick = engine | {"js": WITH_CONVERSATION}
        self.question.submit(self._ask, [conversation_id, self.question, *option_inputs], shown, **quick)
        self.messages.example_select(self._ask_example, [conversation_id, *option_inputs], shown, **quick)
        self.messages.retry(self._regenerate, [conversation_id, *option_inputs], shown, **engine)
        self._edited.click(self._ask_edited, [conversation_id, *option_inputs], shown, **engine)
        # Not queued: a stop must not wait behind what it is to stop.
        self.question.stop(self._stop, conversation_id, None, queue=False, **plain)
        self.messages.clear(self._clear, conversation_id, [*shown, self._cleared], **plain)
        self._cleared.click(self._undo_clear, conversation_id, [*shown, self._cleared], **plain)

    def _ask(self, conversation_id: str, question: str, *option_values: Any) -> Iterator[tuple[Any, ...]]:
        # Whoever calls without a browser may send nothing at all.
        question = (question or "").strip()
        if not question:
            warn("Write a question first.")
            yield gr.skip(), gr.skip(), gr.skip()
            return
        with self._one_answer_at_a_time(conversation_id) as conversation:
            yield from self._stream(conversation, question, option_values)

    def _ask_example(
        self, event: gr.SelectData, conversation_id: str, *option_values: Any
    ) -> Iterator[tuple[Any, ...]]:
        yield from self._ask(conversation_id, event.value["text"], *option_values)

    def _regenerate(
        self, event: gr.RetryData, conversation_id: str, *option_values: Any
    ) -> Iterator[tuple[Any, ...]]:
        with self._one_answer_at_a_time(conversation_id) as conversation:
            index = event.index[0] if isinstance(event.index, (list, tuple)) else event.index
            yield from self._answer_again(conversation, int(index) // MESSAGES_PER_TURN, None, option_values)

    def _ask_edited(
        self, event: gr.EventData, conversation_id: str, *option_values: Any
    ) -> Iterator[tuple[Any, ...]]:
        # Our own script sends a number; whoever else calls may send anything.
        turn = event.turn if isinstance(event.turn, int) else -1
        with self._one_answer_at_a_time(conversation_id) as conversation:
            yield from self._answer_again(conversation, turn, str(event.question).strip(), option_values)

    def _answer_again(
        self, conversation: Conversation, turn: int, question: str | None, option_values: tuple[Any, ...]
    ) -> Iterator[tuple[Any, ...]]:
        """Go back to before a turn and ask its question, or the one that replaces it."""
        if not 0 <= turn < len(conversation.turns):
            yield turn_messages(conversation.turns), gr.skip(), gr.skip()
            return
        question = question or conversation.turns[turn].question
        with shown_to_user():
            self._assistant.truncate_turns(conversation, turn)
        yield from self._stream(conversation, question, option_values)

    def _stream(
        self, conversation: Conversation, question: str, option_values: tuple[Any, ...]
    ) -> Iterator[tuple[Any, ...]]:
        """Answer and yield (messages, question box, context meter) as it comes."""
        earlier = turn_messages(conversation.turns)
        asked = {"role": "user", "content": question_content(question)}

        def shown(content: Any) -> list[dict[str, Any]]:
            return [*earlier, asked, {"role": "assistant", "content": content}]

        yield shown(waiting_content(queue_line(0))), gr.update(value="", submit_btn=False, stop_btn="Stop"), gr.skip()
        lost_question: Any = {}
        failure = None
        try:
            answer_options = options(*option_values)
            with closing(self._assistant.answer(conversation, question, answer_options)) as events:
                for content in paced_contents(events):
                    yield shown(content), gr.skip(), gr.skip()
        except ValueError as error:
            # A combination of settings that the engine refuses; it says which.
            failure = UserFacingError(f"These settings do not go together: {error}")
        except Exception as error:
            # Whatever it is: the button must not stay, nor the question be lost.
            failure = explain(error, "The answer")
        unkept = len(conversation.turns) * MESSAGES_PER_TURN == len(earlier)
        if failure is not None or unkept:
            lost_question = {"value": question}
        if failure is None and unkept and not conversation.cancelled.is_set():
            warn("The model ended its answer before its first word. Ask in other words.")
        yield (
            turn_messages(conversation.turns),
            gr.update(submit_btn="Ask", stop_btn=False, **lost_question),
            self._documents_panel.meter_markup(conversation),
        )
        if failure is not None:
            raise user_error(str(failure)) from failure

    def _stop(self, conversation_id: str) -> None:
        with shown_to_user():
            self._assistant.cancel(self._assistant.conversation(conversation_id))

    def _clear(self, conversation_id: str) -> tuple[Any, ...]:
        with shown_to_user():
            conversation = self._assistant.conversation(conversation_id)
        offer = ""
        try:
            cleared_turns = self._assistant.clear_turns(conversation)
            offer = undo_markup(cleared_turns) if cleared_turns else ""
        except UserFacingError as error:
            # The browser has emptied its list already; it gets back what is still there.
            warn(error.message)
        return turn_messages(conversation.turns), gr.skip(), self._documents_panel.meter_markup(conversation), offer

    def _undo_clear(self, conversation_id: str) -> tuple[Any, ...]:
        with shown_to_user():
            conversation = self._assistant.conversation(conversation_id)
            self._assistant.restore_turns(conversation)
        return turn_messages(conversation.turns), gr.skip(), self._documents_panel.meter_markup(conversation), ""

    @contextmanager
    def _one_answer_at_a_time(self, conversation_id: str) -> Iterator[Conversation]:
        with shown_to_user():
            conversation = self._assistant.conversation(conversation_id)
        with self._lock:
            if conversation_id in self._answering:
                raise user_error("The last answer is still being written. Stop it, or wait for its end.")
            self._answering.add(conversation_id)
        try:
            yield conversation
        finally:
            with self._lock:
                self._answering.discard(conversation_id)


def paced_contents(events: Iterator[Any]) -> Iterator[Any]:
    """What the answer's message shows, at most every `_UPDATE_S`, for the events of an answer."""
    shown_at = 0.0
    for event in events:
        if isinstance(event, Finished):
            return
        # Progress is rare and always shown; tokens are many, and each carries the whole answer so far.
        if isinstance(event, TokenEvent) and time.monotonic() - shown_at < _UPDATE_S:
            continue
        if isinstance(event, ModelLoading):
            yield waiting_content(loading_line(event.message))
        elif isinstance(event, Queued):
            yield waiting_content(queue_line(event.jobs_ahead))
        elif isinstance(event, PrefillEvent):
            yield prefill_content(event)
        elif isinstance(event, TokenEvent):
            shown_at = time.monotonic()
            yield safe_markdown(event.answer) or thinking_content(event)


def turn_messages(turns: list[Turn]) -> list[dict[str, Any]]:
    """The messages of finished turns: a question, and an answer with the line about it."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        messages.append({"role": "user", "content": question_content(turn.question, number)})
        messages.append({"role": "assistant", "content": safe_markdown(turn.answer)})
        messages.append({"role": "assistant", "content": report_content(turn.report)})
    return messages


def question_content(question: str, turn: int | None = None) -> dict[str, Any]:
    """A question as it was typed, with a button to edit it once it belongs to a finished `turn`."""
    editable = "" if turn is None else f' turn="{turn}"'
    return _html_content(f"<quest-question{editable}>{html.escape(question)}</quest-question>")


def undo_markup(turn_count: int) -> str:
    """What stands above the question box after a conversation was cleared."""
    # Markup that is the same as before would not be put in again: hence the time.
    return (
        f'<quest-undo seconds="{_UNDO_S}" since="{time.monotonic_ns()}" role="status">'
        f'{counted(turn_count, "answer")} cleared. <button type="button">Undo</button></quest-undo>'
    )


def waiting_content(line: str) -> dict[str, Any]:
    """Message content for a step whose length nobody knows."""
    return _html_content(f'<div class="answer-wait"><span class="pulse"></span>{html.escape(line)}</div>')


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
    line = html.escape(prefill_line(event.done_tokens, event.total_tokens, event.remaining_s) + stretch_suffix(event))
    return _html_content(
        f'<div class="answer-wait">{line}</div>'
        f'<progress class="answer-progress" value="{event.done_tokens}" max="{event.total_tokens}"></progress>'
    )


def report_content(report: AnswerReport) -> dict[str, Any]:
    """The lines below an answer: how fast it came, what was reused, and what was read of a text that is too long."""
    parts = []
    if report.decode_tokens_per_s:
        parts.append(rate(report.decode_tokens_per_s))
    # Stopped before its first token, an answer has none of these.
    if report.time_to_first_token_s is not None:
        parts.append(f"first token after {seconds(report.time_to_first_token_s)}")
    parts.append(f"{report.reused_tokens:,} of {report.prompt_tokens:,} prompt tokens reused")
    if report.stretch_factor != 1.0:
        parts.append(f"positions stretched {report.stretch_factor:.3g} times")
    if report.finish_reason == "cancelled":
        parts.append("stopped")
    elif report.finish_reason == "length":
        parts.append("cut at the longest answer")
    elif report.finish_reason == "context":
        parts.append("the window is full")
    lines = [" · ".join(parts), *(f"{note[0].upper()}{note[1:]}." for note in passage_notes(report))]
    markup = f'<div class="answer-report">{"<br>".join(map(html.escape, lines))}</div>'
    if report.thinking:
        markup = (
            f'<details class="answer-thought"><summary>Thought: {report.thinking_tokens:,} tokens</summary>'
            f"{html.escape(report.thinking)}</details>{markup}"
        )
    return _html_content(markup)


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
