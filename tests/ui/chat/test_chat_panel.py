"""The chat's handlers, called as Gradio would, on a scripted assistant."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio as gr
import pytest

from app.chat.answers.answer import Finished, PrefillEvent
from app.chat.answers.running_answer import RunningAnswer
from app.errors import UserFacingError
from quest_core.session_events import PrefillProgress
from tests.ui.scripted_assistant import answer_report
from ui.chat.answer_messages import question_content, turn_messages, unanswered_messages
from ui.chat.chat_panel import ChatPanel
from ui.documents_panel import DocumentsPanel
from ui.settings_panel import CUSTOM, SettingsPanel, preset_name

REQUEST = SimpleNamespace(session_hash="tab")
UNCHANGED = (gr.skip(), gr.skip(), gr.skip())
OPTIONS = ("quest", 1024, 256, 0.0, 1.0, "Be brief.")


@pytest.fixture
def panel(assistant, settings, monkeypatch) -> ChatPanel:
    # Show every token, however fast they come.
    monkeypatch.setattr("ui.chat.answer_messages._UPDATE_S", 0.0)
    with gr.Blocks(analytics_enabled=False):
        return ChatPanel(assistant, SettingsPanel(settings), DocumentsPanel(assistant))


@pytest.fixture
def conversation(assistant):
    return assistant.new_conversation()


def begin(panel, conversation_id, question, options=OPTIONS):
    """Ask."""
    panel._ask(REQUEST, SimpleNamespace(question=question), conversation_id, *options)


def ask(panel, conversation, question):
    """Ask and wait for the end of the answer."""
    begin(panel, conversation.conversation_id, question)
    wait_until_idle(conversation)


def wait_until_idle(conversation):
    if (running := conversation.running) is not None:
        running.join(10)


def follow(panel, conversation, tab: str = "tab", number: int = 0):
    """A tab's messages: yields (messages, meter, unanswered question), and holds that nothing is written at its end."""
    event = SimpleNamespace(number=number, conversation_id=conversation.conversation_id)
    is_written = True
    for update in panel._follow(event, SimpleNamespace(session_hash=tab)):
        is_written = update != UNCHANGED
        if is_written:
            yield update
    assert not is_written


def test_a_look_ends_without_writing_whatever_became_of_it(panel, conversation):
    event = SimpleNamespace(number=7, conversation_id=conversation.conversation_id)
    assert list(panel._follow(event, REQUEST))[-1] == UNCHANGED
    # Begun after a later one: Gradio would empty the outputs of a handler that writes nothing at all.
    event.number = 6
    assert list(panel._follow(event, REQUEST)) == [UNCHANGED]


def shown(panel, conversation):
    return list(follow(panel, conversation))[-1]


def test_an_answer_streams_and_stays_as_a_turn(panel, conversation, assistant):
    assistant.pause.clear()
    begin(panel, conversation.conversation_id, "  Where does the prince stand? ")
    following = follow(panel, conversation)
    messages, meter, sign = next(following)
    assert messages[-3] == {"role": "user", "content": question_content("Where does the prince stand?")}
    assert "is-answering" in sign and "quest-unanswered" not in sign
    assert "Context window" in meter
    assert any(messages[-2]["content"] == "High " for messages, *_ in following)
    assistant.pause.set()
    messages, meter, sign = list(following)[-1]
    assert messages == turn_messages(conversation.turns)
    assert "High above the city" in [message["content"] for message in messages]
    assert sign == ""
    assert "Context window" in meter


def test_an_answer_goes_on_without_anybody_and_two_tabs_see_the_same(panel, conversation, assistant):
    assistant.pause.clear()
    begin(panel, conversation.conversation_id, "Where?")
    gone, one, other = (follow(panel, conversation, tab) for tab in ("gone", "one", "other"))
    next(gone)
    gone.close()
    for following in (one, other):
        assert any(messages[-2]["content"] == "High " for messages, *_ in following)
    assistant.pause.set()
    assert list(one)[-1] == list(other)[-1]
    assert conversation.turns[0].answer == "High above the city"


def test_a_later_look_of_a_tab_ends_the_earlier_one_which_writes_nothing_more(panel, assistant):
    first, second = assistant.new_conversation(), assistant.new_conversation()
    ask(panel, second, "Second?")
    assistant.pause.clear()
    begin(panel, first.conversation_id, "First?")
    earlier = follow(panel, first, number=1)
    assert any(messages[-2]["content"] == "High " for messages, *_ in earlier)
    with ThreadPoolExecutor() as threads:
        later = threads.submit(lambda: list(follow(panel, second, number=2)))
        assert list(earlier) == []
        assert later.result(10)[-1][0] == turn_messages(second.turns)
    # One that was asked for before them and begins late.
    assert list(follow(panel, first, number=1)) == []
    assistant.pause.set()


def test_a_failure_is_told_to_the_tab_that_looked_away_meanwhile(panel, conversation, assistant):
    release = threading.Event()

    def fail_later():
        yield PrefillEvent(PrefillProgress(0, 100, 200, 0.5), 0.5)
        release.wait(10)
        raise UserFacingError("The window is full.")

    conversation.running = RunningAnswer("Where?", "1", lambda running: fail_later())
    running = conversation.running
    running.start()
    earlier = follow(panel, conversation, number=1)
    next(earlier)
    with ThreadPoolExecutor() as threads:
        later = threads.submit(lambda: list(follow(panel, conversation, number=2)))
        list(earlier)
        conversation.running = None
        release.set()
        with pytest.raises(gr.Error, match="The window is full"):
            later.result(10)


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (UserFacingError("The window is full. Remove a document."), "The window is full. Remove a document."),
        (ValueError("token_budget must be at least 48, not 16"), "not 16"),
        (RuntimeError("device lost"), "error in Quest Chat .RuntimeError: device lost.*Try again"),
        (ZeroDivisionError(), "error in Quest Chat .ZeroDivisionError"),
    ],
)
def test_a_failed_question_comes_back_to_the_box(panel, conversation, assistant, failure, sentence):
    assistant.failure = failure
    # It may have failed before anybody looks.
    ask(panel, conversation, "Where?")
    updates = []
    with pytest.raises(gr.Error, match=sentence):
        for update in follow(panel, conversation):
            updates.append(update)
    messages, _, unanswered = updates[-1]
    assert messages == unanswered_messages("Where?", False) and "is-answering" not in unanswered
    assert 'question="Where?"' in unanswered
    # Told once, and only where it was asked.
    assert shown(panel, conversation)[0] == list(follow(panel, conversation, "other"))[-1][0] == messages
    assistant.failure = None
    ask(panel, conversation, "Where?")
    assert shown(panel, conversation)[0] == turn_messages(conversation.turns)
    assert shown(panel, conversation)[2] == ""


def test_an_empty_question_asks_nothing(panel, conversation, assistant):
    with pytest.warns(UserWarning, match="Write a question first"):
        ask(panel, conversation, "   ")
    assert assistant.asked == []


@pytest.mark.parametrize("place", range(1, 5))
@pytest.mark.parametrize("value", [None, "many", float("nan"), float("inf"), [256], True])
def test_a_setting_that_is_no_number_is_named(panel, conversation, assistant, place, value):
    options = list(OPTIONS)
    options[place] = value
    with pytest.raises(gr.Error, match="must be a number"):
        begin(panel, conversation.conversation_id, "Where?", options)
    assert assistant.asked == []


@pytest.mark.parametrize("value", [None, "many", float("nan")])
def test_an_emptied_field_reaches_the_handlers(panel, value):
    """Gradio's own comparison with the slider's ends would fail before any of ours could say why."""
    for slider in panel._settings_panel.inputs[1:5]:
        assert slider.preprocess(value) is value
        with pytest.raises(gr.Error):
            slider.preprocess(1e9)
    assert preset_name("quest", value) == CUSTOM


def test_a_failing_meter_does_not_take_the_answer_with_it(panel, conversation, assistant, monkeypatch):
    monkeypatch.setattr(assistant, "context_usage", lambda conversation: 1 / 0)
    ask(panel, conversation, "Where?")
    _, meter, sign = shown(panel, conversation)
    assert "is-answering" not in sign
    assert "ZeroDivisionError" in meter


@pytest.mark.parametrize("conversation_id", ["gone", "", None])
def test_a_conversation_that_is_not_there_is_told(panel, conversation_id):
    with pytest.raises(gr.Error, match="no such conversation|no conversation yet"):
        begin(panel, conversation_id, "Where?")


def test_a_second_question_waits_for_the_end_of_the_first(panel, conversation, assistant):
    assistant.pause.clear()
    begin(panel, conversation.conversation_id, "First?")
    with pytest.raises(gr.Error, match="still being written"):
        begin(panel, conversation.conversation_id, "Second?")
    assistant.pause.set()


def test_two_conversations_never_mix(panel, assistant):
    one, other = assistant.new_conversation(), assistant.new_conversation()
    assistant.pause.clear()
    begin(panel, one.conversation_id, "One?")
    begin(panel, other.conversation_id, "Other?")
    tabs = follow(panel, one, "one"), follow(panel, other, "other")
    for tab in tabs:
        next(tab)
    assistant.pause.set()
    assert [list(tab)[-1][0] for tab in tabs] == [turn_messages(one.turns), turn_messages(other.turns)]
    assert [turn.question for turn in (*one.turns, *other.turns)] == ["One?", "Other?"]


def test_stop_keeps_what_there_is(panel, conversation, assistant):
    assistant.pause.clear()
    begin(panel, conversation.conversation_id, "Where?")
    following = follow(panel, conversation)
    assert any(messages[-2]["content"] == "High " for messages, *_ in following)
    panel._stop(conversation.conversation_id)
    messages = list(following)[-1][0]
    assert conversation.turns[0].answer == "High "
    assert "Stopped." in messages[-1]["content"]["value"]


@pytest.mark.parametrize("reason", ["cancelled", "stop"])
def test_an_answer_without_a_word_is_not_kept(panel, conversation, assistant, monkeypatch, reason):
    ask(panel, conversation, "First?")
    warnings = []
    monkeypatch.setattr("ui.chat.chat_panel.warn", warnings.append)
    monkeypatch.setattr(assistant, "_answer", lambda *_: iter([Finished(answer_report("", reason))]))
    ask(panel, conversation, "Where?")
    running = RunningAnswer("Where?", "1", lambda _: iter([Finished(answer_report("", reason))]))
    running.start()
    monkeypatch.setattr(assistant, "running_answer", lambda _: running)
    messages, *_, unanswered = shown(panel, conversation)
    assert messages == [*turn_messages(conversation.turns), *unanswered_messages("Where?", False)]
    assert 'question="Where?"' in unanswered
    assert len(warnings) == (0 if reason == "cancelled" else 1)


def test_a_retry_begins_a_branch_and_the_way_leads_back(panel, conversation, assistant):
    for question in ("First?", "Second?"):
        ask(panel, conversation, question)
    first = conversation.turns[0]
    panel._ask_edited(REQUEST, SimpleNamespace(turn=0, question=""), conversation.conversation_id, *OPTIONS)
    wait_until_idle(conversation)
    assert [question for question, _ in assistant.asked] == ["First?", "Second?", "First?"]
    (turn,) = conversation.turns
    assert turn.siblings == (first.turn_id, turn.turn_id)
    panel._select_turn(SimpleNamespace(turn_id=first.turn_id), conversation.conversation_id)
    assert [turn.question for turn in conversation.turns] == ["First?", "Second?"]
    with pytest.raises(gr.Error, match="no such turn"):
        panel._select_turn(SimpleNamespace(turn_id="x"), conversation.conversation_id)


def test_an_edited_question_begins_a_branch_beside_its_turn(panel, conversation, assistant):
    for question in ("First?", "Second?", "Third?"):
        ask(panel, conversation, question)
    event = SimpleNamespace(turn=1, question=" Other? ")
    panel._ask_edited(REQUEST, event, conversation.conversation_id, *OPTIONS)
    wait_until_idle(conversation)
    assert [turn.question for turn in conversation.turns] == ["First?", "Other?"]
    assert len(conversation.turns[1].siblings) == 2


def test_settings_reach_the_answer(panel, conversation, assistant):
    options = ("dense", 2048.0, 64.0, 0.7, 0.9, "Answer in verse.")
    begin(panel, conversation.conversation_id, "Where?", options)
    _, options = assistant.asked[0]
    assert (options.attention, options.token_budget, options.max_new_tokens) == ("dense", 2048, 64)
    assert (options.temperature, options.top_p, options.system_prompt) == (0.7, 0.9, "Answer in verse.")


@pytest.mark.parametrize("turn", [-1, 1, 7, "x", None])
def test_an_edit_of_a_turn_that_is_gone_changes_nothing(panel, conversation, assistant, turn):
    ask(panel, conversation, "First?")
    panel._ask_edited(REQUEST, SimpleNamespace(turn=turn, question="Other?"), conversation.conversation_id, *OPTIONS)
    assert [question for question, _ in assistant.asked] == ["First?"]


def test_an_answer_that_was_cut_goes_on_as_the_same_turn(panel, conversation, assistant):
    assistant.finish_reason = "length"
    ask(panel, conversation, "Where?")
    (turn,) = conversation.turns
    assistant.pause.clear()
    event = SimpleNamespace(turn_id=turn.turn_id)
    panel._continue(REQUEST, event, conversation.conversation_id, *OPTIONS)
    following = follow(panel, conversation)
    # What there is stays in sight until more comes.
    assert next(following)[0][-2]["content"].startswith(turn.answer)
    assistant.pause.set()
    messages = list(following)[-1][0]
    assert messages == turn_messages(conversation.turns)
    assert conversation.turns[0].answer == 2 * turn.answer and conversation.turns[0].turn_id == turn.turn_id


def test_a_chat_begins_with_questions_of_its_document(panel, conversation, assistant, tmp_path):
    assert "What do you want to read?" in shown(panel, conversation)[0][0]["content"]["value"]
    path = tmp_path / "prince.txt"
    path.write_text("The Selfish Giant\n" + "It was the garden of the giant, and the children went there to play. " * 3)
    assistant.add_document(conversation, path)
    value = shown(panel, conversation)[0][0]["content"]["value"]
    assert "data-ask>What is “The Selfish Giant” about?<" in value
    begin(panel, conversation.conversation_id, "Why?")
    wait_until_idle(conversation)
    assert assistant.asked[-1][0] == "Why?"
