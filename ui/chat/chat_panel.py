"""The conversation: ask, watch the answer arrive, stop, ask again, edit a question, go to another branch.

An answer belongs to the server. What asks, edits or stops only tells the assistant; the messages are written by one
handler, `_follow`, which the tab calls when it opens a conversation and whenever it is told that something has changed
(`assets/js/chat/following.js`). What it shows is always derived from the conversation's turns and its running answer.
"""

import html
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from app.chat.answers.answer import AnswerReport, Finished, PassagesFound, TokenEvent
from app.chat.answers.engine_words import engine_cut_words
from app.chat.assistant import Assistant
from app.chat.conversations.conversation import Conversation
from app.chat.example_questions import example_questions
from app.errors import UserFacingError, explain
from app.evidence.citation import EvidencePassage
from app.library import LibraryEntry
from ui.chat.answer_messages import (
    begun_content,
    event_content,
    paced,
    running_messages,
    turn_messages,
    unanswered_messages,
    waiting_content,
)
from ui.chat.safe_markdown import LATEX_DELIMITERS
from ui.chat.start_message import start_messages
from ui.documents_panel import DocumentsPanel
from ui.notices import notice_line, shown_to_user, user_error, warn
from ui.page_script import WITH_CONVERSATION, call_script
from ui.raw_html import raw_html
from ui.settings_panel import SettingsPanel, options
from ui.tab_conversation import tab_conversation
from ui.tab_follower import TabFollower, TabFollowers
from ui.wording import queue_line

# Each tab that follows an answer holds one of Gradio's forty threads: these leave some to the others.
_FOLLOWERS_QUEUE: dict[str, Any] = {"concurrency_id": "followers", "concurrency_limit": 30}

# What the scripts in `assets/js/chat/` want of Python: questions are edited and branches chosen in
# `question-bubble.js`, answers go on or are asked for again in `answer-row.js`, questions are asked in `question.js`,
# `start.js` and `ask-again.js`; `following.js` says when to look again.
_TELL_EDITED = """
window.addEventListener("quest-edited", (event) => trigger("click", event.detail));
window.addEventListener("quest-retry", (event) => trigger("click", event.detail));
window.addEventListener("quest-branch", (event) => trigger("select", event.detail));
window.addEventListener("quest-continue", (event) => trigger("submit", event.detail));
window.addEventListener("quest-ask", (event) => {
  event.preventDefault();
  trigger("example_select", event.detail);
});
"""
_TELL_FOLLOW = """
window.addEventListener("quest-follow", (event) => {
  event.preventDefault();
  trigger("click", event.detail);
});
window.dispatchEvent(new Event("quest-follow-ready"));
"""
_LOOK_AGAIN = call_script("chat/following", "lookAgain")
_JUMP_TO_LATEST = '<button type="button" id="jump-to-latest" hidden>Jump to latest</button>'
# With its word: Gradio draws a button that was never seen before without any, now and then.
# By it the style sheets show Stop in place of Ask. A button that Gradio makes anew each time may come without its word.
_ANSWERING = '<span class="is-answering"></span>'
_UNCHANGED = (gr.skip(), gr.skip(), gr.skip())
# Of so many chats the questions to begin with are remembered: making them reads the texts' first pages.
_KEPT_EXAMPLES = 64


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
        self._tabs = TabFollowers()
        self._examples: OrderedDict[tuple[str, ...], tuple[str, ...]] = OrderedDict()
        self.messages = gr.Chatbot(
            show_label=False,
            container=False,
            # Copy and Retry are in the row below each answer (`assets/js/chat/answer-row.js`).
            buttons=[],
            layout="bubble",
            # Who reads further up stays there; see `assets/js/chat/latest.js`.
            autoscroll=False,
            latex_delimiters=LATEX_DELIMITERS,
            # What could be a tag comes as text; see `ui.chat.safe_markdown`.
            allow_tags=False,
            # The row below an answer is a message of its own.
            group_consecutive_messages=False,
            elem_id="messages",
            height=None,
        )
        self._edited = raw_html(js_on_load=_TELL_EDITED, elem_id="edited-question", visible="hidden")
        self._follow_wanted = raw_html(js_on_load=_TELL_FOLLOW, elem_id="follow-wanted", visible="hidden")
        self._unanswered = raw_html(js_on_load=None, elem_id="unanswered", visible="hidden")
        # Of no height: it lies over the messages.
        raw_html(_JUMP_TO_LATEST, js_on_load=None, elem_id="latest")
        with gr.Column(elem_id="question-area", scale=0, min_width=0) as self.question_area:
            notice_line("question")
            with gr.Column(elem_id="question-box", min_width=0):
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
                # Of its own: whenever Gradio changes anything of the box, it may put back an earlier text in place of
                # what somebody types.
                self._stop_button = gr.Button("Stop", elem_id="stop-answer")

    def connect(self, conversation_id: gr.Textbox) -> None:
        """Attach the handlers.

        Args:
            conversation_id: the hidden field that holds the tab's conversation.
        """
        option_inputs = self._settings_panel.inputs
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # Also while Gradio has not heard of the end of the one before: none is dropped.
        each: dict[str, Any] = plain | {"trigger_mode": "multiple"}
        asking = (
            asked := self._edited.example_select(
                self._ask, [conversation_id, *option_inputs], None, js=WITH_CONVERSATION, **each
            ),
            self._edited.click(self._ask_edited, [conversation_id, *option_inputs], None, **each),
            self._edited.submit(self._continue, [conversation_id, *option_inputs], None, **each),
            self._edited.select(self._select_turn, conversation_id, None, **each),
        )
        for event in asking:
            # The server tells all tabs that the conversation has changed; this one need not wait for it.
            event.then(None, js=_LOOK_AGAIN)
        asked.failure(None, js=call_script("chat/question", "giveBackQuestion"))
        # Not queued: a stop must not wait behind what it is to stop.
        self._stop_button.click(self._stop, conversation_id, None, queue=False, **plain)
        self._follow_wanted.click(
            self._follow,
            None,
            [self.messages, self._documents_panel.meter, self._unanswered],
            # A later one ends the one before; see `ui.tab_follower`.
            **each,
            **_FOLLOWERS_QUEUE,
        )

    def _ask(
        self, request: gr.Request, event: gr.EventData, conversation_id: str, *option_values: Any
    ) -> None:
        question = str(event.question).strip()
        if not question:
            warn("Write a question first.")
            return
        with _asking():
            conversation = self._conversation(conversation_id)
            running = self._assistant.ask(conversation, question, options(*option_values))
            self._tabs.owe(str(request.session_hash), conversation_id, running)

    def _ask_edited(
        self, request: gr.Request, event: gr.EventData, conversation_id: str, *option_values: Any
    ) -> None:
        # Without a question it is a retry. Our own script sends a number; whoever else calls may send anything.
        number = event.turn if isinstance(event.turn, int) else -1
        self._ask_again(request, conversation_id, number, str(event.question).strip(), option_values)

    def _ask_again(
        self, request: gr.Request, conversation_id: str, number: int, question: str, option_values: tuple[Any, ...]
    ) -> None:
        """Begin a branch beside a turn, with its question or another; a turn that is gone is none of ours."""
        with _asking():
            conversation = self._conversation(conversation_id)
            turns = list(conversation.turns)
            if 0 <= number < len(turns):
                question = question or turns[number].question
                running = self._assistant.ask(conversation, question, options(*option_values), after_turn=number)
                self._tabs.owe(str(request.session_hash), conversation_id, running)

    def _continue(
        self, request: gr.Request, event: gr.EventData, conversation_id: str, *option_values: Any
    ) -> None:
        """Let the last answer go on where it was cut."""
        with _asking():
            conversation = self._conversation(conversation_id)
            running = self._assistant.continue_answer(conversation, str(event.turn_id), options(*option_values))
            self._tabs.owe(str(request.session_hash), conversation_id, running)

    def _select_turn(self, event: gr.EventData, conversation_id: str) -> None:
        with shown_to_user():
            self._assistant.select_turn(self._conversation(conversation_id), str(event.turn_id))

    def _stop(self, conversation_id: str) -> None:
        with shown_to_user():
            self._assistant.cancel(self._conversation(conversation_id))

    def _follow(self, event: gr.EventData, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Show a conversation as it is, and its running answer until it ends.

        Yields:
            (messages, context meter, unanswered question or the sign that an answer is written).
        """
        number = event.number if isinstance(event.number, int) else 0
        with self._tabs.enter(str(request.session_hash), number) as tab:
            if tab is not None:
                with shown_to_user():
                    conversation = self._conversation(str(event.conversation_id))
                yield from self._shown(conversation, tab)
        # Gradio sends a handler's last outputs once more when it has ended, and empty ones if there were none: by then
        # a later handler may have written.
        yield _UNCHANGED

    def _shown(self, conversation: Conversation, tab: TabFollower) -> Iterator[tuple[Any, ...]]:
        failure: UserFacingError | None = None
        opened_id = conversation.conversation_id
        running = self._assistant.running_answer(conversation) or tab.unfinished_of(opened_id)
        while running is not None:
            # It is a turn already in the moment before its end is told.
            earlier = turn_messages([turn for turn in conversation.turns if turn.turn_id != running.turn_id])
            content: Any = begun_content(running.begun) if running.begun else waiting_content(queue_line(0))
            passages: tuple[EvidencePassage, ...] = ()
            messages = [*earlier, *running_messages(running.question, content)]
            yield messages, self._documents_panel.meter_markup(conversation), _ANSWERING
            try:
                for event in paced(tab.follow(opened_id, running)):
                    if isinstance(event, Finished):
                        _tell_of_nothing(event.report)
                        break
                    if isinstance(event, PassagesFound):
                        passages = event.passages
                    elif isinstance(event, TokenEvent) or not running.begun:
                        content = event_content(event)
                    is_speaking = bool(running.begun) or isinstance(event, TokenEvent) and bool(event.answer)
                    messages = [*earlier, *running_messages(running.question, content, passages, is_speaking)]
                    yield messages, gr.skip(), gr.skip()
            except ValueError as error:
                # A combination of settings that the engine refuses; it says which.
                failure = UserFacingError(f"These settings do not go together: {error}")
            except Exception as error:
                # Whatever it is: the button must not stay.
                failure = explain(error, "The answer")
            if not tab.is_newest:
                break
            # Another may have been asked at once.
            following, ended = self._assistant.running_answer(conversation), running
            running = following if following is not ended else None
        if tab.is_newest:
            yield (
                self._still_messages(conversation),
                self._documents_panel.meter_markup(conversation),
                unanswered_markup(conversation),
            )
        if failure is not None:
            raise user_error(str(failure)) from failure

    def _still_messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        """The messages of a conversation in which nothing is being answered."""
        was_stopped = conversation.cancelled.is_set()
        messages = [*turn_messages(conversation.turns), *unanswered_messages(conversation.unanswered, was_stopped)]
        if messages:
            return messages
        entries = self._assistant.entries(conversation)
        is_demonstration = self._assistant.status().demonstration
        return start_messages(entries, self._example_questions(conversation, entries), is_demonstration)

    def _example_questions(self, conversation: Conversation, entries: Sequence[LibraryEntry]) -> tuple[str, ...]:
        key = tuple(entry.document_id for entry in entries if entry.state == "read")
        if key and key not in self._examples:
            self._examples[key] = example_questions(self._assistant.documents(conversation))
            while len(self._examples) > _KEPT_EXAMPLES:
                self._examples.popitem(last=False)
        return self._examples.get(key, ())

    def _conversation(self, conversation_id: str) -> Conversation:
        return tab_conversation(self._assistant, conversation_id)


def unanswered_markup(conversation: Conversation) -> str:
    """The question that was never answered, for a question box that is empty (`assets/js/chat/drafts.js`)."""
    question = html.escape(conversation.unanswered)
    return f'<quest-unanswered question="{question}"></quest-unanswered>' if question else ""


def _tell_of_nothing(report: AnswerReport) -> None:
    if not report.is_empty or report.finish_reason == "cancelled":
        return
    if report.finish_reason == "engine":
        warn(f"{engine_cut_words(report)} That was before its first word. Ask in other words.")
    else:
        warn("The model ended its answer before its first word. Ask in other words.")


@contextmanager
def _asking() -> Iterator[None]:
    """Inside, whatever refuses a question becomes a `gr.Error` with a sentence."""
    try:
        yield
    except ValueError as error:
        # A combination of settings that the engine refuses; it says which.
        raise user_error(f"These settings do not go together: {error}") from error
    except Exception as error:
        raise user_error(explain(error, "The answer").message) from error
