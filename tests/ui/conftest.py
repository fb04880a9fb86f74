"""A scripted assistant: answers at once, without a model, in real conversations; and the page over it in a browser."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.chat.answer import (
    AnswerEvent,
    AnswerOptions,
    AnswerReport,
    DocumentReport,
    Finished,
    ModelLoading,
    PrefillEvent,
    TokenEvent,
)
from app.chat.conversation import Conversation, Turn
from app.chat.model_loader import ModelStatus
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import ContextUsage
from app.chat.provenance import PageShare
from app.chat.race import RaceEvent, RaceFinished, RaceSide, RaceToken
from app.chat.telemetry import TelemetryHub
from app.errors import UserFacingError
from app.library import Document, DocumentPage, PasswordRequired, ReadProgress, WrongPassword
from app.settings import AppSettings

ANSWER_WORDS = ("High ", "above ", "the ", "city")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


class ScriptedAssistant:
    """Stands in for `app.chat.assistant.Assistant`.

    Attributes:
        failure: raised by the next answers, if set.
        pause: an answer waits for it after its first word.
        asked: questions and options of all answers.
        words: what every answer says, a word a step.
    """

    def __init__(self) -> None:
        self.telemetry = TelemetryHub()
        self.loaded = ModelStatus("ready", "Ready", "tiny-model", "CPU", 4096)
        self.failure: Exception | None = None
        self.pause = threading.Event()
        self.pause.set()
        self.asked: list[tuple[str, AnswerOptions]] = []
        self.words: tuple[str, ...] = ANSWER_WORDS
        self.conversations: dict[str, Conversation] = {}

    def status(self) -> ModelStatus:
        return self.loaded

    def open_conversation(self) -> Conversation:
        conversation = Conversation()
        self.conversations[conversation.conversation_id] = conversation
        self.telemetry.open(conversation.conversation_id)
        return conversation

    def conversation(self, conversation_id: str) -> Conversation:
        if conversation_id not in self.conversations:
            raise UserFacingError("This conversation is closed.")
        return self.conversations[conversation_id]

    def add_document(
        self,
        conversation: Conversation,
        path: Path,
        password: str | None = None,
        on_progress: Callable[[ReadProgress], None] | None = None,
    ) -> Document:
        """Read a text file; a name with "locked" needs the password "sesame", one with "broken" cannot be read."""
        if "broken" in path.name:
            raise UserFacingError(f"{path.name} is damaged.")
        if "locked" in path.name and password is None:
            raise PasswordRequired(f"{path.name} is encrypted.")
        if "locked" in path.name and password != "sesame":
            raise WrongPassword(f"That is not the password of {path.name}.")
        if on_progress is not None:
            on_progress(ReadProgress(1, 1))
        document = Document(path.stem, path.name, path, (DocumentPage(0, "1", "High above the city"),))
        conversation.documents.append(document)
        return document

    def remove_document(self, conversation: Conversation, document_id: str) -> None:
        conversation.documents[:] = [one for one in conversation.documents if one.document_id != document_id]

    def document_tokens(self, conversation: Conversation, document_id: str) -> TokenCount | None:
        return TokenCount(1204) if self.loaded.stage == "ready" else None

    def context_usage(self, conversation: Conversation) -> ContextUsage:
        return ContextUsage(TokenCount(1204 * len(conversation.documents)), 30, 4096, "whole")

    def truncate_turns(self, conversation: Conversation, count: int) -> None:
        del conversation.turns[count:]

    def clear_turns(self, conversation: Conversation) -> int:
        conversation.cleared_turns[:] = conversation.turns
        conversation.turns.clear()
        self.telemetry.set_aside(conversation.conversation_id)
        return len(conversation.cleared_turns)

    def restore_turns(self, conversation: Conversation) -> None:
        conversation.turns[:] = conversation.cleared_turns
        self.telemetry.bring_back(conversation.conversation_id)

    def cancel(self, conversation: Conversation) -> None:
        conversation.cancelled.set()
        self.pause.set()

    def answer(self, conversation: Conversation, question: str, options: AnswerOptions) -> Iterator[AnswerEvent]:
        self.asked.append((question, options))
        while self.loaded.stage == "loading":
            yield ModelLoading(self.loaded.message)
            time.sleep(0.05)
        yield PrefillEvent(0, 100, 200, 0.5, 0.5)
        if self.failure is not None:
            raise self.failure
        conversation.cancelled.clear()
        answer = ""
        for step, word in enumerate(self.words):
            if conversation.cancelled.is_set():
                break
            answer += word
            yield TokenEvent(word, answer, step, 0.05, 20.0, 20.0)
            self.pause.wait()
        report = answer_report(answer, "cancelled" if conversation.cancelled.is_set() else "stop")
        conversation.turns.append(Turn(question, answer, report, (1, 2, 3)))
        yield Finished(report)

    def race(self, conversation: Conversation, question: str, options: AnswerOptions) -> Iterator[RaceEvent]:
        self.asked.append((question, options))
        if self.failure is not None:
            raise self.failure
        yield RaceToken("quest", "High ", "High ", 0, 0.01, None, None, None)
        yield RaceToken("dense", "High ", "High ", 0, 0.02, None, None, None)
        dense = RaceSide("High above", 5, 25.0, 40.0, 3_145_728.0, "stop")
        quest = RaceSide("High over", 5, 50.0, 20.0, 1_048_576.0, "stop")
        yield RaceFinished(dense, quest, 2.0, 2, 1, 5, 1.2)


def answer_report(answer: str = "High above the city", finish_reason: str = "stop") -> AnswerReport:
    """A report with round figures."""
    return AnswerReport(
        answer=answer,
        model="tiny-model",
        device="CPU",
        attention="quest",
        token_budget=1024,
        page_size=16,
        document=DocumentReport(20, 6310, 6310),
        prompt_tokens=6400,
        reused_tokens=6310,
        prefill_s=1.0,
        time_to_first_token_s=0.31,
        decode_tokens=4,
        decode_tokens_per_s=18.6,
        finish_reason=finish_reason,
        pages_read=(PageShare("book.pdf", "12", 0.31), PageShare("book.pdf", "iv", 0.14)),
    )


@pytest.fixture
def report() -> AnswerReport:
    return answer_report()


@pytest.fixture
def assistant() -> ScriptedAssistant:
    return ScriptedAssistant()


@pytest.fixture
def settings(tmp_path) -> AppSettings:
    return AppSettings(data_dir=tmp_path)


@contextmanager
def _serve_page(settings: AppSettings, assistant: ScriptedAssistant, port: int = 0) -> Iterator[str]:
    """Serve the page in a thread; gives its address."""
    uvicorn = pytest.importorskip("uvicorn")
    from app.web.server import create_app
    from ui.layout import build_page

    app = create_app(settings, assistant, build_page)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serve_page() -> Callable:
    """Serves a page for as long as a `with` lasts."""
    return _serve_page


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[ScriptedAssistant]:
    """A scripted assistant whose page is served at its `address`."""
    with pytest.MonkeyPatch.context() as environment:
        # The server sets it for Gradio; the context puts it back.
        environment.setenv("GRADIO_TEMP_DIR", "")
        assistant = ScriptedAssistant()
        with _serve_page(AppSettings(data_dir=tmp_path_factory.mktemp("data")), assistant) as assistant.address:
            yield assistant


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """Debian's Chromium, driven by Playwright."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, served) -> Iterator[Callable]:
    """Opens the scripted page in a browser context of its own, with the options of Playwright's `new_context`."""
    contexts = []
    served.loaded = ModelStatus("ready", "Ready", "tiny-model", "CPU", 4096)
    served.failure, served.words = None, ANSWER_WORDS
    served.pause.set()

    def opened(**options):
        context = chromium.new_context(**{"viewport": {"width": 1440, "height": 900}} | options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.goto(served.address)
        page.wait_for_selector("quest-live-panel[conversation-id]:not([conversation-id=''])")
        return page

    yield opened
    for context in contexts:
        context.close()
