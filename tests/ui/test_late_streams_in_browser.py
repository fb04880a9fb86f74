"""Every update is shown, and none over a later one, also where the page hears late of what the server has done.

On a busy machine the last message of a stream takes longer than the answer to the next request, and that answer longer
than the messages of what it began; here they always do.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from app.web import shared_streams

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LATE_S = 0.5
EMPTY = SimpleNamespace(turns=[])
# Answers of the server to the requests that begin Gradio's events come so much later.
LATE_ANSWERS = """
const fetchAtOnce = window.fetch, delays = [0, 700, 30, 400];
let number = 0;
window.fetch = async (resource, options) => {
  const response = await fetchAtOnce(resource, options);
  const isLate = String(resource.url ?? resource).includes("/queue/join");
  if (isLate) await new Promise((resolve) => setTimeout(resolve, delays[number++ % delays.length]));
  return response;
};
"""
TWO_PRESSES = """
const box = document.querySelector("#question textarea");
for (let press = 0; press < 2; press++)
  box.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", code: "Enter", bubbles: true, cancelable: true }));
"""


@pytest.fixture
def late_ends(monkeypatch):
    """Each "close_stream", and the end of the stream behind it, reaches the page so much later; all else at once."""
    put = shared_streams._Connection.put

    def put_late(connection, number, **what):
        if '"close_stream"' in what.get("text", "") or "end" in what:
            asyncio.get_running_loop().call_later(LATE_S, lambda: put(connection, number, **what))
        else:
            put(connection, number, **what)

    monkeypatch.setattr(shared_streams._Connection, "put", put_late)


def test_all_that_is_asked_and_opened_is_drawn(open_page, late_ends):
    page = open_page()
    for number in range(6):
        page.fill("#question textarea", f"Question {number}?")
        page.press("#question textarea", "Enter")
        page.locator("quest-question[turn]", has_text=f"Question {number}?").wait_for()
        page.wait_for_selector("#question button:has-text('Ask')")
    for _ in range(3):
        other = page.context.new_page()
        other.goto(page.url)
        other.locator("quest-question[turn]", has_text="Question 5?").wait_for()
        other.close()
    assert open_page.complaints == []


def test_what_is_shown_is_the_last_that_was_written(open_page, served):
    page = open_page()
    page.context.add_init_script(LATE_ANSWERS)
    page.reload()
    page.locator("#messages .start").wait_for()
    for number in range(8):
        page.fill("#question textarea", f"Question {number}?")
        page.press("#question textarea", "Enter")
        page.locator("quest-question[turn]", has_text=f"Question {number}?").wait_for()
        page.wait_for_selector("#question button:has-text('Ask')")
    first = page.url
    for _ in range(4):
        page.click("#new-chat")
        page.locator("#messages .start").wait_for()
        page.go_back()
        page.locator("quest-question[turn]", has_text="Question 7?").wait_for()
        assert page.url == first
    # What was late has come by now.
    page.wait_for_timeout(1500)
    assert page.locator("quest-question[turn]").count() == 8
    assert open_page.complaints == []


def test_what_is_asked_quickly_is_asked_once_and_never_dropped(open_page, served):
    page = open_page()
    page.context.add_init_script(LATE_ANSWERS)
    page.reload()
    page.locator("#messages .start").wait_for()
    asked = [f"Question {number}?" for number in range(5)]
    for question in asked:
        page.fill("#question textarea", question)
        # A quick hand presses twice.
        page.press("#question textarea", "Enter")
        page.press("#question textarea", "Enter")
        page.wait_for_function("document.querySelector('#question textarea').value === ''")
        deadline = time.monotonic() + 20
        # As quick as the server, which the page hears of only later.
        while len(open_conversation(served).turns) < asked.index(question) + 1:
            assert time.monotonic() < deadline, f"{question} was never asked"
            time.sleep(0.01)
    page.locator("quest-question[turn]", has_text=asked[-1]).wait_for()
    # So quickly that Gradio's box has not heard of the first press at the second.
    page.fill("#question textarea", "At once?")
    page.evaluate(TWO_PRESSES)
    page.locator("quest-question[turn]", has_text="At once?").wait_for()
    asked.append("At once?")
    page.locator("#messages button[aria-label=Retry]").last.dblclick()
    page.locator("quest-question", has_text=asked[-1]).locator("[data-part=place]", has_text="2/2").wait_for()
    assert [question for question, _ in served.asked] == [*asked, asked[-1]]
    assert page.locator("#notice-at-question").inner_text() == ""
    assert open_page.complaints == []


def open_conversation(served):
    (conversation,) = [one for one in served.conversations.values() if one.turns or one.running] or [EMPTY]
    return conversation
