"""Answers that belong to the server, and conversations that outlive the page, in a real browser."""

from __future__ import annotations

import socket
import time

import pytest

from app.settings import AppSettings
from tests.ui.scripted_assistant import ScriptedAssistant

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OPENED = "quest-reading[conversation-id]:not([conversation-id=''])"
ANSWER = "High above the city"


def press_ask(page, question: str = "Where?") -> None:
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")


def ask(page, question: str = "Where?") -> None:
    press_ask(page, question)
    page.locator("quest-question[turn]", has_text=question).last.wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")


def answers(page) -> list[str]:
    return page.locator("#messages .bot-row .md").all_inner_texts()


def open_id(page) -> str:
    return page.locator("quest-reading").get_attribute("conversation-id")


def go(page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector(OPENED)


def test_a_reload_in_the_middle_of_an_answer_shows_it_from_where_it_is(open_page, served):
    page = open_page()
    served.pause.clear()
    press_ask(page)
    page.locator("#messages .md", has_text="High").wait_for()
    page.fill("#question textarea", "Half a ques")
    page.reload()
    page.locator("#messages .md", has_text="High").wait_for()
    page.wait_for_selector("#stop-answer")
    assert page.input_value("#question textarea") == "Half a ques"
    served.pause.set()
    page.locator("#messages .md", has_text=ANSWER).wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")
    assert len(served.asked) == 1


def test_a_reload_in_the_middle_of_reading_goes_on_waiting_in_plain_sight(open_page, served, tmp_path):
    served.library.reads.clear()
    page = open_page()
    (tmp_path / "book.txt").write_text(ANSWER)
    page.set_input_files("#document-files input[type=file]", str(tmp_path / "book.txt"))
    page.locator("#document-list li", has_text="Being read 40 %").wait_for()
    press_ask(page)
    page.locator(".answer-wait", has_text="Reading book.txt: 40 %").wait_for()
    page.reload()
    page.locator(".answer-wait", has_text="Reading book.txt: 40 %").wait_for()
    page.locator("#document-list li", has_text="Being read 40 %").wait_for()
    served.library.reads.set()
    page.locator("#messages .md", has_text=ANSWER).wait_for()
    page.locator("#document-list li", has_text="1,204 tokens").wait_for()


def test_two_tabs_of_one_conversation_show_the_same_and_either_stops_it(open_page, served):
    page = open_page()
    other = page.context.new_page()
    go(other, page.url)
    assert open_id(other) == open_id(page)
    served.pause.clear()
    press_ask(page)
    for tab in (page, other):
        tab.locator("#messages .md", has_text="High").wait_for()
    other.click("#stop-answer")
    for tab in (page, other):
        tab.wait_for_selector("#question button:has-text('Ask')")
        assert "Stopped." in tab.locator(".answer-report").inner_text()
    served.pause.set()
    # What one tab asks, edits and begins anew, the other shows; and a tab that is closed stops nothing.
    press_ask(other, "And then?")
    page.locator("quest-question[turn]", has_text="And then?").wait_for()
    served.pause.clear()
    press_ask(other, "And at last?")
    page.locator("quest-question", has_text="And at last?").wait_for()
    other.close(run_before_unload=True)
    served.pause.set()
    page.locator("quest-question[turn]", has_text="And at last?").wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")
    assert answers(page)[-1] == ANSWER


def test_the_address_leads_to_the_conversation_and_back_leads_back(open_page, served):
    page = open_page()
    ask(page, "First?")
    first = page.url
    assert first.endswith(f"/?c={open_id(page)}")
    page.click("#new-chat")
    page.wait_for_function("first => location.href !== first", arg=first)
    page.wait_for_function("!document.querySelector('quest-question')")
    page.fill("#question textarea", "Half a ques")
    page.go_back()
    page.locator("quest-question", has_text="First?").wait_for()
    assert page.url == first and page.input_value("#question textarea") == ""
    page.go_forward()
    page.wait_for_function("!document.querySelector('quest-question')")
    page.wait_for_function("document.querySelector('#question textarea').value === 'Half a ques'")
    page.locator("#conversation-list a", has_text="First?").click()
    page.locator("quest-question", has_text="First?").wait_for()
    assert page.url == first
    assert page.locator("#conversation-list [aria-current=page]").inner_text() == "First?"
    # Another browser.
    other = page.context.browser.new_context().new_page()
    go(other, first)
    other.locator("quest-question", has_text="First?").wait_for()
    other.context.close()


def test_a_new_tab_opens_the_last_conversation_unless_a_tab_has_it(open_page, served):
    page = open_page()
    ask(page, "First?")
    other = page.context.new_page()
    go(other, served.address)
    assert open_id(other) != open_id(page)
    first_id = open_id(page)
    page.close(run_before_unload=True)
    other.wait_for_timeout(500)
    third = other.context.new_page()
    go(third, served.address)
    assert open_id(third) == first_id
    go(third, f"{served.address}/?c=gone")
    third.locator("#notice-at-question", has_text="not here any more").wait_for()


def test_another_conversation_is_opened_while_an_answer_is_written(open_page, served):
    page = open_page()
    ask(page, "Before?")
    page.click("#new-chat")
    page.wait_for_function("!document.querySelector('quest-question')")
    served.pause.clear()
    press_ask(page, "Running?")
    page.locator("#messages .md", has_text="High").wait_for()
    page.locator("#conversation-list a", has_text="Before?").click()
    page.locator("quest-question[turn]", has_text="Before?").wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")
    page.wait_for_timeout(300)
    assert page.locator("quest-question").all_inner_texts()[0].startswith("Before?")
    page.go_back()
    page.locator("quest-question", has_text="Running?").wait_for()
    page.wait_for_selector("#stop-answer")
    served.pause.set()
    page.locator("#messages .md", has_text=ANSWER).wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")


def test_what_is_typed_before_the_new_conversation_is_there_belongs_to_it(open_page, served, monkeypatch):
    page = open_page()
    ask(page, "Before?")
    before_id, begin = open_id(page), served.new_conversation

    def begin_slowly():
        time.sleep(1)
        return begin()

    monkeypatch.setattr(served, "new_conversation", begin_slowly)
    page.fill("#question textarea", "A draft")
    page.click("#new-chat")
    press_ask(page, "Running?")
    page.locator("quest-question[turn]", has_text="Running?").wait_for()
    assert open_id(page) != before_id
    assert [turn.question for turn in served.conversation(before_id).turns] == ["Before?"]
    # The end of an answer changes the question box.
    page.wait_for_selector("#question button:has-text('Ask')")
    running_id = open_id(page)
    page.click("#new-chat")
    page.fill("#question textarea", "Not sent yet")
    page.wait_for_function("id => !location.href.endsWith(id)", arg=running_id)
    page.wait_for_timeout(300)
    assert page.input_value("#question textarea") == "Not sent yet"
    page.locator("#conversation-list a", has_text="Before?").click()
    page.wait_for_function("document.querySelector('#question textarea').value === 'A draft'")


def test_a_conversation_that_is_gone_cannot_be_opened_and_the_draft_stays(open_page, served):
    page = open_page()
    ask(page, "First?")
    first = open_id(page)
    page.click("#new-chat")
    page.locator("#messages .start").wait_for()
    page.fill("#question textarea", "Half a ques")
    # As another browser deletes it, of which this one has not heard yet.
    served.stored.conversations[first].is_deleted = True
    page.locator("#conversation-list a", has_text="First?").click()
    page.locator("#notice-at-library", has_text="no such conversation").wait_for()
    page.wait_for_function("document.querySelector('#question textarea').value === 'Half a ques'")
    page.locator("#conversation-list a", has_text="First?").wait_for(state="detached")
    ask(page, "Second?")
    assert open_id(page) != first


def test_a_new_conversation_that_is_one_already_keeps_the_draft(open_page, served):
    page = open_page()
    ask(page, "Before?")
    page.click("#new-chat")
    page.wait_for_function("!document.querySelector('quest-question')")
    page.fill("#question textarea", "A draft")
    new_id = open_id(page)
    page.click("#new-chat")
    page.wait_for_timeout(500)
    page.wait_for_function("document.querySelector('#question textarea').value === 'A draft'")
    assert open_id(page) == new_id


def test_branches_are_kept_and_gone_to_with_the_keyboard(open_page, served):
    page = open_page()
    for question in ("First?", "Second?"):
        ask(page, question)
    first = page.locator("quest-question").first
    first.get_by_role("button", name="Edit").click()
    assert "The 2 answers below are kept" in first.locator("#note").inner_text()
    first.locator("textarea").fill("Other?")
    first.locator("textarea").press("Enter")
    page.locator("quest-question[turn]", has_text="Other?").wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")
    assert page.locator("quest-question").count() == 1
    branches = first.get_by_role("group", name="Versions of this question")
    assert branches.locator("[data-part=place]").inner_text() == "2/2"
    assert branches.get_by_role("button", name="Later version").get_attribute("aria-disabled") == "true"
    branches.get_by_role("button", name="Earlier version").focus()
    page.keyboard.press("Enter")
    page.locator("quest-question", has_text="Second?").wait_for()
    assert branches.locator("[data-part=place]").inner_text() == "1/2"
    page.click("#messages button[aria-label=Retry] >> nth=-1")
    second = page.locator("quest-question", has_text="Second?")
    second.locator("[data-part=place]", has_text="2/2").wait_for()
    assert [question for question, _ in served.asked] == ["First?", "Second?", "Other?", "Second?"]


def test_an_unanswered_question_comes_back_where_nothing_else_is_typed(open_page, served):
    page = open_page()
    served.failure = RuntimeError("device lost")
    press_ask(page, "Where?")
    page.locator("#notice-at-question", has_text="device lost").wait_for()
    page.wait_for_function("document.querySelector('#question textarea').value === 'Where?'")
    page.reload()
    page.wait_for_function("document.querySelector('#question textarea')?.value === 'Where?'")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_after_a_restart_the_page_says_so_and_goes_on(chromium, assistant, serve_page, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    settings, port = AppSettings(data_dir=tmp_path), free_port()
    complaints: list[str] = []
    with chromium.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        with serve_page(settings, assistant, port) as address:
            go(page, address)
            ask(page, "First?")
            assistant.pause.clear()
            press_ask(page, "Second?")
            page.locator("#messages .md", has_text="High").nth(1).wait_for()
            page.fill("#question textarea", "Half a ques")
            where = page.url
        page.locator("#connection-line", has_text="cannot be reached").wait_for()
        # While the server is gone, browser and Gradio say so in the console; what matters is how it goes on.
        again = ScriptedAssistant(assistant.stored)
        with serve_page(settings, again, port):
            page.locator("#notice-at-question", has_text="Quest Chat was started again").wait_for()
            complaints.clear()
            page.locator(".answer-report", has_text="Quest Chat ended while this was written").wait_for()
            assert page.url == where
            assert page.input_value("#question textarea") == "Half a ques"
            assert answers(page) == [ANSWER, "High"]
            page.click("#messages button[aria-label=Retry] >> nth=-1")
            page.locator("quest-question", has_text="Second?").locator("[data-part=place]", has_text="2/2").wait_for()
            assert answers(page) == [ANSWER, ANSWER]
            assert complaints == []
            # Told once.
            page.reload()
            page.locator("quest-question", has_text="Second?").wait_for()
            assert page.locator("#notice-at-question").inner_text() == ""
        assistant.pause.set()
