"""Completions over a small model: sessions kept and shared, the window, cancelling, a model that goes, thoughts."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from app.chat.answers.answer import AnswerOptions
from app.chat.completions import ChatMessage, PromptTooLong
from app.errors import UserFacingError
from app.models.model_loader import LoadedModel

GREEDY = AnswerOptions(max_new_tokens=6, attention="dense")
LONG = AnswerOptions(max_new_tokens=900, temperature=2)


@pytest.fixture
def never_ends(monkeypatch):
    """Of a model that draws at random, one token in some hundred would be one that ends the answer."""
    monkeypatch.setattr(LoadedModel, "stop_token_ids", ())


def ask(question: str, *earlier: str) -> list[ChatMessage]:
    contents = [*earlier, question]
    return [ChatMessage("assistant" if index % 2 else "user", one) for index, one in enumerate(contents)]


def finished(completion):
    for _ in completion:
        pass
    return completion.report


def test_conversations_by_turns_each_find_what_they_had(assistant):
    begin = assistant.completions.begin
    first, second = "The harbour lay still. " * 6, "Nobody knew why the keeper left. " * 6
    finished(begin(ask(first), GREEDY))
    finished(begin(ask(second), GREEDY))
    for text in (first, second, first):
        report = finished(begin(ask("And then?", text, "Yes."), GREEDY))
        assert report.cached_tokens >= len(assistant.loaded_model().tokenizer.encode(text).token_ids)


def test_no_more_than_four_sessions_are_kept(assistant):
    for number in range(7):
        finished(assistant.completions.begin(f"{number} boats came home one after the other", GREEDY))
    assert len(assistant.completions._sessions[1]._sessions) == 4


def test_what_was_reused_changes_no_answer(assistant):
    begin = assistant.completions.begin
    fresh = finished(begin(ask("Who was it?", "The keeper. " * 9, "Why?"), GREEDY))
    again = finished(begin(ask("Who was it?", "The keeper. " * 9, "Why?"), GREEDY))
    assert fresh.text == again.text and again.cached_tokens > fresh.cached_tokens


def test_the_window_is_never_passed(assistant):
    begin = assistant.completions.begin
    with pytest.raises(PromptTooLong, match="1,024"):
        begin("light " * 2000, GREEDY)
    with pytest.raises(PromptTooLong, match="fewer"):
        begin("light", AnswerOptions(max_new_tokens=1024))
    report = finished(begin("light " * 300, GREEDY, fills_window=True))
    assert report.prompt_tokens + report.completion_tokens <= 1024


@pytest.mark.parametrize("options", [{"temperature": -1}, {"token_budget": 1, "attention": "quest"}])
def test_options_out_of_range(assistant, options):
    with pytest.raises(UserFacingError):
        assistant.completions.begin("light", AnswerOptions(**options))
    with pytest.raises(UserFacingError, match="nothing"):
        assistant.completions.begin("", GREEDY)


def test_cancelling_ends_it(assistant, never_ends):
    completion = assistant.completions.begin("light", LONG)
    for count, _ in enumerate(completion):
        if count == 3:
            completion.cancel()
    assert completion.report.finish_reason == "cancelled" and completion.report.completion_tokens < 900


def test_one_that_waits_can_be_cancelled(assistant):
    release = threading.Event()

    def work(cancellation):
        release.wait(30)
        yield

    assistant.loaded_model().engine.submit(work)
    completion = assistant.completions.begin("light", GREEDY)
    assert completion.jobs_ahead == 1
    completion.cancel()
    assert list(completion) == [] and completion.report.finish_reason == "cancelled"
    release.set()


def test_a_model_that_goes_stops_its_completions(open_assistant, never_ends):
    assistant = open_assistant(keep=False)
    model = assistant.loaded_model()
    completion = assistant.completions.begin("light", LONG)
    handover = assistant.models._switch._handover
    tokens = iter(completion)
    next(tokens)
    assert handover.users(model) == [completion]
    assert handover.stop(model) and handover.users(model) == []
    with pytest.raises(UserFacingError, match="model is being changed"):
        list(tokens)
    handover.begin_anew()
    assert finished(assistant.completions.begin("light", GREEDY)).completion_tokens


def test_closing_ends_it_with_a_sentence(open_assistant, never_ends):
    assistant = open_assistant(keep=False)
    completion = assistant.completions.begin("light", LONG)
    tokens = iter(completion)
    next(tokens)
    assistant.close()
    with pytest.raises(UserFacingError, match="closing"):
        list(tokens)


def test_a_thought_is_told_apart(assistant, monkeypatch):
    tokenizer = assistant.loaded_model().tokenizer
    template = tokenizer.messages
    opened = SimpleNamespace(prompt=lambda messages: replace(template.prompt(messages), opens_thought=True))
    monkeypatch.setattr(tokenizer, "messages", opened)
    completion = assistant.completions.begin(ask("Who?"), GREEDY)
    thinking = "".join(token.thinking_delta for token in completion)
    report = completion.report
    assert report.text == "" and report.thinking == thinking != ""
    assert report.thinking_tokens == report.completion_tokens == 6
