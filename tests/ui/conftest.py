"""The page over a scripted assistant, for handlers and in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from app.chat.answers.answer import AnswerReport
from app.models.model_loader import ModelStatus
from app.settings import AppSettings
from tests.ui.scripted_assistant import ANSWER_WORDS, ScriptedAssistant, answer_report
from tests.ui.scripted_documents import add_scripted_routes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add to the report of a test that failed in a browser what its pages showed and complained of."""
    report = yield
    opened = getattr(item, "funcargs", {}).get("open_page")
    if report.when == "call" and report.failed and opened is not None:
        shown = [describe_page(page) for context in opened.contexts for page in context.pages]
        report.sections.append(("pages", "\n\n".join([*shown, "Complaints:", *opened.complaints])))
    return report


def describe_page(page) -> str:
    """Its address, what is typed into it, and its text, messages that are only read out included."""
    try:
        typed = page.eval_on_selector_all("textarea, input", "all => all.map((each) => each.value).filter(Boolean)")
        alerts = page.locator("[role=alert], .toast-body").all_text_contents()
        return f"{page.url}\ntyped: {typed}\nalerts: {alerts}\n{page.inner_text('body', timeout=2000)}"
    except Exception as error:  # whatever the browser has become: the test's own failure is what counts
        return f"{page.url}: cannot be described: {error}"


@pytest.fixture
def report() -> AnswerReport:
    return answer_report()


@pytest.fixture
def assistant() -> ScriptedAssistant:
    return ScriptedAssistant()


@pytest.fixture
def settings(tmp_path) -> AppSettings:
    return AppSettings(data_dir=tmp_path)


@pytest.fixture(scope="session")
def serve_page(serve_app) -> Callable:
    """Return `serve_page(settings, assistant, port=0)`: serves a page for as long as a `with` lasts."""

    def serve(settings: AppSettings, assistant: ScriptedAssistant, port: int = 0) -> AbstractContextManager[str]:
        pytest.importorskip("uvicorn")
        from app.web.server import create_app
        from ui.layout import build_page

        app = create_app(settings, assistant, build_page)
        add_scripted_routes(app, assistant)
        return serve_app(app, port)

    return serve


@pytest.fixture(scope="module")
def served(serve_page, tmp_path_factory) -> Iterator[ScriptedAssistant]:
    """A scripted assistant whose page is served at its `address`."""
    with pytest.MonkeyPatch.context() as environment:
        # The server sets it for Gradio; the context puts it back.
        environment.setenv("GRADIO_TEMP_DIR", "")
        assistant = ScriptedAssistant()
        with serve_page(AppSettings(data_dir=tmp_path_factory.mktemp("data")), assistant) as assistant.address:
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
    """Opens the scripted page in a browser context of its own, with the options of Playwright's `new_context`.

    Its `complaints` are what the browser said in its console, and requests to other servers.
    """
    contexts, complaints = [], []
    served.loaded = ModelStatus("ready", "Ready", "tiny-model", "CPU", 4096)
    served.failure, served.words, served.finish_reason = None, ANSWER_WORDS, "stop"
    served.pause.set()
    served.reading.set()
    served.library.reads.set()
    served.forget()

    def opened(**options):
        context = chromium.new_context(**{"viewport": {"width": 1440, "height": 900}} | options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        context.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        own = (served.address, "data:", "blob:")
        context.on("request", lambda request: request.url.startswith(own) or complaints.append(request.url))
        page = context.new_page()
        page.goto(served.address)
        page.wait_for_selector("quest-reading[conversation-id]:not([conversation-id=''])", state="attached")
        return page

    opened.complaints, opened.contexts = complaints, contexts
    yield opened
    for context in contexts:
        context.close()
