"""A chat from its first question on, in a real browser: what it offers, that answers go on, that nothing moves."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BOOK = "The Happy Prince\n{0}\fThe Selfish Giant\n{0}".format(
    "High above the city stood the statue of the Prince. " * 3
)
WATCH_SHIFTS = """() => {
  window.shifts = [];
  new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((one) => one.value)))
    .observe({ type: "layout-shift", buffered: false });
}"""
AREA = "#messages .bubble-wrap"


def wait_until_answered(page) -> None:
    page.wait_for_selector("#stop-answer", state="hidden")
    page.wait_for_selector("#messages quest-answer-row")


def test_a_chat_from_its_first_question_on(open_page, served, tmp_path):
    page = open_page()
    page.get_by_role("heading", name="What do you want to read?").wait_for()
    book = tmp_path / "prince.txt"
    book.write_text(BOOK)
    served.library.reads.clear()
    page.set_input_files("#document-files input[type=file]", str(book))
    page.get_by_role("heading", name="Reading prince.txt").wait_for()
    served.library.reads.set()
    example = page.get_by_role("group", name="Example questions").get_by_role("button")
    example.nth(1).wait_for()
    assert example.all_inner_texts()[:2] == ["What is this document about?", "What is “The Happy Prince” about?"]
    # Asked with one click; it is cut, and goes on as the same answer. Nothing moves meanwhile.
    served.finish_reason, served.words = "length", tuple("High above the city stood the statue. " * 6)
    served.cites = ("High above",)
    page.evaluate(WATCH_SHIFTS)
    example.nth(1).click()
    wait_until_answered(page)
    assert page.locator("#messages quest-question").inner_text() == "What is “The Happy Prince” about?"
    first = page.locator("#messages .md").inner_text()
    served.finish_reason = "stop"
    page.get_by_text("Cut at 4 tokens.").wait_for()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_function(
        "first => document.querySelector('#messages .md').innerText.length > 1.9 * first", arg=len(first)
    )
    wait_until_answered(page)
    assert page.get_by_role("button", name="Continue").count() == 0
    assert page.locator("#messages quest-question").count() == 1
    assert sum(page.evaluate("window.shifts")) < 0.05
    # A race of any answer.
    page.evaluate("addEventListener('quest-race', ({ detail }) => (window.raced = detail))")
    page.get_by_role("button", name="Race this question").click()
    raced = page.evaluate("window.raced")
    assert raced["question"] == "What is “The Happy Prince” about?" and raced["turn_id"]


def test_the_reader_stays_where_they_read_and_a_stopped_question_is_offered_again(open_page, served):
    page = open_page()
    served.words = tuple(f"{number} lines of an answer that is long.\n\n" for number in range(60))
    page.fill("#question textarea", "Where?")
    page.press("#question textarea", "Enter")
    wait_until_answered(page)
    left = "({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight"
    page.wait_for_function(f"({left})(document.querySelector('{AREA}')) < 60")
    latest = page.get_by_role("button", name="Jump to latest")
    assert not latest.is_visible()
    served.pause.clear()
    page.fill("#question textarea", "And then?")
    page.press("#question textarea", "Enter")
    page.locator("#messages .md", has_text="0 lines").nth(1).wait_for()
    page.hover(AREA)
    page.mouse.wheel(0, -900)
    latest.wait_for()
    place = page.locator(AREA).evaluate("area => area.scrollTop")
    served.pause.set()
    wait_until_answered(page)
    page.wait_for_timeout(200)
    assert abs(page.locator(AREA).evaluate("area => area.scrollTop") - place) < 2
    latest.click()
    page.wait_for_function(f"document.querySelector('{AREA}').scrollTop > {place} + 500")
    latest.wait_for(state="hidden")
    # Stopped before its first word: it is there to be asked again.
    served.reading.clear()
    page.fill("#question textarea", "Why not?")
    page.press("#question textarea", "Enter")
    page.click("#stop-answer")
    page.get_by_text("Stopped before the answer.").wait_for()
    served.reading.set()
    again = page.get_by_role("button", name="Ask again")
    again.wait_for()
    assert page.input_value("#question textarea") == "Why not?"
    served.words = ("Because.",)
    again.click()
    page.locator("#messages .md", has_text="Because.").wait_for()
    assert page.input_value("#question textarea") == ""
    assert page.locator("#messages quest-question").count() == 3
