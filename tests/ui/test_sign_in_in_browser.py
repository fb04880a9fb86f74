"""Signing in to a server that listens, in Chromium, on a telephone's width; then the page works as ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.settings import AppSettings
from app.web.access.key import open_access_key
from tests.ui.scripted_assistant import ScriptedAssistant

PHONE = {"width": 390, "height": 844}
KEY = "a-key-of-my-own-choice"


@pytest.fixture(scope="module")
def address(serve_page, tmp_path_factory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        # The server sets it for Gradio; the context puts it back.
        environment.setenv("GRADIO_TEMP_DIR", "")
        settings = AppSettings(data_dir=tmp_path_factory.mktemp("data"), host="0.0.0.0", api_key=KEY)
        with serve_page(settings, ScriptedAssistant()) as address:
            yield address


@pytest.fixture
def new_page(chromium) -> Iterator:
    contexts = []

    def new_page(**options):
        context = chromium.new_context(**{"viewport": PHONE} | options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        return context.new_page()

    yield new_page
    for context in contexts:
        context.close()


def sign_in(page, key: str) -> None:
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_signs_in_once_and_uses_the_page(address, new_page):
    page = new_page()
    assert page.goto(address).status == 401
    assert page.evaluate("document.activeElement.id") == "key"
    sign_in(page, "wrong")
    assert page.get_by_role("alert").inner_text() == "That is not the key of this server."
    sign_in(page, KEY)
    page.wait_for_selector("quest-reading[conversation-id]:not([conversation-id=''])", state="attached")
    assert page.url.startswith(f"{address}/") and KEY not in page.url
    assert "quest-chat" not in page.evaluate("document.cookie")
    page.fill("#question textarea", "Where are we?")
    page.press("#question textarea", "Enter")
    page.get_by_text("High above the city").first.wait_for()
    # Once: neither another tab nor a reload is asked.
    page.reload()
    page.wait_for_selector("quest-reading[conversation-id]:not([conversation-id=''])", state="attached")
    assert page.context.new_page().goto(address).status == 200


def test_without_scripts_too(address, new_page):
    page = new_page(java_script_enabled=False)
    page.goto(f"{address}/healthz?a=b")
    sign_in(page, KEY)
    assert page.url == f"{address}/healthz?a=b"
    assert '"status"' in page.content()


def test_an_open_page_says_that_there_is_another_key(address, new_page):
    page = new_page()
    page.goto(address)
    sign_in(page, KEY)
    page.wait_for_selector("quest-reading[conversation-id]:not([conversation-id=''])", state="attached")
    page.context.clear_cookies()
    page.get_by_text("Quest Chat asks for another key.").wait_for()
    page.reload()
    assert page.get_by_label("Key").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1440])
def test_fits_and_can_be_used_by_everybody(address, new_page, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(address)
    sign_in(page, "wrong")
    page.get_by_role("alert").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [violation["id"] for violation in axe.Axe().run(page).response["violations"]] == []


def test_the_key_was_not_kept(address, tmp_path):
    # What the module's server was given is in no file; one that made its own would have shown it.
    assert open_access_key(AppSettings(data_dir=tmp_path, host="0.0.0.0", api_key=KEY)).made == ""
