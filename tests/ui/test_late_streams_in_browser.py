"""Every update is shown, also when the page hears late that Gradio's server has closed its stream.

On a busy machine the last message of a stream takes longer than the answer to the next request; here it always does.
"""

from __future__ import annotations

import asyncio

import pytest

from app.web import shared_streams

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LATE_S = 0.5


@pytest.fixture
def late_ends(monkeypatch):
    """Each "close_stream" reaches the page so much later; all else at once."""
    put = shared_streams._Connection.put

    def put_late(connection, number, **what):
        if '"close_stream"' in what.get("text", ""):
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
