"""The frame of the page: its three zones at three widths, its dialogs and its keys."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TELEPHONE = {"width": 390, "height": 844}
ROOT = "document.documentElement"
# Whatever can be pressed and is in sight, outside of what somebody wrote.
SMALL_TARGETS = """(least) => {
  const found = [];
  const look = (root) => {
    for (const one of root.querySelectorAll("*")) {
      if (one.shadowRoot) look(one.shadowRoot);
      if (!one.matches("button, select, textarea, [role=tab], #preset label, #library-search")) continue;
      const box = one.getBoundingClientRect();
      if (!box.width || one.closest("[inert], #messages, #document-files, quest-documents")) continue;
      if (box.width < least - 0.5 || box.height < least - 0.5) {
        found.push(`${one.id || one.className || one.localName}: ${box.width} x ${box.height}`);
      }
    }
  };
  for (const part of ["chat-title", "question-area", "side-tabs", "page-header", "settings-dialog"]) {
    look(document.getElementById(part));
  }
  return found;
}"""


def width_of(page, zone: str = "#side-zone") -> float:
    return page.locator(zone).bounding_box()["width"]


def test_the_right_zone_is_dragged_closed_and_remembered(open_page):
    page = open_page()
    assert (width_of(page, "#library-zone"), width_of(page)) == (260, 460)
    handle = page.get_by_role("separator")
    handle.focus()
    page.keyboard.press("ArrowLeft")
    assert width_of(page) == 480 and handle.get_attribute("aria-valuenow") == "480"
    box = handle.bounding_box()
    page.mouse.move(box["x"] + 4, 400)
    page.mouse.down()
    page.mouse.move(box["x"] - 56, 400, steps=4)
    page.mouse.up()
    assert abs(width_of(page) - 540) < 5
    dragged = width_of(page)
    # The text keeps to 720 pixels, however wide the zone.
    page.get_by_role("button", name="Close the side").click()
    assert page.locator("#side-zone").is_hidden()
    assert width_of(page, "#question-box") == 720
    page.reload()
    page.wait_for_selector("#question textarea")
    assert page.locator("#side-zone").is_hidden()
    page.get_by_role("button", name="Page, reading and race").click()
    assert width_of(page) == dragged
    page.get_by_role("tab", name="Reading").press("ArrowRight")
    page.locator("#race-panel").wait_for()
    page.evaluate("window.dispatchEvent(new CustomEvent('quest-show-side', { detail: { tab: 'page' } }))")
    page.locator("#document-view").wait_for()
    # The race takes the stage, and what is below it is out of reach.
    page.evaluate(f"{ROOT}.dataset.race = 'stage'")
    assert width_of(page) == 1440 - 260
    assert page.evaluate("document.getElementById('chat-zone').inert")
    page.keyboard.press("Escape")
    assert page.evaluate("document.getElementById('chat-zone').inert") is False
    assert width_of(page) == dragged


def test_keys_work_everywhere_and_dialogs_keep_the_focus(open_page):
    page = open_page()
    question = page.locator("#question textarea")
    question.press("?")
    assert page.get_by_role("dialog").count() == 0 and question.input_value() == "?"
    page.keyboard.press("Control+k")
    assert page.locator("#library-search").evaluate("field => field === document.activeElement")
    page.keyboard.press("Alt+q")
    assert question.evaluate("field => field === document.activeElement")
    page.keyboard.press("Alt+3")
    page.locator("#race-panel").wait_for()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard")
    assert "Search the library" in dialog.inner_text()
    for key in ("Tab", "Tab", "Shift+Tab", "Tab"):
        page.keyboard.press(key)
        assert dialog.get_by_role("button", name="Close").evaluate("button => button === document.activeElement")
    page.keyboard.press("Escape")
    assert page.get_by_role("tab", name="Race").evaluate("tab => tab.getRootNode().activeElement === tab")
    page.keyboard.press("Alt+s")
    dialog = page.get_by_role("dialog", name="Settings")
    page.keyboard.press("Shift+Tab")
    for _ in range(4):
        assert dialog.evaluate("dialog => dialog.contains(document.activeElement)")
        page.keyboard.press("Tab")
    # A click beside it closes it, too.
    page.mouse.click(30, 30)
    dialog.wait_for(state="hidden")
    # Whatever is set is told beside the question.
    page.locator("#preset").get_by_text("Fast").click()
    page.wait_for_function("document.querySelector('[aria-label^=\"number input for Tokens\"]').value === '256'")
    page.keyboard.press("Alt+0")
    assert page.locator("#side-zone").is_hidden()
    # What fills the window is told above its bar, and goes with the next click.
    page.click(".context-line")
    page.locator(".context-details", has_text="Context window").wait_for()
    page.click("#messages")
    page.locator(".context-details").wait_for(state="hidden")


def test_a_drawer_on_a_tablet_and_sheets_on_a_telephone(open_page):
    page = open_page(viewport={"width": 1100, "height": 800})
    assert page.locator("#side-zone").is_hidden() and page.locator("#library-zone").is_visible()
    page.keyboard.press("Alt+1")
    assert width_of(page) == 460 and width_of(page, "#chat-zone") == 640
    page.get_by_role("button", name="Library").click()
    page.get_by_role("dialog", name="Library").wait_for()
    for _ in range(2):
        page.keyboard.press("Escape")
    assert page.locator("#side-zone").is_hidden()
    page.set_viewport_size(TELEPHONE)
    assert page.locator("#library-zone").is_hidden()
    assert page.evaluate(SMALL_TARGETS, 44) == []
    for opener, name in (("Library", "Library"), ("Page, reading and race", "Beside the conversation")):
        page.get_by_role("button", name=opener).click()
        sheet = page.get_by_role("dialog", name=name)
        assert sheet.bounding_box()["width"] == 390
        assert page.evaluate("document.getElementById('chat-zone').inert")
        assert sheet.evaluate("sheet => sheet.contains(document.activeElement)")
        assert page.evaluate(SMALL_TARGETS, 44) == []
        page.mouse.click(195, 30)
        sheet.wait_for(state="hidden")
        assert page.get_by_role("button", name=opener).evaluate("button => button === document.activeElement")
    page.get_by_role("button", name="Settings").click()
    assert page.evaluate(SMALL_TARGETS, 44) == []
    page.keyboard.press("Escape")
    page.evaluate(f"{ROOT}.dataset.race = 'stage'")
    assert page.locator("#race-panel").bounding_box()["width"] == 390
    page.evaluate(f"delete {ROOT}.dataset.race")
    assert page.evaluate(f"{ROOT}.scrollWidth") == 390
