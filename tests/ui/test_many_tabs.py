"""Twelve tabs of one browser, which opens six connections to a server: all load, ask, wait and answer at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

uvicorn = pytest.importorskip("uvicorn")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 120_000
TABS = 12

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
]


@pytest.fixture
def address(assistant, settings, serve_page, monkeypatch) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    with serve_page(settings, assistant) as address:
        yield address


def open_page(context, address):
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("quest-reading[conversation-id]:not([conversation-id=''])", state="attached")
    return page


def test_twelve_tabs_answer_at_once(assistant, address, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    book = tmp_path / "book.txt"
    book.write_text("High above the city", encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        context.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        pages = [open_page(context, address) for _ in range(TABS)]
        # All answers begin, and none ends before the last tab has asked.
        assistant.pause.clear()
        for number, page in enumerate(pages):
            page.fill("#question textarea", f"Question {number}?")
            page.press("#question textarea", "Enter")
            page.wait_for_selector("#messages .bot-row:has-text('High')")
        late = open_page(context, address)
        late.set_input_files("#document-files input[type=file]", str(book))
        late.wait_for_selector("#document-list li:has-text('book.txt')")
        for conversation_id in list(assistant.conversations):
            assistant.telemetry.publish(conversation_id, {"type": "queued", "jobs_ahead": 7})
        for page in pages:
            page.wait_for_selector("quest-reading[data-state=waiting]")
        assistant.pause.set()
        for number, page in enumerate(pages):
            page.wait_for_selector("#messages .bot-row:has-text('High above the city')")
            page.wait_for_selector("#question button:has-text('Ask')")
            assert page.locator("#messages .user-row").all_inner_texts() == [f"Question {number}?"]
        # A tab that closes lets its streams go, and the others keep theirs.
        pages[0].close(run_before_unload=True)
        pages[1].fill("#question textarea", "And now?")
        pages[1].press("#question textarea", "Enter")
        pages[1].wait_for_selector("#messages .user-row >> nth=1")
        pages[1].wait_for_selector("#question button:has-text('Ask')")
        closed_id = pages[2].locator("quest-reading").get_attribute("conversation-id")
        assistant.stored.conversations[closed_id].is_deleted = True
        assistant.telemetry.forget(closed_id)
        pages[2].wait_for_selector("quest-reading [data-part=map-empty]:has-text('There is no such conversation')")
        browser.close()
    assert complaints == []
