"""Sources of answers and the document beside the chat, in a real browser."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

VIEW = "quest-document-view"
LINE = "Line {} of the page speaks of swallows and of reeds."
# What the view shows: the page it says, the pages that exist, and the marks in sight.
LOOK = """() => {
  const root = document.querySelector("quest-document-view").shadowRoot;
  const view = root.querySelector(".pages").getBoundingClientRect();
  const inView = (mark) => {
    const box = mark.getBoundingClientRect();
    return box.width > 5 && box.top >= view.top && box.bottom <= view.bottom;
  };
  return {
    label: root.querySelector("[data-part=jump]").value,
    existing: root.querySelectorAll(".page").length,
    loaded: root.querySelectorAll(".sheet img:not([hidden])").length,
    passages: [...root.querySelectorAll("[data-kind~=passage]")].filter(inView).length,
    hits: [...root.querySelectorAll("[data-kind~=current]")].filter(inView).length,
  };
}"""


def shows(page, **expected) -> None:
    """Wait until the view shows this."""
    wanted = " && ".join(f"seen.{name} === {value!r}" for name, value in expected.items())
    page.wait_for_function(f"() => {{ const seen = ({LOOK})(); return {wanted}; }}")


def book(count: int) -> str:
    pages = ["\n".join(LINE.format(number) for number in range(30)) for _ in range(count)]
    pages[4] = pages[4].replace(LINE.format(20), "High above the city stood the statue of the Prince.")
    pages[12] = pages[12].replace(LINE.format(8), "The sapphires were brought out of India.")
    pages[6] = ""
    return "\f".join(pages)


@pytest.fixture
def asked(open_page, served, tmp_path):
    """Opens the page with a book of that many pages and one more, and asks; the model reads until it is let go."""

    def opened(pages: int = 30, **options):
        page = open_page(**options)
        served.words = ("**The statue stands above.", " It is made of gold.**", " The sapphires came from India.")
        served.cites = ("High above", "", "The sapphires")
        files = [tmp_path / "prince.pdf", tmp_path / "notes.txt"]
        files[0].write_text(book(pages))
        files[1].write_text("A lamp.\n\n" + "Nothing but lamps. " * 300 + "\fThe end.")
        page.set_input_files("#document-files input[type=file]", [str(file) for file in files])
        page.wait_for_selector("#document-list li.in-chat >> nth=1", state="attached")
        document = next(one for one in served.library.entries() if one.name == "prince.pdf")
        read = {"document": document.name, "document_id": document.document_id, "share": 0.1}
        served.pages_read = [read | {"page_label": "13", "page_index": 12, "read_score": 3.2}]
        served.reading.clear()
        page.fill("#question textarea", "Where?")
        page.press("#question textarea", "Enter")
        page.wait_for_selector("#messages quest-passages li")
        return page

    yield opened
    served.reading.set()


def finish(page, served) -> None:
    served.reading.set()
    page.wait_for_selector("#question button:has-text('Ask')")
    page.wait_for_selector("#messages quest-citation >> nth=1")


def test_passages_come_first_and_sources_stay_with_the_answer(asked, served):
    page = asked()
    # Before the first word: what was found, and a step from it the page.
    page.locator("#messages quest-passages button", has_text="High above the city stood").click()
    shows(page, label="5", passages=1)
    finish(page, served)
    assert page.locator("#messages quest-passages li").locator("visible=true").count() == 0
    answer = page.locator("#messages .md")
    assert answer.locator("strong quest-citation, strong quest-no-source").count() == 2
    row = page.locator("#messages quest-answer-row")
    for text in ("① p. 5", "② p. 13", "18.6 tokens/s"):
        row.get_by_text(text).locator("visible=true").wait_for()
    # The keyboard alone: what supports it, its place, and the way back.
    citation = answer.get_by_role("button", name="Source 2: p. 13")
    citation.focus()
    page.keyboard.press("Shift+Tab")
    page.locator("#messages .tip", has_text="No source found").locator("visible=true").wait_for()
    page.keyboard.press("Tab")
    tip = page.locator("#messages .tip:popover-open").inner_text()
    assert "The text supports this sentence." in tip and "3.2 times as much as usual" in tip and "India" in tip
    page.keyboard.press("Enter")
    shows(page, label="13", passages=1)
    page.get_by_role("img", name="Read most for this answer: p. 13").wait_for()
    page.keyboard.press("Escape")
    assert citation.evaluate("button => button.getRootNode().activeElement === button")
    # All that there was to tell before is behind one button.
    row.get_by_text("First word after").wait_for(state="hidden")
    row.get_by_role("button", name="How this answer was made").click()
    row.get_by_text("First word after 0.31 s").locator("visible=true").wait_for()
    row.get_by_text("Passages found before the answer").click()
    row.get_by_role("button", name=re.compile("p. 5 High above")).wait_for()
    # It comes back from the store, and a retry is a branch with sources of its own.
    page.reload()
    page.wait_for_selector("#messages quest-citation >> nth=1")
    assert page.locator("#messages button[aria-label=Retry]").count() == 1
    page.click("#messages button[aria-label=Retry]")
    page.get_by_role("group", name="Versions of this question").wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")
    page.locator("#messages quest-answer-row .source", has_text="p. 13").click()
    shows(page, label="13", passages=1)


def test_a_thousand_pages_are_scrolled_searched_and_read(asked, served):
    page = asked(1000)
    finish(page, served)
    page.get_by_role("tab", name="Page").click()
    shows(page, label="1")
    page.wait_for_function(f"() => ({LOOK})().loaded > 0")
    pages = page.locator(f"{VIEW} .pages")
    pages.evaluate(
        """async (view) => {
          for (let frame = 0; frame < 60; frame++) {
            view.scrollTop += 9000;
            await new Promise(requestAnimationFrame);
          }
        }"""
    )
    seen = page.evaluate(LOOK)
    assert seen["existing"] <= 12 and int(seen["label"]) > 500
    page.wait_for_function(f"() => ({LOOK})().loaded > 0")
    # What only flew past was never asked for.
    assert len({index for index, _ in served.images_asked}) < 60
    jump = page.get_by_role("textbox", name="Go to page")
    jump.fill("700")
    jump.press("Enter")
    shows(page, label="700")
    pages.focus()
    page.keyboard.press("Control+f")
    page.keyboard.type("of the prince")
    shows(page, label="5", hits=1)
    page.get_by_role("button", name="End the search").click()
    width = page.locator(f"{VIEW} .sheet").first.bounding_box()["width"]
    page.keyboard.press("+")
    assert page.locator(f"{VIEW} .sheet").first.bounding_box()["width"] > 1.1 * width
    page.keyboard.press("0")
    page.get_by_role("button", name="Text instead of images").click()
    page.locator(f"{VIEW} .sheet p", has_text="High above the city").wait_for()
    page.get_by_role("combobox", name="Document").select_option(label="notes.txt")
    page.locator(f"{VIEW} .sheet p", has_text="A lamp.").wait_for()
    # From the library: by name, without being asked first where.
    page.locator("#document-list .document-name", has_text="prince.pdf").click()
    shows(page, label="1")
