"""The whole program as a user starts it, and a browser that looks at it: for what is measured and drawn of the page.

Both are processes of their own. Playwright, which drives the browser, is among the packages of the tests alone.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.errors import UserFacingError
from app.settings import forget_api_key

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_BOOK = ROOT / "assets" / "books" / "the-happy-prince.pdf"
OPENED = "quest-reading[conversation-id]:not([conversation-id=''])"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_PATIENCE_S = 120.0


@contextmanager
def running_program(data_dir: Path, flags: list[str]) -> Iterator[tuple[str, float]]:
    """Run the program over a data folder for as long as a `with` lasts.

    Args:
        data_dir: its data folder.
        flags: of its command line besides the folder and the port.

    Yields:
        Its address, and the seconds from the start of the process until it answered.

    Raises:
        UserFacingError: if it does not come up.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ui", "--no-browser", "--offline", "--port", str(port)]
    # It would be asked for, too.
    forget_api_key()
    begun = time.monotonic()
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "output.txt"
    with log.open("w") as output:
        program = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), *flags], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            if program.poll() is not None or time.monotonic() > begun + _PATIENCE_S:
                raise UserFacingError(f"The program did not come up: {log.read_text().strip()[-500:]}")
            time.sleep(0.01)
        yield address, time.monotonic() - begun
    finally:
        program.terminate()
        try:
            program.wait(30)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def running_browser() -> Iterator[Any]:
    """A Chromium without a window: this machine's, or else Playwright's own.

    Raises:
        UserFacingError: if Playwright or a browser is missing.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise UserFacingError(
            "The page is looked at with the package playwright, which is not installed. "
            "Install it with `python -m pip install -r requirements-dev.txt`."
        ) from error
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        except Error as error:
            raise UserFacingError(
                "No browser could be started. Install one: on Debian or Ubuntu with `apt install chromium`, else "
                "with `python -m playwright install chromium`."
            ) from error
        yield browser
        browser.close()


def add_sample_book(page: Any) -> None:
    """Add the sample book to the page's conversation, and wait until the model has read it."""
    page.wait_for_selector(".model-status[data-stage=ready]")
    page.set_input_files("#document-files input[type=file]", str(SAMPLE_BOOK))
    read = page.locator("#document-list li.in-chat[data-state=read]", has_text="tokens")
    read.wait_for(state="attached")
    # In the background, where another question would wait for it.
    read.locator("progress.is-idle").wait_for(state="attached")


def ask(page: Any, question: str) -> None:
    """Ask, without waiting for the answer."""
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")


def wait_for_answer(page: Any) -> None:
    """Wait for the end of an answer that has begun."""
    page.wait_for_selector("quest-reading[data-state=idle]", state="attached")
    page.wait_for_selector("#question button:has-text('Ask')")
