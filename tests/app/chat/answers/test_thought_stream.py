"""A thought before an answer: told apart, counted apart, ended at its limit, and not told to later questions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from app.ask import run_ask
from app.chat.answers import thought_stream
from app.chat.answers.answer import AnswerOptions, Finished, TokenEvent
from app.chat.answers.thought_stream import ThoughtStream, thinking_limit
from app.chat.answers.told_turns import told_turns
from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.race.race import RaceFinished
from app.settings import AppSettings
from quest_core.session import Session
from quest_core.session_events import DecodeStep
from tests.app.conftest import CHATML, write_tokenizer
from tests.app.test_ask import arguments

OPENS_THOUGHT = CHATML.replace("<|im_start|>assistant\n'", "<|im_start|>assistant\n<think>\n'")
OPTIONS = AnswerOptions(token_budget=64, max_new_tokens=16)


def stream(tokenizer, text, opened=False, stop=(), max_tokens=100, limit=100):
    """The stream after all tokens of `text`, tags as the tokenizer has them, and its deltas."""
    token_ids = tokenizer.encode_control(text)
    answer = ThoughtStream(tokenizer.decode, stop, max_tokens, limit, opened)
    deltas = [answer.push(token_id) for token_id in token_ids]
    own = token_ids[answer.answer_start :]
    return answer, [*deltas, answer.finish()], own


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("answer", ["The keeper's daughter.", "\n\nThe <b>daughter</b>, </think> again"])
def test_a_thought_is_told_from_the_answer(chat_tokenizer, opened, answer):
    text = ("" if opened else "<think>") + f"\nWho? Maybe < the daughter.\n</think>{answer}"
    parts, deltas, own = stream(chat_tokenizer, text, opened)
    assert parts.thought == "Who? Maybe < the daughter."
    assert parts.text == answer.lstrip() == "".join(deltas) == chat_tokenizer.decode(own)
    assert parts.kept_tokens == len(chat_tokenizer.encode_control(text))
    assert parts.thinking_tokens == parts.answer_start == parts.kept_tokens - len(own)


@pytest.mark.parametrize("text", ["<", "<thing>", "\n <thinker>", "The <think> tag", "", " ", "漢"])
def test_what_only_looks_like_a_thought_is_an_answer(chat_tokenizer, text):
    # `<think>` in the middle is a token of its own here, and still part of what is said.
    parts, deltas, own = stream(chat_tokenizer, text)
    assert (parts.text, parts.thought, parts.thinking_tokens) == (text, "", 0)
    assert "".join(deltas) == text and parts.kept_tokens == len(own)


def test_a_thought_without_an_end_is_no_answer(chat_tokenizer):
    parts, _, own = stream(chat_tokenizer, "<think>Perhaps </thin")
    assert (parts.text, parts.thought, own) == ("", "Perhaps </thin", ())


def test_limits_count_the_thought_and_the_answer_apart(chat_tokenizer):
    parts, _, _ = stream(chat_tokenizer, "a b c d", opened=True, max_tokens=2, limit=3)
    assert parts.thought_is_full and not parts.is_full
    parts.cut_thought(4)
    assert not parts.thought_is_full and parts.text == ""
    for token_id in chat_tokenizer.encode("no, yes").token_ids[:2]:
        assert not parts.is_full
        parts.push(token_id)
    assert parts.is_full and parts.kept_tokens == parts.answer_start + 2
    plain, _, _ = stream(chat_tokenizer, "<", max_tokens=1)
    assert plain.is_full


def test_stop_strings_are_the_answers(chat_tokenizer):
    parts, _, own = stream(chat_tokenizer, "<think>END</think>yes END no", stop=["END"])
    assert (parts.thought, parts.text, parts.stopped) == ("END", "yes ", True)
    assert chat_tokenizer.decode(own[: parts.kept_tokens - parts.answer_start]) == "yes "


def test_a_small_window_leaves_a_thought_a_quarter():
    assert thinking_limit(1024) == 256
    assert thinking_limit(1 << 20) == thought_stream.MAX_THINKING_TOKENS


@pytest.fixture(scope="module")
def thinking_folder(tiny_model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("thinking") / "model"
    shutil.copytree(tiny_model_folder, folder)
    return write_tokenizer(folder, OPENS_THOUGHT)


@pytest.fixture(scope="module")
def thinking_settings(thinking_folder, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    return AppSettings(data_dir=data_dir, model=str(thinking_folder), device="cpu", dtype="float32", token_budget=64)


@pytest.fixture(scope="module")
def thinking_assistant(thinking_settings):
    assistant = Assistant(thinking_settings)
    assistant.wait_until_ready()
    yield assistant
    assistant.close()


@pytest.fixture
def asked(thinking_assistant, book_path):
    conversation = thinking_assistant.new_conversation()
    thinking_assistant.add_document(conversation, book_path)
    return conversation


@pytest.fixture
def scripted_decode(thinking_assistant, monkeypatch):
    """Makes the model say a text, with its tags, whatever it was asked."""

    def script(text: str) -> None:
        token_ids = thinking_assistant._loader.model.tokenizer.encode_control(text)

        def decode(session, quest, sampling, cancellation, **options):
            for step, token_id in enumerate(token_ids):
                yield DecodeStep(step, token_id, 0.01, len(session.tokens), 1, 1, None, None)
            yield DecodeStep(len(token_ids), 2, 0.01, len(session.tokens), 1, 1, None, "stop")

        monkeypatch.setattr(Session, "decode", decode)

    return script


def test_a_model_that_thinks_reports_it_apart(thinking_assistant, asked, scripted_decode):
    scripted_decode("The keeper left.\n</think>\n\nHis daughter.")
    events = list(thinking_assistant.answer(asked, "Who kept the light?", OPTIONS))
    report = events[-1].report
    assert (report.answer, report.thinking, report.finish_reason) == ("His daughter.", "The keeper left.", "stop")
    tokenizer = thinking_assistant._loader.model.tokenizer
    answer_ids = tokenizer.encode("His daughter.").token_ids
    assert asked.turns[0].answer_token_ids == answer_ids and report.decode_tokens == len(answer_ids)
    assert report.thinking_tokens > 5
    assert set(report.to_json()) >= {"thinking", "thinking_tokens"}
    tokens = [event for event in events if isinstance(event, TokenEvent)]
    # A follower may miss tokens, but no text.
    assert tokens[-1].thinking == report.thinking and tokens[-1].answer == report.answer
    assert "".join(token.text_delta for token in tokens) == report.answer
    # What was read is still told of the tokens that are in the cache.
    assert len(asked.generated) == report.thinking_tokens + report.decode_tokens
    model = thinking_assistant._loader.model
    turns, documents = told_turns(model, asked), thinking_assistant.documents(asked)
    plan = model.planner.plan(documents, turns, "And why?", OPTIONS.system_prompt, OPTIONS.max_new_tokens)
    prompt = model.tokenizer.decode(plan.token_ids, keep_control=True)
    assert "<|im_start|>assistant\nHis daughter.<|im_end|>\n" in prompt
    assert prompt.endswith("<|im_start|>assistant\n<think>\n") and prompt.count("<think>") == 1


def test_an_answer_stopped_while_thinking_is_not_kept(thinking_assistant, asked):
    for event in thinking_assistant.answer(asked, "Who?", OPTIONS):
        if isinstance(event, TokenEvent) and event.step >= 3:
            thinking_assistant.cancel(asked)
        last = event
    assert isinstance(last, Finished) and last.report.is_empty and last.report.thinking
    assert (asked.turns, asked.unanswered) == ([], "Who?")


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 3}])
def test_a_thought_that_does_not_end_is_closed_at_its_limit(thinking_assistant, asked, monkeypatch, sampling):
    """The random model never closes one; it goes on after the tag as if it had written it."""
    monkeypatch.setattr(thought_stream, "MAX_THINKING_TOKENS", 20)
    options = replace(OPTIONS, **sampling)
    events = list(thinking_assistant.answer(asked, "Who?", options))
    report, closing = events[-1].report, thinking_assistant._loader.model.tokenizer.end_of_thought
    assert report.finish_reason == "length"
    # Blanks after the tag are no answer.
    assert report.thinking_tokens >= 20 + len(closing)
    assert report.thinking_tokens + report.decode_tokens == 20 + len(closing) + 16
    steps = [event.step for event in events if isinstance(event, TokenEvent)]
    assert steps == sorted(set(steps)) and steps[-1] == report.thinking_tokens - len(closing) + report.decode_tokens - 1
    generated = asked.generated
    assert asked.session.tokens[-len(generated) + 1 :] == generated[:-1]
    assert generated[20 : 20 + len(closing)] == list(closing)


def test_room_for_a_thought_is_kept_free(thinking_assistant, asked):
    usage = thinking_assistant.context_usage(asked, replace(OPTIONS, max_new_tokens=700))
    assert usage.mode == "passages"
    with pytest.raises(UserFacingError, match="window"):
        list(thinking_assistant.answer(asked, "Who?", replace(OPTIONS, max_new_tokens=760)))


def test_a_race_shows_all_that_is_drawn(thinking_assistant, asked, monkeypatch):
    monkeypatch.setattr(thought_stream, "MAX_THINKING_TOKENS", 20)
    finished = list(thinking_assistant.race(asked, "Who?", OPTIONS))[-1]
    assert isinstance(finished, RaceFinished) and finished.dense.decode_tokens > 16


def test_ask_prints_the_answer_alone(thinking_settings, book_path, capsys, monkeypatch):
    monkeypatch.setattr(thought_stream, "MAX_THINKING_TOKENS", 20)
    run_ask(thinking_settings, arguments([book_path], json=True))
    report = json.loads(capsys.readouterr().out)
    assert report["thinking"] and report["thinking_tokens"] >= 20
    run_ask(thinking_settings, arguments([book_path]))
    shown = capsys.readouterr()
    assert shown.out == report["answer"] + "\n"
    assert "Thought: " in shown.err
