"""The model picker in a real browser: what is here, changing to another, a failure, folders, keyboard."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api")


def test_a_walk_through_the_models(open_page, served):
    served.models.switched.clear()
    page = open_page()
    status, picker = page.locator("quest-model-status button"), page.locator("quest-model-picker")
    status.filter(has_text="tiny-model").wait_for()
    status.click()
    rows = picker.locator(".picker-models > li")
    rows.nth(3).wait_for()
    # Names come from files: nothing of them becomes markup.
    larger = rows.filter(has_text="Larger <b>4B</b>")
    assert larger.locator("b").count() == 0
    assert "Weights" not in larger.inner_text() and "weights 1.0 GiB" in larger.inner_text()
    assert "This computer has 8.0 GiB of 16.0 GiB free" in picker.inner_text()
    assert rows.filter(has_text="Huge-70B").get_by_role("button", name="Use").is_disabled()
    assert "40.0 GiB" in rows.filter(has_text="Huge-70B").inner_text()
    picker.get_by_text("1 model that cannot be used").click()
    assert "'gpt2' is not supported" in picker.locator(".picker-unusable").inner_text()

    # Another window is reckoned anew, and loaded.
    picker.get_by_label("Reads up to").select_option("4096")
    larger.get_by_text("for 4,096 tokens").wait_for()
    served.models.go_on.clear()
    larger.get_by_role("button", name="Use").click()
    picker.locator(".picker-state", has_text="Reading the weights").wait_for()
    assert larger.get_by_role("button", name="Use").is_disabled()
    served.models.go_on.set()
    rows.locator(".picker-in-use:visible").first.wait_for()
    status.filter(has_text="Larger <b>4B</b>").wait_for(state="attached")
    assert served.models.switched == [("Larger <b>4B</b>", 4096, 16)]

    # One that cannot be loaded leaves the former, and says why.
    rows.filter(has_text="Broken-7B").get_by_role("button", name="Use").click()
    picker.locator(".picker-state", has_text="its weights are damaged. Larger <b>4B</b> is still here.").wait_for()

    # Folders are named by their paths.
    field = picker.get_by_label("Path of a folder")
    field.fill("/nowhere")
    field.press("Enter")
    picker.locator(".picker-error", has_text="There is no folder").wait_for()
    field.fill("/models/mine")
    field.press("Enter")
    picker.locator(".picker-named", has_text="/models/mine").wait_for()
    picker.get_by_role("button", name="Look in /models/mine no longer").click()
    picker.locator(".picker-named", has_text="/models/mine").wait_for(state="hidden")

    page.keyboard.press("Escape")
    picker.wait_for(state="hidden")
    assert page.evaluate("document.activeElement.closest('quest-model-status') !== null")


def test_an_answer_is_stopped_only_if_that_is_said(open_page, served):
    served.models.switched.clear()
    served.pause.clear()
    page = open_page()
    page.locator("#question textarea").fill("Where does he stand?")
    page.keyboard.press("Enter")
    page.get_by_text("High", exact=False).first.wait_for()
    page.locator("quest-model-status button").click()
    picker = page.locator("quest-model-picker")
    picker.get_by_role("button", name="Use: Broken-7B").click()
    stop = picker.get_by_role("button", name="Stop and change the model")
    stop.wait_for()
    assert served.models.switched == []
    stop.click()
    picker.locator(".picker-state", has_text="tiny-model is still here").wait_for()
    assert [model for model, *_ in served.models.switched] == ["Broken-7B"]
    served.pause.set()
