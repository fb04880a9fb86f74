"""The whole program in a real browser: a PDF is uploaded, asked about and raced, with the embedded model on the CPU.

Chromium's own downloads and sandbox are off; where it is not installed these tests are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.measure.benchmarks.page import load_page

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_BOOK = ROOT / "assets" / "books" / "the-happy-prince.pdf"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# A busy machine with two cores reads the book in minutes; a wait ends as soon as what it waits for is there.
PATIENCE_MS = 120_000
PANEL = "quest-reading "
VIEW = "quest-document-view "

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
]


@pytest.fixture(scope="module")
def address(embedded_data_dir, tmp_path_factory) -> Iterator[str]:
    """A running `python -m ui` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ui", "--no-browser", "--device", "cpu", "--offline"]
    log = tmp_path_factory.mktemp("server") / "output.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--data-dir", str(embedded_data_dir)],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for_health(address, server, log)
        yield address
    finally:
        server.terminate()
        server.wait(30)
    assert "Traceback" not in log.read_text()
    assert f"Quest Chat is open at {address}" in log.read_text()


def wait_for_health(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


@pytest.fixture(scope="module")
def context(address) -> Iterator:
    """A browser context, whose complaints and foreign requests fail the tests in the end."""
    sync_api = pytest.importorskip("playwright.sync_api")
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        own = (address, "data:", "blob:")
        context.on("request", lambda request: request.url.startswith(own) or complaints.append(request.url))
        yield context
        browser.close()
    assert complaints == []


@pytest.fixture(scope="module")
def page(context, address):
    """The page with the sample book uploaded and answers kept short."""
    page = open_page(context, address)
    page.set_input_files("#document-files input[type=file]", str(SAMPLE_BOOK))
    page.wait_for_selector("#document-list li:has-text('tokens')")
    page.get_by_role("button", name="Settings").click()
    longest = page.get_by_label("number input for Longest answer, in tokens")
    longest.fill("32")
    longest.press("Tab")
    page.keyboard.press("Escape")
    return page


def open_page(context, address):
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("quest-reading[conversation-id]:not([conversation-id=''])", state="attached")
    page.wait_for_selector(".model-status:is([data-stage=ready], [data-stage=failed])")
    assert page.locator(".model-status[data-stage=ready]").count(), page.locator(".model-status").inner_text()
    return page


def ask(page, question: str) -> None:
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")


def finish(page) -> None:
    page.wait_for_selector("#question button:has-text('Ask')")


def canvas_pixels(page) -> str:
    return page.locator("quest-engine-view canvas").evaluate("canvas => canvas.toDataURL()")


def figure(page, part: str) -> str:
    return page.locator(f"{PANEL}[data-part={part}]").inner_text()


def test_the_uploaded_book_is_listed_with_its_size(page):
    entry = page.locator("#document-list li.in-chat", has_text=SAMPLE_BOOK.name)
    entry.filter(has_text=re.compile(r"\d+ pages, [\d,]+ tokens")).wait_for()
    page.locator("#context-bar", has_text="whole document is in context").wait_for()


# Keeps what the page shows of an answer at each change and each frame: asked from here, a fast answer would go unseen.
WATCH_ANSWER = """() => {
  const seen = (window.seenOfAnswer = { texts: new Set(), pixels: new Set() });
  const panel = document.querySelector("quest-reading");
  const map = panel.shadowRoot.querySelector("quest-engine-view").shadowRoot.querySelector("canvas");
  const look = () => {
    const answer = document.querySelector("#messages .bot-row");
    if (panel.dataset.state === "answering" && answer) seen.texts.add(answer.innerText);
  };
  new MutationObserver(look).observe(document.querySelector("#messages"), {
    subtree: true, childList: true, characterData: true,
  });
  const draw = () => {
    const answering = panel.dataset.state === "answering";
    if (answering) seen.pixels.add(map.toDataURL());
    if (answering || !seen.pixels.size) requestAnimationFrame(draw);
  };
  draw();
}"""


def test_an_answer_streams_while_the_panel_moves(page):
    page.evaluate(WATCH_ANSWER)
    ask(page, "What does the Happy Prince ask the Swallow to do?")
    page.wait_for_function(
        "() => document.querySelector('quest-reading').shadowRoot"
        ".querySelector('[data-part=sentence]').textContent.includes('Reads the text first')"
    )
    page.wait_for_selector("quest-reading[data-state=answering]")
    page.wait_for_selector("quest-reading[data-state=idle]")
    finish(page)
    assert page.evaluate("seenOfAnswer.texts.size") >= 3
    assert page.evaluate("seenOfAnswer.pixels.size") >= 3
    assert float(figure(page, "mean-speed")) > 0
    assert float(figure(page, "first-token")) > 0
    assert 0 < float(figure(page, "read-share").rstrip(" %")) < 100
    assert 0 < float(figure(page, "missed-share").rstrip(" %")) < 100
    sentence = r"For each word the model looked at 1,024 of 6,\d+ tokens \(15 %\) and skipped an estimated [\d.]+ % "
    assert re.match(sentence, figure(page, "sentence"))
    assert page.locator(PANEL + "[data-part=most] button").count() >= 1
    report = page.locator(".answer-report")
    report.get_by_text(re.compile(r"[\d.]+ tokens/s")).wait_for()
    assert "First word after" in report.text_content()
    assert "%" not in report.text_content()


def test_sources_of_an_answer_stand_on_the_page_itself(page):
    row = page.locator("#messages quest-answer-row")
    # Where nothing supports what the model said, they stand in the open.
    if not row.locator(".instead").is_visible():
        row.get_by_role("button", name="How this answer was made").click()
        row.get_by_text("Passages found before the answer").click()
    row.locator("quest-passages li button").first.click()
    page.locator(VIEW + ".sheet img").first.wait_for()
    page.locator(VIEW + ".box[data-kind=passage]").first.wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Reading").click()


def test_a_click_on_the_map_opens_the_place_and_shows_the_text_of_that_page(page):
    canvas = page.locator("quest-engine-view canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.4})
    # The place in the document, and with Escape what the KV page holds.
    page.locator(VIEW + ".box[data-kind=passage]").first.wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector(PANEL + ".page-detail")
    assert re.fullmatch(r"KV page \d+, tokens [\d,]+ to [\d,]+", figure(page, "page-title"))
    assert re.search(rf"{re.escape(SAMPLE_BOOK.name)}, p\. \w+", figure(page, "page-source"))
    assert figure(page, "page-text").strip()
    # A page is a few words: they are shown among those around them.
    assert len(page.locator(PANEL + ".page-detail blockquote").inner_text().split()) >= 12


def test_the_slider_goes_back_through_the_steps(page):
    slider = page.locator(PANEL + "[data-part=slider]")
    last = int(slider.get_attribute("max"))
    assert last >= 3
    last_pixels = canvas_pixels(page)
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.locator(PANEL + "[data-part=map-caption]", has_text=re.compile(r"at step 1\b")).wait_for()
    assert not page.locator(PANEL + "[data-part=follow]").is_checked()
    assert canvas_pixels(page) != last_pixels
    page.locator(PANEL + "[data-part=follow]").check()
    page.locator(PANEL + "[data-part=map-caption]", has_text=re.compile(rf"at step {last}\b")).wait_for()


def test_a_second_question_reuses_what_was_read(page):
    ask(page, "Who is the Swallow?")
    page.wait_for_selector("#stop-answer")
    finish(page)
    report = page.locator(".answer-report").last.text_content()
    counts = re.search(r"([\d,]+) of ([\d,]+) tokens were read before", report).groups()
    reused_tokens, prompt_tokens = (int(count.replace(",", "")) for count in counts)
    assert reused_tokens > 0.9 * prompt_tokens


def test_two_tabs_take_turns_and_never_mix(page, context, address):
    other = open_page(context, address)
    assert other.locator("#messages .user-row").count() == 0
    assert other.locator("#document-list li.in-chat").count() == 0
    ask(page, "What is the ruby for?")
    page.wait_for_selector("#stop-answer")
    ask(other, "How many legs has a spider?")
    finish(page)
    other.wait_for_selector(".answer-report")
    finish(other)
    assert "spider" not in page.locator("#messages").inner_text()
    assert "ruby" not in other.locator("#messages .user-row").inner_text()
    assert other.locator("#messages .user-row").count() == 1
    other.close()


def test_a_refresh_keeps_the_conversation(page):
    asked = page.locator("#messages .user-row").count()
    page.reload()
    page.locator("#messages .user-row").nth(asked - 1).wait_for()
    assert page.locator("#messages .user-row").count() == asked
    assert SAMPLE_BOOK.name in page.locator("#document-list").inner_text()
    page.locator(PANEL + "[data-part=map-caption]", has_text="at step").wait_for()


def test_a_race_ends_with_a_verdict(page):
    page.get_by_role("tab", name="Race").click()
    page.fill("#race-question", "Where does the statue stand?")
    page.press("#race-question", "Enter")
    page.locator("quest-race").get_by_role("button", name="Stop").wait_for()
    page.locator(".verdict", has_text=re.compile("same words|same first token|different words")).wait_for()
    assert "of the text for each word" in page.locator(".verdict").inner_text()
    for side in ("dense", "quest"):
        lane = page.locator(f".lane[data-side={side}]")
        assert re.search(r"[\d.]+ s · \d+ tokens · [\d.]+ tokens/s", lane.inner_text())
        assert lane.locator(".lane-words").inner_text().strip()
    page.locator("quest-race").get_by_role("button", name="Races").click()


def test_nothing_is_wider_than_a_telephone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Page, reading and race").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in ("#messages", "#question", "#side-zone"):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_a_page_opens_at_its_top_and_wide_ones_with_the_cursor_in_the_question(context, address):
    for width, focused in ((1440, True), (390, False)):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 844})
        page.goto(address)
        page.wait_for_selector("quest-reading[conversation-id]:not([conversation-id=''])", state="attached")
        page.wait_for_timeout(500)
        assert page.evaluate("document.activeElement.matches('#question textarea')") == focused
        assert page.evaluate("window.scrollY") == 0
        page.close()


def test_a_preset_sets_the_budget_and_another_budget_is_custom(context, address):
    page = open_page(context, address)
    budget = page.get_by_label("number input for Tokens looked at")
    page.locator("#preset").get_by_text("Fast").click()
    page.wait_for_function("input => input.value === '256'", arg=budget.element_handle())
    page.get_by_role("button", name="Settings").click()
    budget.fill("512")
    budget.press("Enter")
    page.wait_for_selector("#preset input[value=custom]:checked")
    page.close()


def test_a_load_of_the_page_is_measured(context, address):
    """No time is asserted."""
    measured = load_page(context.browser, address, 390, 844)
    assert 0 < measured["first_paint_ms"] <= measured["usable_ms"]
    assert measured["load_shift"] < 0.05
