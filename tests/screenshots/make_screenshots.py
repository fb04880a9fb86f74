"""Make the README's pictures of the page: `python tests/screenshots/make_screenshots.py`.

The program runs as a user starts it, over an empty data folder, and the embedded model answers on the sample book. The
pictures go to `assets/screenshots`.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from app.errors import UserFacingError  # noqa: E402
from app.measure.running_page import (  # noqa: E402
    OPENED,
    add_sample_book,
    ask,
    running_browser,
    running_program,
    wait_for_answer,
)

SCREENSHOTS = ROOT / "assets" / "screenshots"
LARGEST_BYTES = 250_000
PATIENCE_MS = 900_000
DESKTOP, TELEPHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
# The model finds the answer to the first, and not to the second.
QUESTIONS = ("With what did the Giant knock down the wall?", "With what was the dead Giant covered?")
MARKED = "quest-document-view [data-kind~=passage]"


class Pictures:
    """Takes pictures of pages in a browser.

    Args:
        browser: Playwright's.
        address: of the running program.
        folder: where the pictures go.
    """

    def __init__(self, browser: Any, address: str, folder: Path) -> None:
        self._browser = browser
        self._address = address
        self._folder = folder

    def open(self, size: dict[str, int], dark: bool = False, address: str = "") -> Any:
        """A page of this size at the address of a conversation, or a new one; a telephone's with twice the pixels."""
        options = {"device_scale_factor": 2 if size == TELEPHONE else 1}
        context = self._browser.new_context(viewport=size, color_scheme="dark" if dark else "light", **options)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        address = address or f"{self._address}/?"
        page.goto(f"{address}&__theme={'dark' if dark else 'light'}")
        page.wait_for_selector(OPENED, state="attached")
        page.wait_for_selector(".model-status[data-stage=ready]", state="attached")
        return page

    def take(self, page: Any, name: str) -> None:
        """Write `name`.png once nothing moves any more.

        Raises:
            UserFacingError: if it is larger than a picture in a README should be.
        """
        from PIL import Image

        page.mouse.move(0, 0)
        page.wait_for_timeout(1500)
        picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        path = self._folder / f"{name}.png"
        picture.save(path, optimize=True)
        if path.stat().st_size > LARGEST_BYTES:
            picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
        if (size := path.stat().st_size) > LARGEST_BYTES:
            raise UserFacingError(f"{path} has {size:,} bytes; at most {LARGEST_BYTES:,} are wanted.")
        print(f"{path.relative_to(ROOT)}: {size:,} bytes", flush=True)


def open_source(page: Any) -> None:
    """Open the source of the first answer on its page; where no sentence has one, the best passage."""
    row = page.locator("#messages quest-answer-row").first
    source = row.locator("[data-part=sources] button.source, [data-part=instead] quest-passages li button").first
    source.click()
    page.locator(MARKED).first.wait_for()


def take_all(pictures: Pictures) -> None:
    """One conversation on the sample book, from all sides."""
    page = pictures.open(DESKTOP)
    add_sample_book(page)
    ask(page, QUESTIONS[0])
    page.wait_for_selector("quest-reading[data-state=answering]", state="attached")
    page.get_by_role("tab", name="Reading").click()
    wait_for_answer(page)
    pictures.take(page, "reading")
    ask(page, QUESTIONS[1])
    page.locator("#messages quest-answer-row").nth(1).wait_for()
    wait_for_answer(page)
    open_source(page)
    pictures.take(page, "answer")
    page.locator("#messages quest-answer-row").first.get_by_role("button", name="Race this question").click()
    page.locator(".verdict", has_text=re.compile("same words|same first token|different words")).wait_for()
    pictures.take(page, "race")
    address = page.url.replace("&__theme=light", "").replace("__theme=light", "")
    page.context.close()
    for size, dark, name in (
        (DESKTOP, True, "answer-dark"),
        (TELEPHONE, False, "phone"),
        (TELEPHONE, True, "phone-page-dark"),
    ):
        page = pictures.open(size, dark, address)
        page.locator("#messages quest-answer-row").nth(1).wait_for()
        if dark:
            open_source(page)
        else:
            page.locator("#messages quest-question").first.scroll_into_view_if_needed()
        pictures.take(page, name)
        page.context.close()


def main() -> int:
    """Make them all; exit code 1 if that is not possible."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=SCREENSHOTS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="quest-chat-pictures-") as data, running_browser() as browser:
            with running_program(Path(data), ["--device", "cpu"]) as (address, _):
                take_all(Pictures(browser, address, arguments.folder.resolve()))
    except UserFacingError as error:
        print(f"make_screenshots: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
