"""What keeps people from using the page: axe-core's findings, and content that jumps while the page loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

axe_playwright_python = pytest.importorskip("axe_playwright_python")

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
SIZES = [(1440, 900), (1100, 800), (390, 844)]
# Colours that are on their way from one theme to the other are no findings.
AT_REST = "*, *::before, *::after { transition: none !important; animation: none !important; }"
ANSWER = "Hi, [a link](https://example.org) `code`\n\nGold.\n\n```py\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
RUN_AXE = "rules => axe.run(document, { resultTypes: ['violations'], preload: false, ...rules })"
# What can be wrong in one theme and right in the other; all else is the same in both.
OF_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
# What comes into view or leaves it, as an answer that is followed to its end, has not moved.
WATCH_SHIFTS = """
window.layoutShifts = [];
const place = ({ x, y, width, height }) => `${x},${y} ${width}x${height}`;
const named = ({ node, previousRect, currentRect }) =>
  `${node?.nodeName} ${node?.id} ${node?.className}: ${place(previousRect)} -> ${place(currentRect)}`;
new PerformanceObserver((list) => {
  for (const { value, sources, hadRecentInput } of list.getEntries()) {
    const hasMoved = sources.some((source) => source.previousRect.height > 0 && source.currentRect.height > 0);
    if (hasMoved && !hadRecentInput) window.layoutShifts.push({ value, moved: sources.map(named) });
  }
}).observe({ type: "layout-shift", buffered: true });
"""


def check(page, where: str, rules: dict | None = None) -> None:
    """Fail with what axe calls serious or critical, by all its rules or some."""
    findings = [
        f"{where}: {rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in page.evaluate(RUN_AXE, rules or {})["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert findings == []


def check_both(page, where: str) -> None:
    """In both themes."""
    for theme in ("dark", "light"):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
        check(page, f"{where}, {theme}", OF_COLOURS if theme == "dark" else None)


def check_shifts(page, most: float) -> None:
    """Fail with what moved on the page by more than `most`, as browsers add it up."""
    shifts = page.evaluate("window.layoutShifts")
    assert sum(shift["value"] for shift in shifts) < most, shifts


def show_library(page) -> None:
    if page.locator(".open-library").is_visible():
        page.click(".open-library")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_axe_finds_nothing_serious(open_page, served, tmp_path, width, height):
    served.words = (ANSWER,)
    served.cites = ("High above", "")
    served.loaded = replace(served.loaded, demonstration=True)
    page = open_page(viewport={"width": width, "height": height})
    page.add_style_tag(content=AT_REST)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    # Gradio names a message before it has drawn it.
    page.locator("#messages .start").wait_for()
    check_both(page, "empty")
    files = []
    for name in ("book.txt", "broken.pdf", "locked.pdf"):
        (tmp_path / name).write_text(f"High above the city: {name}")
        files.append(str(tmp_path / name))
    served.library.reads.clear()
    page.set_input_files("#document-files input[type=file]", files)
    show_library(page)
    page.locator("#document-list li", has_text="locked.pdf").filter(has_text="Being read").wait_for()
    check_both(page, "reading")
    served.library.reads.set()
    page.get_by_label("Password of locked.pdf").wait_for()
    # One that is not in this chat, and one that is asked about before it is removed.
    page.get_by_label("Include broken.pdf in this chat").uncheck()
    page.get_by_role("button", name="More for book.txt").click()
    page.get_by_role("button", name="Remove from the library").locator("visible=true").click()
    check_both(page, "library")
    page.keyboard.press("Escape")
    served.pause.clear()
    page.fill("#question textarea", "Where?")
    page.press("#question textarea", "Enter")
    page.locator("#messages .md", has_text="Gold.").wait_for()
    check_both(page, "answering")
    served.pause.set()
    page.get_by_role("button", name="Edit").wait_for()
    page.click("#messages button[aria-label=Retry] >> nth=-1")
    page.get_by_role("group", name="Versions of this question").wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")
    page.click("#messages quest-answer-row .info")
    page.click(".context-line")
    check_both(page, "chat, and what fills the window")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Edit").click()
    check_both(page, "edit")
    page.keyboard.press("Escape")
    page.click("#messages .md a")
    check_both(page, "link")
    page.keyboard.press("Escape")
    page.locator("#messages quest-citation button").click()
    page.locator("quest-document-view mark").wait_for()
    page.get_by_role("button", name="Search in the document").click()
    page.keyboard.type("city")
    page.locator("quest-document-view .hits button").wait_for()
    check_both(page, "document")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+3")
    check_both(page, "race")
    page.fill("#race-question", "Where?")
    page.press("#race-question", "Enter")
    page.wait_for_selector(".lane-words .parts")
    check_both(page, "race on the stage")
    page.get_by_role("button", name="Races").click()
    page.get_by_role("button", name="Compare budgets").click()
    page.wait_for_selector("quest-race tbody tr:nth-child(4)")
    check_both(page, "budgets")
    page.get_by_role("button", name="Races").click()
    page.locator("#race-question").blur()
    page.keyboard.press("Alt+2")
    check_both(page, "reading")
    page.keyboard.press("Escape")
    for key, name in (("Alt+s", "Settings"), ("?", "Keyboard"), ("", "Models")):
        page.evaluate("document.activeElement.blur()")
        if key:
            page.keyboard.press(key)
        else:
            page.locator("quest-model-status button").click()
            page.get_by_role("button", name="Use: Broken-7B, 8,192 tokens").wait_for()
        page.get_by_role("dialog", name=name).wait_for()
        check_both(page, name)
        page.keyboard.press("Escape")
    assert open_page.complaints == []


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_nothing_jumps_and_the_page_never_scrolls(open_page, served, width, height):
    page = open_page(viewport={"width": width, "height": height})
    page.add_init_script(WATCH_SHIFTS)
    page.reload()
    # Gradio complains of requests that end with the page.
    open_page.complaints.clear()
    page.wait_for_selector("quest-reading[conversation-id]:not([conversation-id=''])", state="attached")
    page.wait_for_selector("#question textarea")
    # What comes late would jump late.
    page.wait_for_timeout(1500)
    check_shifts(page, 0.05)
    question = page.locator("#question").bounding_box()
    served.words = tuple(f"Line {number} of a long answer.\n\n" for number in range(60))
    served.pause.clear()
    page.fill("#question textarea", "Where?")
    page.press("#question textarea", "Enter")
    page.locator("#messages .md", has_text="Line 0").wait_for()
    # Browsers forgive what moves within half a second of a key.
    page.wait_for_timeout(600)
    # What is asked takes the place of the start: that is what the reader has asked for, however late it comes.
    page.evaluate("window.layoutShifts = []")
    served.pause.set()
    page.locator("#messages .md", has_text="Line 59").wait_for()
    page.locator("quest-question[turn]").wait_for()
    page.wait_for_timeout(300)
    check_shifts(page, 0.01)
    assert page.locator("#question").bounding_box() == question
    # Settings scroll by themselves.
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Instructions to the model").focus()
    page.keyboard.press("Escape")
    assert page.locator("#question").bounding_box() == question
    for side in ("Height", "Width"):
        assert page.evaluate(f"document.documentElement.scroll{side} <= window.inner{side}")
    assert page.evaluate("[window.scrollX, window.scrollY]") == [0, 0]
    assert open_page.complaints == []
