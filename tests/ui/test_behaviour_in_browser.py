"""How the page behaves under hands: keyboard, focus, messages, undo, dropped files, and a server that goes away."""

from __future__ import annotations

import socket
import threading

import pytest

from app.errors import UserFacingError
from app.models.model_loader import ModelStatus
from app.settings import AppSettings

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FOCUSED = """() => {
  let focused = document.activeElement;
  while (focused.shadowRoot?.activeElement) focused = focused.shadowRoot.activeElement;
  return focused.getAttribute("aria-label") ?? focused.placeholder ?? focused.textContent ?? focused.localName;
}"""
QUESTION = "Ask about the document"
STATE = "quest-reading [data-part=state]"
# What an answer publishes.
STEP = {
    "type": "step", "step": 1, "page_reads": None, "layers": 2, "pages": 4, "kv_heads": 1, "dense_layers": 0,
    "context_tokens": 60, "window_tokens": 4096, "tokens_per_s": 20.0, "mean_tokens_per_s": 20.0,
    "time_to_first_token_s": 0.3, "read_share": 0.5, "missed_share": 0.1,
}  # fmt: skip
FINISHED = {
    "type": "finished", "finish_reason": "stop", "mean_tokens_per_s": 20.0, "time_to_first_token_s": 0.3, "steps": 2,
}  # fmt: skip

# Whatever Gradio asks of the server comes there so much later.
LATE_EVENTS = """
const fetchAtOnce = window.fetch;
window.fetch = async (resource, options) => {
  const isEvent = String(resource.url ?? resource).includes("/queue/join");
  if (isEvent) await new Promise((resolve) => setTimeout(resolve, 700));
  return fetchAtOnce(resource, options);
};
null;
"""


def press_ask(page, question: str) -> None:
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")


def ask(page, question: str = "Where?") -> None:
    asked = page.locator("quest-question").count()
    press_ask(page, question)
    page.locator("quest-question[turn]").nth(asked).wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")


def wait_for_focus(page, name: str) -> None:
    page.wait_for_function(f"name => ({FOCUSED})() === name", arg=name, timeout=5000)


def test_an_edit_takes_the_width_and_tells_what_is_kept_and_follows_the_keys(open_page, served):
    page = open_page()
    for question in ("First?", "Second?", "Third?"):
        ask(page, question)
    second = page.locator("quest-question").nth(1)
    box = second.locator("textarea")
    second.get_by_role("button", name="Edit").click()
    assert box.input_value() == "Second?"
    assert box.bounding_box()["width"] > 0.85 * page.locator("#messages").bounding_box()["width"]
    assert "The 2 answers below are kept" in second.locator("#note").inner_text()
    # Half a word of an input method: Enter and Escape are its own.
    for key in ("Enter", "Escape"):
        box.dispatch_event("keydown", {"key": key, "isComposing": True})
    assert box.is_visible()
    box.press("Escape")
    assert not box.is_visible()
    wait_for_focus(page, "Edit")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("And <why>?")
    page.keyboard.press("Enter")
    page.locator("quest-question", has_text="And <why>?").wait_for()
    page.wait_for_function("document.querySelectorAll('quest-question').length === 2")
    page.wait_for_selector("#question button:has-text('Ask')")
    assert [question for question, _ in served.asked][-1] == "Second?\nAnd <why>?"
    wait_for_focus(page, QUESTION)


def test_escape_stops_an_answer_and_the_focus_returns_to_the_question(open_page, served):
    page = open_page()
    for stop in (lambda: page.keyboard.press("Escape"), lambda: page.click("#stop-answer")):
        served.pause.clear()
        page.fill("#question textarea", "Where?")
        page.click("#question button:has-text('Ask')")
        page.wait_for_selector("#stop-answer")
        stop()
        page.wait_for_selector("#question button:has-text('Ask')")
        wait_for_focus(page, QUESTION)
    assert "Stopped." in page.locator(".answer-report").last.inner_text()
    # Focused with the keyboard, the Stop button goes when the answer ends.
    served.pause.clear()
    press_ask(page, "Where?")
    page.focus("#stop-answer")
    served.pause.set()
    page.wait_for_selector("#question button:has-text('Ask')")
    wait_for_focus(page, QUESTION)


def test_the_focus_of_what_a_style_hides_is_handed_on_though_nothing_else_changes(open_page, served):
    page = open_page()
    served.pause.clear()
    press_ask(page, "Where?")
    page.locator("#messages", has_text="High").wait_for()
    page.focus("#stop-answer")
    # What was on its way has come.
    page.wait_for_timeout(500)
    page.evaluate("document.querySelector('.is-answering').className = ''")
    wait_for_focus(page, QUESTION)


def test_a_removed_document_hands_the_focus_on(open_page, tmp_path):
    page = open_page()
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(f"High above the city: {name}")
    page.set_input_files("#document-files input[type=file]", [str(tmp_path / "one.txt"), str(tmp_path / "two.txt")])
    page.locator("#document-list li").nth(1).wait_for()
    for name, next_name in (("one.txt", "two.txt"), ("two.txt", "")):
        page.get_by_role("button", name=f"More for {name}").click()
        page.get_by_role("button", name="Remove from the library").locator("visible=true").click()
        page.get_by_role("button", name="Remove", exact=True).click()
        if next_name:
            wait_for_focus(page, next_name)
    page.wait_for_selector("#document-list .list-none")
    page.wait_for_function("document.activeElement.closest('#document-files') !== null")


def test_messages_stand_beside_what_they_speak_of_once(open_page, served, tmp_path):
    page = open_page()
    served.failure = UserFacingError("The <window> is full.")
    for _ in range(2):
        press_ask(page, "Where?")
        page.locator("#notice-at-question", has_text="The <window> is full.").wait_for()
    assert page.input_value("#question textarea") == "Where?"
    page.press("#question textarea", "End")
    page.keyboard.type("!")
    assert page.locator("#notice-at-question").inner_text() == ""
    served.failure = None
    broken = tmp_path / "broken.pdf"
    broken.write_text("x")
    page.set_input_files("#document-files input[type=file]", str(broken))
    page.locator("#document-list", has_text="broken.pdf is damaged").wait_for()
    page.set_input_files("#document-files input[type=file]", str(broken))
    page.locator(".add-problems[role=alert]", has_text='"broken.pdf" is in this chat already').wait_for()
    page.get_by_role("tab", name="Race").click()
    page.press("#race-question", "Enter")
    page.locator("quest-race [role=alert]", has_text="Write a question first").wait_for()
    assert page.locator(".toast-body:visible").count() == 0


def test_a_new_conversation_empties_the_panel_and_the_old_one_has_its_map_still(open_page, served):
    page = open_page()
    ask(page, "First?")
    conversation_id = page.locator("quest-reading").get_attribute("conversation-id")
    while not served.telemetry.is_watched(conversation_id):
        page.wait_for_timeout(20)
    served.telemetry.publish(conversation_id, STEP)
    served.telemetry.publish(conversation_id, FINISHED)
    caption = page.locator("quest-reading [data-part=map-caption]")
    page.locator(STATE, has_text="Finished").wait_for()
    assert "at step 1" in caption.inner_text()
    page.click("#new-chat")
    page.locator("quest-reading [data-part=map-empty]", has_text="Here you see").wait_for()
    page.wait_for_function("!document.querySelector('quest-question')")
    assert (caption.inner_text(), page.locator("quest-reading [data-part=mean-speed]").inner_text()) == ("", "–")
    page.locator("#conversation-list a", has_text="First?").click()
    page.wait_for_selector("quest-question")
    caption.filter(has_text="at step 1").wait_for()


def test_escape_closes_the_text_of_a_page_and_the_focus_stays_on_the_map(open_page, served):
    page = open_page()
    conversation_id = page.locator("quest-reading").get_attribute("conversation-id")
    while not served.telemetry.is_watched(conversation_id):
        page.wait_for_timeout(20)
    served.telemetry.publish(conversation_id, STEP)
    served.telemetry.publish(conversation_id, FINISHED)
    page.locator(STATE, has_text="Finished").wait_for()
    detail = page.locator("quest-reading .page-detail")
    for focus in ("canvas", "[data-part=page-close]"):
        page.focus("quest-engine-view canvas")
        page.keyboard.press("Enter")
        detail.wait_for()
        page.focus(f"quest-engine-view {focus}")
        page.keyboard.press("Escape")
        detail.wait_for(state="hidden")
        inner = ".shadowRoot.activeElement"
        assert page.evaluate(f"document.activeElement{inner}{inner}.localName") == "canvas"


DROP = """([selector, kind, text]) => {
  const data = new DataTransfer();
  if (kind === "file") data.items.add(new File([text], "dropped.txt", { type: "text/plain" }));
  else data.setData("text/plain", text);
  const target = document.querySelector(selector);
  const fire = (type) => {
    const event = new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
    target.dispatchEvent(event);
    return event.defaultPrevented;
  };
  fire("dragenter");
  const seen = document.documentElement.classList.contains("file-drag");
  fire("dragover");
  return [seen, fire("drop"), document.documentElement.classList.contains("file-drag")];
}"""


def test_files_may_be_dropped_anywhere_and_text_is_left_alone(open_page):
    page = open_page()
    for count, selector in enumerate(("#messages", "#page-header h1", "body"), start=1):
        assert page.evaluate(DROP, [selector, "file", f"High above the city {count}"]) == [True, True, False]
        page.locator("#document-list li").nth(count - 1).wait_for()
    assert page.evaluate(DROP, ["#question textarea", "text", "Where?"]) == [False, False, False]


def test_a_question_that_comes_before_the_model_waits_for_it(open_page, served):
    page = open_page()
    served.loaded = ModelStatus("loading", "Reading the weights", "tiny-model")
    press_ask(page, "Where?")
    page.locator(".answer-wait", has_text="Waiting for the model: Reading the weights").wait_for()
    page.locator(STATE, has_text="Loading the model").wait_for()
    served.loaded = ModelStatus("ready", "Ready", "tiny-model", "CPU", 4096)
    page.locator("#messages .md", has_text="High above the city").wait_for()
    page.locator(STATE, has_text="Idle").wait_for()


def test_a_question_that_comes_before_the_conversation_is_opened_waits_for_it(open_page, served, monkeypatch):
    page = open_page()
    may_open, open_conversation = threading.Event(), served.open_conversation
    monkeypatch.setattr(
        served, "open_conversation", lambda conversation_id: may_open.wait(20) and open_conversation(conversation_id)
    )
    page.reload()
    press_ask(page, "Where?")
    page.wait_for_timeout(300)
    may_open.set()
    page.locator("#messages .md", has_text="High above the city").wait_for()
    assert page.locator("#notice-at-question").inner_text() == ""


def test_another_engine_that_does_not_answer_is_told_and_no_model_is_offered(
    chromium, assistant, serve_page, tmp_path, monkeypatch
):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    engine = "http://127.0.0.1:9"
    said = f"{engine} cannot be reached. It is asked again every 5 seconds, by itself."
    assistant.loaded = ModelStatus("failed", said, "the engine's model", engine_url=engine)
    settings = AppSettings(data_dir=tmp_path, engine_url=engine)
    with serve_page(settings, assistant) as address, chromium.new_context() as context:
        page = context.new_page()
        page.goto(address)
        line = page.locator("#connection-line", has_text=said)
        line.wait_for()
        assert "without --engine-url" in line.inner_text()
        assert not line.get_by_role("button").is_visible()
        assistant.loaded = ModelStatus("ready", "Ready", "large", engine, 4096, engine_url=engine)
        line.wait_for(state="hidden")


def test_a_server_that_is_gone_is_told_until_it_is_back(chromium, assistant, serve_page, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = AppSettings(data_dir=tmp_path)
    with chromium.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        with serve_page(settings, assistant, port) as address:
            page.goto(address)
            page.locator(STATE, has_text="Idle").wait_for()
        page.locator("#connection-line", has_text="cannot be reached").wait_for()
        page.locator(STATE, has_text="Not connected").wait_for()
        assert "tiny-model" not in page.locator(".model-status").inner_text()
        with serve_page(settings, assistant, port):
            page.locator(STATE, has_text="Idle").wait_for()
            page.locator(".model-text", has_text="tiny-model").wait_for()
            page.locator("#connection-line", has_text="cannot be reached").wait_for(state="hidden")


def test_a_question_right_after_a_choice_is_answered_with_it(open_page, served):
    """A preset is the browser's own doing: no answer of the server has to come first."""
    page = open_page()
    page.evaluate(LATE_EVENTS)
    for preset, attention, token_budget in (("Fast", "auto", 256), ("Exact", "exact", 256), ("Balanced", "auto", 1024)):
        page.locator("#preset label", has_text=preset).click()
        ask(page)
        _, options = served.asked[-1]
        assert (options.attention, options.token_budget) == (attention, token_budget), preset
