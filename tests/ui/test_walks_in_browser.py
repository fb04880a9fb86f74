"""A reader's way through the page at three widths: each step that the page is for, one after the other."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIZES = [(1440, 900), (1100, 800), (390, 844)]
VIEW = "quest-document-view"
SENTENCE = "High above the city stood the statue of the Prince."
FOCUSED = """() => {
  let focused = document.activeElement;
  while (focused.shadowRoot?.activeElement) focused = focused.shadowRoot.activeElement;
  return focused.getAttribute("aria-label") ?? focused.placeholder ?? focused.textContent;
}"""


def press_ask(page, question: str) -> None:
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")


def wait_for_answer(page, question: str) -> None:
    page.locator("quest-question[turn]", has_text=question).last.wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")


def shows_document_page(page, label: str) -> None:
    """The view stands at this page, with a passage marked in it."""
    page.locator(f"{VIEW} [data-kind~=passage]").first.wait_for()
    page.wait_for_function(
        f"label => document.querySelector('{VIEW}').shadowRoot.querySelector('[data-part=jump]').value === label",
        arg=label,
    )


def close_what_lies_over(page) -> None:
    """Escape until nothing is over the conversation or, where there is no room for both, beside it."""
    is_narrow = page.viewport_size["width"] < 1440
    for _ in range(3):
        if not page.evaluate("document.getElementById('chat-zone').inert") and not (
            is_narrow and page.locator("#side-zone").is_visible()
        ):
            return
        page.keyboard.press("Escape")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_everything_that_a_reader_does(open_page, served, tmp_path, width, height):
    page = open_page(viewport={"width": width, "height": height})
    is_phone = width == 390

    # Adds a book, and asks before it is read.
    served.library.reads.clear()
    served.words = (f"**{SENTENCE}", " It is made of gold.**")
    served.cites = ("High above", "")
    pages = ["Nothing but reeds.\n" * 20 for _ in range(8)]
    pages[4] += SENTENCE
    (tmp_path / "prince.pdf").write_text("\f".join(pages))
    page.set_input_files("#document-files input[type=file]", str(tmp_path / "prince.pdf"))
    row = page.locator("#document-list li.in-chat", has_text="prince.pdf")
    row.filter(has_text="Being read 40 %").wait_for(state="attached")
    press_ask(page, "Where does he stand?")
    page.locator(".answer-wait", has_text="Reading prince.pdf: 40 %").wait_for()
    served.library.reads.set()
    wait_for_answer(page, "Where does he stand?")
    row.filter(has_text="1,204 tokens").wait_for(state="attached")

    # Looks at the source on its page, in the side, the drawer or the sheet, and comes back.
    page.locator("#messages quest-no-source").wait_for()
    citation = page.locator("#messages quest-citation button")
    citation.click()
    shows_document_page(page, "5")
    box = page.locator(f"{VIEW} .frame").bounding_box()
    assert (box["width"] >= 370 and box["x"] <= 0 and box["height"] >= 600) if is_phone else 400 <= box["width"] <= 460
    if is_phone:
        page.get_by_role("button", name="Close the side").click()
        page.locator("#side-zone").wait_for(state="hidden")
        citation.focus()
        page.keyboard.press("Enter")
        shows_document_page(page, "5")
    page.keyboard.press("Escape")
    close_what_lies_over(page)

    # Stops an answer, edits its question, and goes back to what stood there before.
    served.pause.clear()
    press_ask(page, "And who else?")
    page.locator("#messages .md", has_text=SENTENCE).nth(1).wait_for()
    page.click("#stop-answer")
    page.locator(".answer-report", has_text="Stopped.").wait_for()
    served.pause.set()
    second = page.locator("quest-question", has_text="And who else?")
    second.get_by_role("button", name="Edit").click()
    second.locator("textarea").fill("And the Swallow?")
    second.locator("textarea").press("Enter")
    wait_for_answer(page, "And the Swallow?")
    versions = page.get_by_role("group", name="Versions of this question")
    assert versions.locator("[data-part=place]").inner_text() == "2/2"
    versions.get_by_role("button", name="Earlier version").click()
    second.wait_for()
    versions.get_by_role("button", name="Later version").click()
    page.locator("quest-question", has_text="And the Swallow?").wait_for()

    # A reload and a second tab show the same, and what is asked in one is seen in the other.
    assert open_page.complaints == []
    page.reload()
    page.locator("quest-question[turn]", has_text="And the Swallow?").wait_for()
    page.locator("#messages quest-citation").first.wait_for()
    # Gradio complains of requests that ended with the page.
    open_page.complaints.clear()
    other = page.context.new_page()
    other.goto(page.url)
    other.locator("quest-question[turn]", has_text="And the Swallow?").wait_for()
    press_ask(other, "And the King?")
    wait_for_answer(page, "And the King?")
    other.close()

    # Races a question from its answer.
    page.locator("#messages quest-answer-row").first.get_by_role("button", name="Race this question").click()
    page.locator(".verdict", has_text="Quest finished").wait_for()
    assert served.asked[-1][0] == "Where does he stand?"
    close_what_lies_over(page)

    # Takes another model; what was said stays.
    page.locator("quest-model-status button").click()
    dialog = page.get_by_role("dialog", name="Models")
    dialog.get_by_role("button", name="Use: Larger <b>4B</b>, 8,192 tokens").click()
    dialog.locator("li.is-present", has_text="Larger <b>4B</b>").wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.locator("quest-model-status button[aria-label*='Larger <b>4B</b>']").wait_for()
    assert page.locator("quest-question").count() == 3

    # A new chat, a question, a stop and the list of keys with the keyboard alone.
    page.keyboard.press("Alt+n")
    page.locator("quest-question").first.wait_for(state="detached")
    page.keyboard.press("Alt+q")
    page.wait_for_function(f"({FOCUSED})() === 'Ask about the document'")
    served.pause.clear()
    page.keyboard.type("Who?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop-answer")
    page.locator("#messages .md").wait_for()
    page.keyboard.press("Escape")
    page.locator(".answer-report", has_text="Stopped.").wait_for()
    served.pause.set()
    page.keyboard.press("Alt+3")
    page.wait_for_function(f"({FOCUSED})() === 'Race'")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function(f"({FOCUSED})() === 'Race'")
    close_what_lies_over(page)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert open_page.complaints == []
