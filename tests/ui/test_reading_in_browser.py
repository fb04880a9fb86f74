"""What the model looked at, as the page tells it: the sentence in every case, the strip of document pages, the engine
view, and the compact line elsewhere; told by hand-made telemetry."""

from __future__ import annotations

import pytest

from app.chat.answers.reads.live_reading import heat_levels
from tests.ui.conftest import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
]

READING = {
    "type": "prefill", "reused_tokens": 0, "done_tokens": 2048, "total_tokens": 6700, "elapsed_s": 2.0,
    "remaining_s": 12.4, "already_read": False, "attention": "quest",
}  # fmt: skip
STEP = {
    "type": "step", "step": 1, "page_reads": None, "layers": 30, "pages": 1675, "kv_heads": 3, "dense_layers": 0,
    "context_tokens": 6700, "window_tokens": 16384, "tokens_per_s": 85.2, "mean_tokens_per_s": 80.0,
    "time_to_first_token_s": 0.3, "read_share": 0.22, "missed_share": 0.03, "attention": "quest",
    "attended_tokens": 1024.0, "mean_missed_share": 0.04, "kv_bytes_read": 34 << 20, "heat": None,
}  # fmt: skip
FINISHED = {
    "type": "finished", "finish_reason": "stop", "mean_tokens_per_s": 80.0, "time_to_first_token_s": 0.3, "steps": 9,
    "attention": "quest", "attended_tokens": 1024.0, "context_tokens": 6708, "mean_missed_share": 0.045,
    "kv_bytes_read": 34 << 20, "read_share": 0.22, "heat": None, "heat_of": "selection",
}  # fmt: skip
# Three documents of 400 pages: more than the strip has pixels for.
PAGES = 400


@pytest.fixture
def told(open_page, served, tmp_path):
    """The page with documents in its conversation, and what publishes telemetry of it."""

    def opened(pages: tuple[int, ...] = (7,), **options):
        page = open_page(**options)
        conversation_id = page.locator("quest-reading").get_attribute("conversation-id")
        while not served.telemetry.is_watched(conversation_id):
            page.wait_for_timeout(20)
        for number, count in enumerate(pages):
            path = tmp_path / f"book-{number}.txt"
            path.write_text("\f".join(f"Page {index + 1} of book {number}." for index in range(count)))
            entry = served.library.add(path, None, False)
            served.library.wait(entry.document_id)
            served.open_conversation(conversation_id).document_ids.append(entry.document_id)
        return page, lambda *events: [served.telemetry.publish(conversation_id, event) for event in events]

    return opened


def part(page, name):
    return page.locator(f"quest-reading [data-part={name}]")


def sentence(page, text):
    part(page, "sentence").filter(has_text=text).wait_for()


def test_the_sentence_is_right_in_every_case_and_the_strip_leads_to_the_page(told):
    page, tell = told()
    sentence(page, "Ask a question")
    height = page.evaluate("document.querySelector('quest-reading').clientHeight")
    tell({"type": "queued", "jobs_ahead": 2})
    sentence(page, "Waits for 2 other questions.")
    tell(READING)
    sentence(page, "Reads the text first: 2,048 of 6,700 tokens, about 12 s left.")
    tell(READING | {"reused_tokens": 6690, "done_tokens": 6690, "already_read": True, "remaining_s": 0.1})
    sentence(page, "Already read. Answering.")
    tell(STEP | {"step": 0, "attended_tokens": None})
    sentence(page, "Already read. Answering.")
    heat = heat_levels([1.0, 0.5, 1.0, 1.0, 4.0, 1.0, 1.6])
    tell(STEP | {"heat": heat})
    sentence(page, "looks at 1,024 of 6,700 tokens (15 %) and skips an estimated 4.0 % of its attention.")
    assert "each of 90 heads chooses its own" in part(page, "print").inner_text()
    # On screen by themselves: speed, bytes and share with what it includes, the pages selected, and their step.
    for name, value in (("speed", "85.2"), ("mean-speed", "80.0"), ("bytes", "34.0"), ("read-share", "22 %")):
        assert part(page, name).inner_text() == value
    assert "at step 1 · 1,024 of 6,700" in part(page, "map-caption").inner_text()
    box = part(page, "canvas").bounding_box()
    assert box["y"] + box["height"] < 900
    assert part(page, "most").inner_text().split("\n") == ["p. 5", "p. 7"]
    # With the keys: from the page looked at most to the next but one, and open it.
    strip = part(page, "strip")
    strip.focus()
    page.keyboard.press("ArrowRight")
    assert strip.get_attribute("aria-valuetext") == "p. 5, book-0.txt: 4.0 times its usual level"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert (
        part(page, "pointed").inner_text() == "p. 7, book-0.txt: 1.6 times its usual level. Enter or a click opens it."
    )
    tell(FINISHED | {"heat": heat_levels([1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0]), "heat_of": "attention"})
    sentence(page, "looked at 1,024 of 6,708 tokens (15 %) and skipped an estimated 4.5 % of its attention.")
    assert part(page, "most").inner_text() == "p. 3" and "all of its attention" in part(page, "how").inner_text()
    assert page.evaluate("document.querySelector('quest-reading').clientHeight") == height
    page.reload()
    sentence(page, "looked at 1,024 of 6,708 tokens (15 %)")
    part(page, "most").locator("button", has_text="p. 3").click()
    page.locator("quest-document-view", has_text="Page 3 of book 0.").wait_for()
    # Elsewhere a compact line tells the same, and leads back.
    line = page.locator("quest-live-strip button")
    assert "80.0 tokens/s" in line.inner_text() and "15 % of the text a word" in line.inner_text()
    line.click()
    part(page, "sentence").wait_for()

    dense = {"attention": "dense", "attended_tokens": 6701.0, "context_tokens": 6701, "mean_missed_share": None}
    tell(READING, STEP | dense)
    sentence(page, "looks at all 6,701 tokens.")
    assert "looks everywhere" in part(page, "how").inner_text()
    tell(FINISHED | {"attended_tokens": 900.0, "context_tokens": 900, "mean_missed_share": None})
    sentence(page, "looked at all 900 tokens: the text is short enough for that.")
    tell(FINISHED | {"mode": "passages"})
    sentence(page, "looked at 1,024 of 6,708 tokens of the passages that it was given (15 %) and skipped")
    tell(READING, FINISHED | {"attended_tokens": None, "context_tokens": None, "finish_reason": "cancelled"})
    sentence(page, "Stopped before the model had looked anywhere.")


def test_a_thousand_pages_on_a_telephone_while_an_answer_streams(told):
    page, tell = told((PAGES,) * 3, viewport={"width": 390, "height": 844})
    factors = [1.0] * (3 * PAGES)
    factors[700] = 6.0
    heat = heat_levels(factors)
    tell(READING, STEP | {"heat": heat})
    line = page.locator("quest-live-strip button")
    line.filter(has_text="85.2 tokens/s").wait_for()
    assert line.bounding_box()["height"] >= 44
    page.evaluate(
        """() => {
          window.strips = new Set();
          const canvas = document.querySelector("quest-live-strip").shadowRoot.querySelector("canvas");
          const look = () => { strips.add(canvas.toDataURL()); requestAnimationFrame(look); };
          look();
        }"""
    )
    for step in range(2, 12):
        factors[100 * step - 50] = 5.0
        tell(STEP | {"step": step, "heat": heat_levels(factors)})
        page.wait_for_timeout(60)
    assert page.evaluate("strips.size") >= 3
    line.click()
    strip = part(page, "strip")
    strip.wait_for()
    assert part(page, "pointed").inner_text() == "1,200 pages of 3 documents"
    assert part(page, "most").locator("button").first.inner_text() == "p. 301"
    strip.focus()
    page.keyboard.press("ArrowRight")
    assert strip.get_attribute("aria-valuetext").startswith("p. 301, book-1.txt: ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
