"""Answers that were cut and go on: the same words as one long answer, kept as the same turn."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from app.chat.answers.answer import AnswerOptions, Finished, TokenEvent
from app.errors import UserFacingError

CUT = AnswerOptions(token_budget=64, max_new_tokens=8)
QUESTION = "Who kept the light?"


def asked(assistant, conversation, options=CUT, question=QUESTION):
    return list(assistant.ask(conversation, question, options).follow())[-1].report


def went_on(assistant, conversation, options=CUT):
    events = list(assistant.continue_answer(conversation, conversation.turns[-1].turn_id, options).follow())
    assert isinstance(events[-1], Finished)
    return events, events[-1].report


def with_book(assistant, path):
    conversation = assistant.open_conversation(continue_last=False)
    entry = assistant.add_document(conversation, path)
    while assistant.reading(entry.document_id, conversation).stage not in ("read", "passages"):
        time.sleep(0.01)
    return conversation


@pytest.fixture
def long_book(tmp_path):
    """Longer than the budget, so that Quest leaves most of it out."""
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join(f"On day {day} the boats of harbour {day} came home." for day in range(22)))
    return path


@pytest.mark.parametrize("attention", ["quest", "dense", "exact"])
def test_an_answer_in_pieces_is_the_one_that_a_greater_limit_gives(assistant, long_book, attention):
    options = replace(CUT, attention=attention)
    at_once = with_book(assistant, long_book)
    whole = asked(assistant, at_once, replace(options, max_new_tokens=24))
    conversation = with_book(assistant, long_book)
    asked(assistant, conversation, options)
    (cut,) = conversation.turns
    # Options of later pieces are those of the first, but for the limit.
    other = replace(options, attention="dense", system_prompt="Sing.", max_new_tokens=6)
    events, _ = went_on(assistant, conversation, other)
    first = next(event for event in events if isinstance(event, TokenEvent))
    assert first.answer.startswith(cut.answer)
    _, report = went_on(assistant, conversation, replace(other, max_new_tokens=10))
    (turn,) = conversation.turns
    assert turn.answer_token_ids == at_once.turns[0].answer_token_ids
    assert (report.answer, report.decode_tokens, report.finish_reason) == (whole.answer, 24, "length")
    assert (turn.turn_id, turn.answer, turn.report) == (cut.turn_id, whole.answer, report)
    assert (report.citations, report.unsupported) == (whole.citations, whole.unsupported)
    assert (report.attention, report.prompt_tokens) == (attention, whole.prompt_tokens)
    assert report.decode_tokens_per_s > 0
    # A later question is told the whole of it.
    asked(assistant, conversation, options, "And why?")
    with pytest.raises(UserFacingError, match="Only the last answer"):
        assistant.continue_answer(conversation, turn.turn_id, options)
    assert not conversation.busy.locked() and len(conversation.turns) == 2


def test_what_was_cut_goes_on_after_a_restart(open_assistant, long_book):
    options = replace(CUT, attention="dense")
    first = open_assistant()
    whole = asked(first, with_book(first, long_book), replace(options, max_new_tokens=20))
    conversation = with_book(first, long_book)
    asked(first, conversation, options)
    first.close()
    second = open_assistant()
    opened = second.open_conversation(conversation.conversation_id)
    # Its words are in the store while more come, and stay there whatever becomes of them.
    running = second.continue_answer(opened, opened.turns[0].turn_id, replace(options, max_new_tokens=700))
    for event in running.follow():
        if isinstance(event, TokenEvent) and len(event.answer) > len(whole.answer):
            break
    assert opened.turns == [] and running.begun
    second.close()
    third = open_assistant()
    opened = third.open_conversation(conversation.conversation_id)
    (turn,) = opened.turns
    assert turn.state == "interrupted" and turn.answer.startswith(whole.answer)
    _, report = went_on(third, opened, options)
    assert report.answer.startswith(turn.answer) and report.answer != turn.answer
    assert opened.turns[0].state == "finished"


def test_passages_of_an_answer_that_goes_on_are_those_it_was_begun_with(open_assistant, tmp_path):
    pytest.importorskip("llama_index.retrievers.bm25")
    path = tmp_path / "long.txt"
    lines = [f"On day {day} the boats of harbour {day} came home, and the bell rang." for day in range(300)]
    lines[200], lines[90] = "The lighthouse keeper had gone to Peru.", "A parrot sat on the mast of the ferry."
    path.write_text("\n\n".join(lines))
    first = open_assistant()
    conversation = with_book(first, path)
    asked(first, conversation, question="Where had the lighthouse keeper gone?")
    cut = asked(first, conversation, question="Where was the parrot?")
    first.close()
    second = open_assistant()
    opened = second.open_conversation(conversation.conversation_id)
    _, report = went_on(second, opened)
    assert report.answer.startswith(cut.answer) and report.decode_tokens == 16
    assert (report.passages, report.prompt_tokens) == (cut.passages, cut.prompt_tokens)


def test_an_answer_that_cannot_go_on_says_why_and_stays_as_it_is(open_assistant, long_book, monkeypatch):
    assistant = open_assistant()
    conversation = with_book(assistant, long_book)
    full = asked(assistant, conversation, replace(CUT, max_new_tokens=700, stop=()))
    if full.finish_reason == "length":
        _, full = went_on(assistant, conversation, replace(CUT, max_new_tokens=2000))
    before = list(conversation.turns)
    assert full.finish_reason == "context"
    running = assistant.continue_answer(conversation, before[0].turn_id, CUT)
    with pytest.raises(UserFacingError, match="filled the model's window of 1,024 tokens"):
        list(running.follow())
    assert conversation.turns == before
    assert assistant._stored.load(conversation.conversation_id).turns == before
    conversation.turns[0] = replace(before[0], report=replace(full, finish_reason="stop"))
    with pytest.raises(UserFacingError, match="is complete"):
        assistant.continue_answer(conversation, before[0].turn_id, CUT)
    conversation.turns[0] = replace(before[0], report=replace(full, finish_reason="length"))
    assistant.remove_document(conversation, conversation.document_ids[0])
    with pytest.raises(UserFacingError, match="not in this chat any more"):
        list(assistant.continue_answer(conversation, before[0].turn_id, CUT).follow())
