"""`bench page`: when the page is there, and whether it keeps up with an answer; the real program in a real browser.

First paint and the usable page are counted from the navigation, with nothing of the page kept by the browser; usable is
a page whose conversation is open and whose question box can be typed into. Frames are counted while the model writes
and the document stands open beside the chat. Layout shift is the largest of any burst of movements, as browsers define
it. Sizes are those of a desktop, a tablet and a telephone.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from app.errors import UserFacingError
from app.measure.machine import describe_machine
from app.measure.running_page import OPENED, add_sample_book, ask, running_browser, running_program, wait_for_answer
from app.settings import AppSettings

SIZES = ((1440, 900), (1100, 800), (390, 844))
# Of the machine, not of this measurement: the first answer reads the book.
PATIENCE_MS = 600_000
# Frames of so many seconds of writing are counted, or of so many answers.
STREAMED_S, MOST_ANSWERS = 5.0, 6
QUESTION = "Tell the whole story of the Happy Prince, with every detail."

WATCH = """
const opened = OPENED;
window.watched = { shift: 0, usable: null };
let burst = { value: 0, first: -Infinity, last: -Infinity };
new PerformanceObserver((list) => {
  for (const { startTime, value, hadRecentInput } of list.getEntries()) {
    if (hadRecentInput) continue;
    // As browsers count it: what moves with less than a second between, for at most five.
    const goesOn = startTime - burst.last < 1000 && startTime - burst.first < 5000;
    burst = { value: goesOn ? burst.value + value : value, first: goesOn ? burst.first : startTime, last: startTime };
    watched.shift = Math.max(watched.shift, burst.value);
  }
}).observe({ type: "layout-shift", buffered: true });
const look = () => {
  const box = document.querySelector("#question textarea");
  if (box?.offsetParent && document.querySelector(opened)) watched.usable = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
""".replace("OPENED", json.dumps(OPENED))
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
COUNT_FRAMES = """() => {
  const counted = (window.counted = { frames: 0, seconds: 0, longest: 0 });
  let before = null;
  const frame = (now) => {
    const answering = document.querySelector("quest-reading").dataset.state === "answering";
    if (answering && before !== null) {
      counted.frames += 1;
      counted.seconds += (now - before) / 1000;
      counted.longest = Math.max(counted.longest, now - before);
    }
    before = answering ? now : null;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""


def measure_page(
    settings: AppSettings, *, rounds: int, on_progress: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """Measure the page.

    Args:
        settings: model, device and what else a start takes; its data folder is not used.
        rounds: loads of the page at each size; the median counts.

    Returns:
        `rows` (width, first_paint_ms, usable_ms, load_shift; at the first width also streamed_s, frames_per_s,
        longest_frame_ms, streaming_shift), `start_s` of the program until it answers, `rounds` and `machine`.

    Raises:
        UserFacingError: if Playwright, a browser or the program does not come up.
    """
    flags = ["--model", settings.model, "--device", settings.device, "--dtype", settings.dtype]
    with tempfile.TemporaryDirectory(prefix="quest-chat-page-") as folder, running_browser() as browser:
        with running_program(Path(folder) / "data", flags) as (address, start_s):
            on_progress("the model is loaded")
            # Not before: a page that loads beside it has half of the processor.
            _wait_for_model(browser, address)
            rows = []
            for width, height in SIZES:
                on_progress(f"the page at {width} x {height}")
                loads = [load_page(browser, address, width, height) for _ in range(rounds)]
                medians = {name: statistics.median(load[name] for load in loads) for name in loads[0]}
                rows.append({"width": width, **medians})
            on_progress("the sample book is read, and asked about")
            rows[0] |= stream_answers(browser, address, *SIZES[0])
    return {
        "benchmark": "page",
        "rounds": rounds,
        "start_s": start_s,
        "machine": describe_machine(torch.device("cpu")),
        "rows": rows,
    }


def _wait_for_model(browser: Any, address: str) -> None:
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector(".model-status:is([data-stage=ready], [data-stage=failed])")
        if page.locator(".model-status[data-stage=failed]").count():
            raise UserFacingError(page.locator(".model-status").get_attribute("title") or "The model was not loaded.")


def load_page(browser: Any, address: str, width: int, height: int) -> dict[str, float]:
    """One load in a context of its own, so that nothing is kept from another."""
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(address)
        page.wait_for_function("watched.usable !== null")
        usable = page.evaluate("watched.usable")
        # What comes late would move late.
        page.wait_for_timeout(1000)
        return {
            "first_paint_ms": page.evaluate(PAINT),
            "usable_ms": usable,
            "load_shift": page.evaluate("watched.shift"),
        }


def stream_answers(browser: Any, address: str, width: int, height: int) -> dict[str, float]:
    """Frames while answers are written beside the open document."""
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(address)
        page.wait_for_selector(OPENED, state="attached")
        add_sample_book(page)
        page.locator("#document-list .document-name").first.click()
        page.locator("quest-document-view .sheet img").first.wait_for()
        page.evaluate("watched.shift = 0")
        page.evaluate(COUNT_FRAMES)
        for _ in range(MOST_ANSWERS):
            ask(page, QUESTION)
            page.wait_for_selector("quest-reading[data-state=answering]", state="attached")
            wait_for_answer(page)
            if page.evaluate("counted.seconds") >= STREAMED_S:
                break
        counted = page.evaluate("counted")
        if not counted["frames"]:
            raise UserFacingError("The answers were over before a frame was drawn. Nothing was counted.")
        return {
            "streamed_s": counted["seconds"],
            "frames_per_s": counted["frames"] / counted["seconds"],
            "longest_frame_ms": counted["longest"],
            "streaming_shift": page.evaluate("watched.shift"),
        }
