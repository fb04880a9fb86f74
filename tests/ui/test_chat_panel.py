"""The chat's handlers, called as Gradio would, on a scripted assistant."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from app.chat.answer import ModelLoading, PageReference, PassagesReport, PrefillEvent, Queued, TokenEvent
from app.errors import UserFacingError
from ui.chat_panel import (
    ChatPanel,
    paced_contents,
    prefill_content,
    question_content,
    report_content,
    turn_messages,
)
from ui.documents_panel import DocumentsPanel
from ui.settings_panel import CUSTOM, SettingsPanel, preset_name

OPTIONS = ("quest", 1024, 256, 0.0, 1.0, "Be brief.")


@pytest.fixture
def panel(assistant, settings, monkeypatch) -> ChatPanel:
    # Show every token, however fast they come.
    monkeypatch.setattr("ui.chat_panel._UPDATE_S", 0.0)
    with gr.Blocks(analytics_enabled=False):
        return ChatPanel(assistant, SettingsPanel(settings), DocumentsPanel(assistant))


@pytest.fixture
def conversation(assistant):
    return assistant.open_conversation()


def ask(panel, conversation, question):
    """All that one question makes the page show: (messages, question box, meter) each."""
    return list(panel._ask(conversation.conversation_id, question, *OPTIONS))


def question_box(updates) -> dict:
    """The question box after all updates."""
    box = {}
    for _, update, _ in updates:
        box |= update
    return box


def test_an_answer_streams_and_stays_as_a_turn(panel, conversation, assistant):
    updates = ask(panel, conversation, "  Where does the prince stand? ")
    first, last = updates[0][0], updates[-1][0]
    assert first[-2] == {"role": "user", "content": question_content("Where does the prince stand?")}
    assert "answer-progress" in updates[1][0][-1]["content"]["value"]
    assert any(messages[-1]["content"] == "High " for messages, _, _ in updates[:-1])
    assert last == turn_messages(conversation.turns)
    assert "High above the city" in [message["content"] for message in last]
    assert "1,204" not in updates[0][2] and "Context window" in updates[-1][2]


def test_the_question_box_empties_at_once_and_offers_stop_meanwhile(panel, conversation):
    updates = ask(panel, conversation, "Where?")
    assert (updates[0][1]["value"], updates[0][1]["submit_btn"], updates[0][1]["stop_btn"]) == ("", False, "Stop")
    box = question_box(updates)
    assert (box["submit_btn"], box["stop_btn"]) == ("Ask", False)


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
    updates = []
    with pytest.raises(gr.Error, match=sentence):
        for update in panel._ask(conversation.conversation_id, "Where?", *OPTIONS):
            updates.append(update)
    assert question_box(updates) | {"value": "Where?", "submit_btn": "Ask"} == question_box(updates)
    assert updates[-1][0] == []
    assistant.failure = None
    assert ask(panel, conversation, "Where?")[-1][0] == turn_messages(conversation.turns)


@pytest.mark.parametrize("question", ["   ", None])
def test_an_empty_question_asks_nothing(panel, conversation, assistant, question):
    list(panel._ask(conversation.conversation_id, question, *OPTIONS))
    assert assistant.asked == []


@pytest.mark.parametrize("place", range(1, 5))
@pytest.mark.parametrize("value", [None, "many", float("nan"), float("inf"), [256], True])
def test_a_setting_that_is_no_number_is_named(panel, conversation, assistant, place, value):
    options = list(OPTIONS)
    options[place] = value
    updates = []
    with pytest.raises(gr.Error, match="must be a number"):
        for update in panel._ask(conversation.conversation_id, "Where?", *options):
            updates.append(update)
    assert question_box(updates)["value"] == "Where?" and assistant.asked == []


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
    updates = ask(panel, conversation, "Where?")
    assert question_box(updates)["submit_btn"] == "Ask"
    assert "ZeroDivisionError" in updates[-1][2]


def test_a_closed_conversation_is_told(panel):
    with pytest.raises(gr.Error, match="closed"):
        list(panel._ask("gone", "Where?", *OPTIONS))


def test_a_second_question_waits_for_the_end_of_the_first(panel, conversation):
    running = panel._ask(conversation.conversation_id, "First?", *OPTIONS)
    next(running)
    with pytest.raises(gr.Error, match="still being written"):
        ask(panel, conversation, "Second?")
    running.close()
    assert ask(panel, conversation, "Second?")[-1][0][0]["content"] == question_content("Second?", 0)


def test_two_conversations_never_mix(panel, assistant):
    one, other = assistant.open_conversation(), assistant.open_conversation()
    running = panel._ask(one.conversation_id, "One?", *OPTIONS)
    next(running)
    ask(panel, other, "Other?")
    shown = list(running)[-1][0]
    assert [turn.question for turn in one.turns] == ["One?"]
    assert [turn.question for turn in other.turns] == ["Other?"]
    assert shown == turn_messages(one.turns)


def test_stop_keeps_what_there_is(panel, conversation, assistant):
    assistant.pause.clear()
    running = panel._ask(conversation.conversation_id, "Where?", *OPTIONS)
    assert any(messages[-1]["content"] == "High " for messages, _, _ in running)
    panel._stop(conversation.conversation_id)
    last = list(running)[-1][0]
    assert conversation.turns[0].answer == "High "
    assert "stopped" in last[-1]["content"]["value"]


@pytest.mark.parametrize("cancelled", [True, False])
def test_an_answer_without_a_word_is_not_kept_and_its_question_comes_back(
    panel, conversation, assistant, monkeypatch, cancelled
):
    ask(panel, conversation, "First?")
    turns, warnings = list(conversation.turns), []
    monkeypatch.setattr("ui.chat_panel.warn", warnings.append)

    def say_nothing(conversation, question, options):
        yield PrefillEvent(0, 100, 200, 0.5, 0.5)
        if cancelled:
            assistant.cancel(conversation)

    monkeypatch.setattr(assistant, "answer", say_nothing)
    updates = ask(panel, conversation, "Where?")
    assert question_box(updates) | {"value": "Where?", "submit_btn": "Ask"} == question_box(updates)
    assert updates[-1][0] == turn_messages(turns)
    assert len(warnings) == (0 if cancelled else 1)


def test_regenerate_asks_the_same_question_from_its_own_place(panel, conversation, assistant):
    for question in ("First?", "Second?"):
        ask(panel, conversation, question)
    messages = turn_messages(conversation.turns)
    index = messages.index({"role": "user", "content": question_content("First?", 0)})
    last = list(panel._regenerate(SimpleNamespace(index=index), conversation.conversation_id, *OPTIONS))[-1]
    assert [question for question, _ in assistant.asked] == ["First?", "Second?", "First?"]
    assert last[0] == turn_messages(conversation.turns)
    assert len(conversation.turns) == 1


def test_an_edited_question_replaces_its_turn_and_all_after_it(panel, conversation, assistant):
    for question in ("First?", "Second?", "Third?"):
        ask(panel, conversation, question)
    event = SimpleNamespace(turn=1, question=" Other? ")
    list(panel._ask_edited(event, conversation.conversation_id, *OPTIONS))
    assert [turn.question for turn in conversation.turns] == ["First?", "Other?"]


def test_clear_forgets_the_turns_and_keeps_the_documents(panel, conversation, assistant, tmp_path):
    assistant.add_document(conversation, tmp_path / "book.txt")
    ask(panel, conversation, "Where?")
    messages, _, _, offer = panel._clear(conversation.conversation_id)
    assert (messages, conversation.turns, len(conversation.documents)) == ([], [], 1)
    assert "1 answer cleared" in offer and "Undo" in offer


def test_what_was_cleared_comes_back(panel, conversation):
    ask(panel, conversation, "Where?")
    before = turn_messages(conversation.turns)
    panel._clear(conversation.conversation_id)
    messages, _, _, offer = panel._undo_clear(conversation.conversation_id)
    assert (messages, offer) == (before, "")


def test_nothing_is_offered_where_nothing_was_cleared(panel, conversation):
    assert panel._clear(conversation.conversation_id)[3] == ""


def test_settings_reach_the_answer(panel, conversation, assistant):
    list(panel._ask(conversation.conversation_id, "Where?", "dense", 2048.0, 64.0, 0.7, 0.9, "Answer in verse."))
    _, options = assistant.asked[0]
    assert (options.attention, options.token_budget, options.max_new_tokens) == ("dense", 2048, 64)
    assert (options.temperature, options.top_p, options.system_prompt) == (0.7, 0.9, "Answer in verse.")


def test_tokens_that_come_faster_than_the_page_draws_are_skipped(monkeypatch):
    monkeypatch.setattr("ui.chat_panel._UPDATE_S", 60.0)
    tokens = [TokenEvent("x", "x" * (step + 1), step, 0.001, 1000.0, 1000.0) for step in range(200)]
    shown = list(paced_contents(iter([ModelLoading("Reading"), Queued(2), PrefillEvent(0, 1, 2, 0.1, None), *tokens])))
    assert "Waiting for the model: Reading" in shown[0]["value"]
    assert "2 questions" in shown[1]["value"]
    assert "1 of 2 tokens" in shown[2]["value"]
    assert len(shown[3:]) <= 1


def test_a_thought_is_shown_while_it_lasts_and_folded_up_afterwards(report):
    thinking = TokenEvent("", "", 900, 0.05, 20.0, 20.0, "old " * 500 + "<b>new", 901)
    (content,) = paced_contents(iter([thinking]))
    assert "Thinking: 901 tokens" in content["value"] and "&lt;b&gt;new" in content["value"]
    assert len(content["value"]) < 1000
    (answer,) = paced_contents(iter([replace(thinking, answer="High")]))
    assert answer == "High"
    assert "<details" not in report_content(report)["value"]
    value = report_content(replace(report, thinking="Is it <high>?", thinking_tokens=12))["value"]
    assert "<summary>Thought: 12 tokens</summary>Is it &lt;high&gt;?</details>" in value


def test_prefill_content_shows_the_time_left():
    value = prefill_content(PrefillEvent(0, 4096, 6310, 5.0, 3.0))["value"]
    assert "4,096 of 6,310 tokens, 3 s left" in value
    assert 'value="4096" max="6310"' in value
    assert "outgrown" not in value


def test_prefill_content_says_why_a_conversation_is_read_again():
    value = prefill_content(PrefillEvent(0, 512, 9000, 5.0, 63.0, 2.0, True))["value"]
    assert "1 min 3 s left (the conversation has outgrown its window" in value


def test_the_line_below_an_answer(report):
    value = report_content(report)["value"]
    for part in ("18.6 tokens/s", "0.31 s", "6,310 of 6,400"):
        assert part in value
    # How often pages were read says too little of where the answer came from to be shown.
    assert report.pages_read and "31 %" not in value and "Read" not in value


def test_the_lines_below_an_answer_tell_of_passages(report):
    pages = (PageReference("book.pdf", "3"), PageReference("book.pdf", "iv"))
    read = replace(report, passages=PassagesReport(pages, 4, ("prince",), ("spider",)))
    value = report_content(read)["value"]
    assert "The text is longer than the window: 6,310 of 6,310 tokens were in context, " in value
    assert "in context, 4 passages from pages 3 and iv." in value
    assert "Of the question&#x27;s words, the document has prince, but not spider." in value
    two = (PageReference("a.pdf", "3"), PageReference("b.pdf", "1"))
    value = report_content(replace(report, passages=PassagesReport(two, 2, (), ("spinne",))))["value"]
    assert "from a.pdf (page 3), b.pdf (page 1)." in value
    assert "None of the question&#x27;s words occur in the documents, so their beginnings were read." in value
    value = report_content(replace(report, passages=PassagesReport(pages, 2, (), ())))["value"]
    assert "The question has no words to search the document for" in value


def test_an_answer_stopped_before_its_first_token_has_a_line_too(report):
    nothing = replace(report, time_to_first_token_s=None, decode_tokens_per_s=0.0, pages_read=())
    value = report_content(replace(nothing, finish_reason="cancelled"))["value"]
    assert "stopped" in value
    assert "None" not in value and "0.0" not in value


def test_the_line_below_an_answer_tells_of_stretched_positions(report):
    assert "stretched" not in report_content(report)["value"]
    assert "positions stretched 2 times" in report_content(replace(report, stretch_factor=2.0))["value"]


def test_file_names_cannot_bring_markup_into_the_line(report):
    pages = (PageReference("<img src=x>", "<img src=y>"), PageReference("b.pdf", "1"))
    passages = PassagesReport(pages, 2, ("<img src=z>",), ())
    assert "<img" not in report_content(replace(report, passages=passages))["value"]


def test_questions_are_shown_as_text(conversation):
    assert "<quest-question turn=\"2\">&lt;b&gt;?</quest-question>" in question_content("<b>?", 2)["value"]


@pytest.mark.parametrize("turn", [-1, 1, 7, "x", None])
def test_an_edit_of_a_turn_that_is_gone_changes_nothing(panel, conversation, turn):
    ask(panel, conversation, "First?")
    event = SimpleNamespace(turn=turn, question="Other?")
    (update,) = panel._ask_edited(event, conversation.conversation_id, *OPTIONS)
    assert update[0] == turn_messages(conversation.turns)
    assert [turn.question for turn in conversation.turns] == ["First?"]
