"""The race in a browser: raced, reloaded, stopped, replayed, saved, refused, and swept over budgets."""

from __future__ import annotations

import json

import pytest

FILM = "quest-race .film"
# What is kept of races is told only after a race has been started.
LATE_RACES = """() => {
  const fetchAtOnce = window.fetch;
  window.fetch = async (resource, options) => {
    if (String(resource).includes("/races") && options?.method !== "POST")
      await new Promise((resolve) => setTimeout(resolve, 2000));
    return fetchAtOnce(resource, options);
  };
}"""


def race(page, question="Where does he stand?"):
    page.get_by_role("tab", name="Race").click()
    page.fill("#race-question", question)
    page.press("#race-question", "Enter")
    page.locator(FILM).wait_for()


def on_stage(page) -> bool:
    return page.evaluate("document.documentElement.dataset.race === 'stage'")


def test_a_race_survives_a_reload_and_is_replayed_saved_and_kept(open_page, served, tmp_path):
    page = open_page(accept_downloads=True)
    served.pause.clear()
    race(page)
    page.locator(".lane-words", has_text="High").first.wait_for()
    assert on_stage(page) and page.locator("#chat-zone").get_attribute("inert") is not None
    page.reload()
    page.locator(".lane-words", has_text="High").first.wait_for(state="attached")
    page.get_by_role("tab", name="Race").click()
    page.locator(FILM).wait_for()
    served.pause.set()
    verdict = page.locator(".verdict")
    verdict.filter(has_text="Quest finished 0.3 s earlier").wait_for()
    assert "looked at 10 % of the text for each word, the same words for 2 tokens" in verdict.inner_text()
    assert verdict.get_attribute("data-winner") == "quest"
    for side, parted in (("dense", " the"), ("quest", " a")):
        lane = page.locator(f".lane[data-side={side}]")
        assert lane.locator(".parts").text_content() == parted
        assert "finished" in lane.locator(".lane-track b").inner_text()
    assert "This word: 11 % of the text, most of p. 1" in page.locator("[data-side=quest] .lane-looked").inner_text()
    # Back at the beginning, and played to the end.
    page.locator(f"{FILM} input[type=range]").fill("0")
    assert page.locator("[data-side=dense] .said").count() == 1
    page.get_by_role("button", name="Replay").click()
    page.locator("[data-side=dense] .said").nth(3).wait_for()
    assert page.locator("[data-side=quest] .lane-time").inner_text() == "0.3 s · 4 tokens · 10.0 tokens/s"
    with page.expect_download() as picture:
        page.get_by_role("button", name="Save as picture").click()
    picture.value.save_as(tmp_path / "race.png")
    assert (tmp_path / "race.png").read_bytes()[:4] == b"\x89PNG"
    with page.expect_download() as file:
        page.get_by_role("button", name="Save as JSON").click()
    file.value.save_as(tmp_path / "race.json")
    kept = json.loads((tmp_path / "race.json").read_text())
    assert (kept["format"], kept["state"], len(kept["tokens"]["quest"])) == ("quest-race", "finished", 4)
    page.keyboard.press("Escape")
    assert not on_stage(page)
    page.get_by_role("button", name="Races").click()
    page.locator(".race-kept button", has_text="Where does he stand?").click()
    verdict.filter(has_text="Quest finished").wait_for()


@pytest.mark.parametrize(("width", "height"), [(1100, 800), (390, 844)])
def test_both_lanes_are_in_view_and_a_race_can_be_stopped(open_page, served, width, height):
    page = open_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
    served.pause.clear()
    # As the row of an answer asks for it.
    page.evaluate("window.dispatchEvent(new CustomEvent('quest-race', {detail: {question: 'Where?', turn_id: '7'}}))")
    page.locator(".lane-words", has_text="High").nth(1).wait_for()
    boxes = [page.locator(f".lane[data-side={side}]").bounding_box() for side in ("dense", "quest")]
    assert all(box["y"] >= 0 and box["y"] + box["height"] <= height for box in boxes)
    assert (boxes[0]["x"] == boxes[1]["x"]) == (width == 390)
    if width == 390:
        for button in page.locator("quest-race button:visible").all():
            assert button.bounding_box()["height"] >= 44
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("quest-race").get_by_role("button", name="Stop").click()
    page.locator(".verdict", has_text="Stopped: by then Quest had written 1 token ").wait_for()
    page.locator("quest-race").get_by_role("button", name="Stop").wait_for(state="hidden")


def test_with_the_preset_exact_drafts_race_and_are_counted(open_page, served):
    page = open_page()
    page.get_by_role("tab", name="Race").click()
    form = page.locator("quest-race form")
    form.get_by_text("and by Quest, which looks").wait_for()
    page.locator("#preset label", has_text="Exact").click()
    page.wait_for_function("document.querySelector('#attention input:checked').value === 'exact'")
    page.get_by_role("tab", name="Reading").click()
    page.evaluate(LATE_RACES)
    race(page)
    page.locator(".verdict", has_text="Exact finished 0.3 s earlier, 1 of 7 drafts accepted").wait_for()
    assert served.asked[-1][1].attention == "exact"
    lane = page.get_by_role("region", name="Exact", exact=True)
    assert lane.get_by_role("heading", name="Exact").is_visible()
    assert "1 of 7 drafts accepted" in lane.locator(".lane-looked").inner_text()
    # Somebody's own choice stays.
    page.get_by_role("button", name="Races").click()
    form.get_by_label("Dense attention against").select_option("quest")
    race(page)
    page.locator(".verdict", has_text="Quest finished 0.3 s earlier").wait_for()


def test_a_draft_stays_a_busy_conversation_refuses_and_budgets_are_drawn(open_page, served):
    page = open_page()
    page.get_by_role("tab", name="Race").click()
    form = page.locator("quest-race form")
    form.locator("text=15,900 of 90,000 tokens instead of passages of 4,900").wait_for()
    assert "once for both; that takes about 1 min 15 s" in form.inner_text()
    page.fill("#race-question", "Where does <b>he</b> stand?")
    page.reload()
    page.get_by_role("tab", name="Race").click()
    page.wait_for_function("document.querySelector('quest-race').parts.box.value.startsWith('Where')")
    (conversation,) = served.conversations.values()
    with conversation.busy:
        form.get_by_role("button", name="Start the race").click()
        form.get_by_role("alert").filter(has_text="still answering").wait_for()
    form.get_by_label("Over as much of the text").check()
    form.get_by_role("button", name="Compare budgets").click()
    table = page.locator("quest-race table")
    table.locator("tr", has_text="1,024 (balanced)").wait_for()
    page.locator("quest-race [role=status]", has_text="dense attention's choice for").first.wait_for()
    assert "2.00×" in table.locator("tr", has_text="128").inner_text()
    assert "28 of 32" in table.inner_text()
    assert not on_stage(page)
    assert page.locator("quest-race canvas[role=img]:visible").bounding_box()["height"] == 300
