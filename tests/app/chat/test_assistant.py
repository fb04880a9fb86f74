"""Conversations over a tiny random model: answers, reuse, cancelling, queueing, and that they never mix."""

from __future__ import annotations

import base64
import shutil
import threading
import time
from dataclasses import replace

import pytest

from app.chat.answers.answer import (
    AnswerOptions,
    Finished,
    ModelLoading,
    PassagesFound,
    PrefillEvent,
    Queued,
    TokenEvent,
)
from app.chat.answers.reads.page_heat import SelectionLevels
from app.chat.answers.reads.reading_words import reading_words
from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.race.race import RaceFinished, RacePlanned, RaceToken
from app.settings import AppSettings
from quest_core.config import EngineConfig
from quest_core.decode.sampling import NotANumberError

OPTIONS = AnswerOptions(attention="quest", token_budget=64, max_new_tokens=24)


@pytest.fixture
def conversation(assistant):
    conversation = assistant.new_conversation()
    yield conversation
    assistant.delete_conversation(conversation.conversation_id)


@pytest.fixture
def reading(assistant, conversation, book_path):
    """A conversation with a document that has been read."""
    add(assistant, conversation, book_path)
    return conversation


def add(assistant, conversation, path):
    """Add a document and wait until the model has read it; returns its entry."""
    entry = assistant.add_document(conversation, path)
    wait_until(lambda: assistant.reading(entry.document_id, conversation).stage in ("read", "passages"))
    return assistant.library.entry(entry.document_id)


def wait_until(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def answer(assistant, conversation, question="Who kept the light?", options=OPTIONS):
    events = list(assistant.answer(conversation, question, options))
    assert isinstance(events[-1], Finished)
    return events, events[-1].report


@pytest.fixture
def blocked_engine(assistant):
    """Occupies the engine until the returned function is called."""
    release = threading.Event()

    def work(cancellation):
        release.wait(60)
        yield None

    assistant._loader.model.engine.submit(work)
    yield release.set
    release.set()


def test_an_answer_streams_and_ends_with_its_report(assistant, reading):
    events, report = answer(assistant, reading)
    prefill_events = [event for event in events if isinstance(event, PrefillEvent)]
    prefills = [event.progress for event in prefill_events]
    tokens = [event for event in events if isinstance(event, TokenEvent)]
    assert prefills[0].done_tokens < report.prompt_tokens
    assert prefills[-1].done_tokens == prefills[-1].total_tokens == report.prompt_tokens
    assert prefill_events[-1].remaining_s == 0
    assert "".join(token.text_delta for token in tokens) == report.answer == tokens[-1].answer
    steps = [token.step for token in tokens]
    assert steps == sorted(set(steps)) and steps[-1] == report.decode_tokens - 1
    assert tokens[-1].mean_tokens_per_s == report.decode_tokens_per_s
    assert (report.finish_reason, report.decode_tokens) == ("length", 24)
    assert 0 < report.prefill_s < report.time_to_first_token_s
    assert report.document.tokens == report.document.tokens_in_context > 0
    assert 0 < sum(page.share for page in report.pages_read) <= 1


def test_a_conversation_that_outgrows_the_models_own_window_is_read_again(tiny_model_folder, tmp_path):
    settings = AppSettings(
        data_dir=tmp_path, model=str(tiny_model_folder), device="cpu", dtype="float32", context_tokens=2048
    )
    assistant = Assistant(settings)
    try:
        assistant.wait_until_ready()
        status = assistant.status()
        assert "trained on 1,024 tokens" in status.note and status.warning == ""
        conversation = assistant.new_conversation()
        path = tmp_path / "long.txt"
        path.write_text("The boats came home one after the other. " * 130)
        _, first = answer(assistant, conversation)
        entry = assistant.add_document(conversation, path)
        events, second = answer(assistant, conversation)
        prefill = next(event.progress for event in events if isinstance(event, PrefillEvent))
        assert 1000 < second.prompt_tokens < 2048
        assert (first.stretch_factor, second.stretch_factor) == (1.0, 2.0)
        assert (prefill.stretch_factor, prefill.stretch_changed) == (2.0, True)
        # The race reads under the same stretch.
        events = assistant.race(conversation, "Who kept the light?", OPTIONS)
        raced = next(event.progress for event in events if isinstance(event, PrefillEvent))
        events.close()
        assert raced.stretch_factor == 2.0 and raced.reused_tokens > 0
        # The room for the answer counts: the model's own window would hold the prompt.
        assistant.remove_document(conversation, entry.document_id)
        options = replace(OPTIONS, max_new_tokens=1000, stop=["e", "a"])
        roomy = list(assistant.ask(conversation, "Who?", options, after_turn=0).follow())[-1].report
        assert roomy.prompt_tokens < 200 and roomy.stretch_factor == 2.0
    finally:
        assistant.close()


def test_report_has_exactly_the_documented_keys(assistant, reading):
    keys = set(answer(assistant, reading)[1].to_json())
    assert keys == {
        "answer", "model", "device", "attention", "token_budget", "page_size", "document", "prompt_tokens",
        "reused_tokens", "prefill_s", "time_to_first_token_s", "decode_tokens", "decode_tokens_per_s", "finish_reason",
        "attended_tokens", "read_all", "pages_read", "restored_tokens", "restored_bytes", "passages_found", "citations",
        "unsupported",
    }  # fmt: skip


def test_an_exact_answer_is_the_dense_one_and_counts_its_drafts(assistant, reading):
    dense, report = (
        list(assistant.ask(reading, "Who?", replace(OPTIONS, attention=attention), after_turn=0).follow())[-1].report
        for attention in ("dense", "exact")
    )
    assert (report.answer, report.attention) == (dense.answer, "exact")
    # The first round is a dense step, the second tries what drafts cost.
    assert 0 <= report.accepted_tokens <= report.drafted_tokens and report.drafted_tokens > 0
    told = report.to_json()
    assert (told["drafted_tokens"], told["accepted_tokens"]) == (report.drafted_tokens, report.accepted_tokens)
    assert "drafted_tokens" not in dense.to_json()


def test_a_second_question_prefills_only_what_is_new(assistant, reading):
    first = answer(assistant, reading)[1]
    second = answer(assistant, reading, "And why?")[1]
    # The last token of an answer that ran to its limit was never fed back.
    assert second.reused_tokens == first.prompt_tokens + first.decode_tokens - 1
    assert second.prompt_tokens - second.reused_tokens < 40


def test_a_reused_prompt_answers_as_a_fresh_one(assistant, reading, book_path):
    # With Quest the first answer's own keys and values would be those of what it read.
    options = replace(OPTIONS, attention="dense")
    answer(assistant, reading, options=options)
    reused = answer(assistant, reading, "And why?", options)[1]
    fresh = assistant.new_conversation()
    fresh.document_ids, fresh.turns = reading.document_ids, reading.turns[:1]
    assert answer(assistant, fresh, "And why?", options)[1].answer == reused.answer
    assert reused.reused_tokens > 0


def test_stop_strings_end_the_answer_and_stay_out_of_the_history(assistant, reading):
    whole = answer(assistant, reading)[1].answer
    stop = whole[len(whole) // 2 :][:3]
    options = replace(OPTIONS, stop=(stop,))
    report = list(assistant.ask(reading, "Who kept the light?", options, after_turn=0).follow())[-1].report
    assert report.answer == whole[: whole.index(stop)]
    assert (report.finish_reason, len(reading.turns[0].answer_token_ids)) == ("stop", report.decode_tokens)


def test_a_question_that_comes_before_the_model_hears_how_far_it_is_and_can_be_stopped(tmp_path, monkeypatch):
    assistant = Assistant(AppSettings(data_dir=tmp_path))
    # Nothing is loaded: only the steps are told.
    monkeypatch.setattr(assistant._loader, "start", lambda: None)
    conversation = assistant.new_conversation()
    events = assistant.answer(conversation, "Who?", OPTIONS)
    assert next(events) == ModelLoading("The model is not loaded yet.")
    assistant._loader.report("Reading the weights")
    assert next(events) == ModelLoading("Reading the weights")
    assistant.cancel(conversation)
    with pytest.raises(UserFacingError, match="Stopped before"):
        next(events)
    assert (conversation.turns, conversation.unanswered) == ([], "Who?")
    assistant._loader.fail("There is no such model.")
    with pytest.raises(UserFacingError, match="no such model"):
        list(assistant.race(conversation, "Who?", OPTIONS))
    assistant.close()


def test_cancel_keeps_what_there_is(assistant, reading):
    events = []
    for event in assistant.answer(reading, "Who?", replace(OPTIONS, max_new_tokens=500)):
        events.append(event)
        if isinstance(event, TokenEvent) and event.step >= 3:
            assistant.cancel(reading)
    report = events[-1].report
    assert report.finish_reason == "cancelled" and 4 <= report.decode_tokens < 500
    assert reading.turns[0].answer == report.answer
    assert answer(assistant, reading)[1].finish_reason == "length"


def test_closing_a_follower_leaves_the_answer_alone(assistant, reading):
    events = assistant.answer(reading, "Who?", OPTIONS)
    assert next(events)
    events.close()
    running = assistant.running_answer(reading)
    assert running is not None and running.question == "Who?"
    report = list(running.follow())[-1].report
    assert [turn.report for turn in reading.turns] == [report] and report.finish_reason == "length"
    assert assistant.running_answer(reading) is None and not reading.busy.locked()


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (RuntimeError("device lost"), r"RuntimeError: device lost\)\. Try again"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to."), "not enough memory"),
        (MemoryError(), "memory for KV pages"),
        (NotANumberError(float("nan")), "not a number"),
    ],
)
def test_what_fails_in_the_engine_is_told_in_a_sentence(assistant, reading, monkeypatch, caplog, failure, sentence):
    def fail(*arguments):
        raise failure

    decoder = assistant._loader.model.engine.decoder
    for stage in ("prefill", "decode"):
        with monkeypatch.context() as patch:
            patch.setattr(decoder, stage, fail)
            with pytest.raises(UserFacingError, match=sentence):
                list(assistant.answer(reading, f"Who failed in {stage}?", OPTIONS))
            with pytest.raises(UserFacingError, match=sentence):
                list(assistant.race(reading, f"Who failed in {stage} again?", OPTIONS))
        assert not reading.busy.locked()
        # What was said before it failed is kept.
        assert [turn.state for turn in reading.turns] in ([], ["failed"]), stage
    assert ("device lost" in caplog.text) == ("device lost" in str(failure))
    assert answer(assistant, reading)[1].finish_reason == "length"


def test_weights_that_overflow_are_named(tiny_model_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    # Numbers each; what is computed with them is none.
    tensors["model.norm.weight"][:] = 3e38
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assistant = Assistant(AppSettings(data_dir=tmp_path, model=str(folder), device="cpu", dtype="float32"))
    try:
        conversation = assistant.new_conversation()
        for options in (OPTIONS, replace(OPTIONS, temperature=0.7)):
            with pytest.raises(UserFacingError, match="not a number.*weights are damaged"):
                list(assistant.answer(conversation, "Who?", options))
        with pytest.raises(UserFacingError, match="not a number"):
            list(assistant.race(conversation, "Who?", OPTIONS))
        assert conversation.turns == []
    finally:
        assistant.close()


def test_a_waiting_question_tells_its_place_and_can_be_cancelled(assistant, reading, blocked_engine):
    events = assistant.answer(reading, "Who?", OPTIONS)
    assert isinstance(next(events), PassagesFound)
    assert next(events) == Queued(1)
    assistant.cancel(reading)
    finished = list(events)[-1]
    assert (finished.report.finish_reason, finished.report.answer) == ("cancelled", "")
    assert finished.report.time_to_first_token_s is None and finished.report.is_empty
    assert (reading.turns, reading.unanswered) == ([], "Who?")
    blocked_engine()
    assert answer(assistant, reading)[1].finish_reason == "length"
    assert (len(reading.turns), reading.unanswered) == (1, "")


def test_an_answer_that_the_model_ends_at_once_is_not_kept(assistant, reading, monkeypatch):
    monkeypatch.setattr(type(assistant._loader.model), "stop_token_ids", tuple(range(512)))
    report = answer(assistant, reading)[1]
    assert (report.finish_reason, report.is_empty, report.decode_tokens) == ("stop", True, 0)
    assert (reading.turns, reading.unanswered) == ([], "Who kept the light?")


def test_conversations_queue_and_never_mix(assistant, book_path, tmp_path):
    other_path = tmp_path / "other.txt"
    other_path.write_text("The winter was long, and every night the daughter climbed the stairs. " * 9)
    conversations = [assistant.new_conversation() for _ in range(2)]
    for conversation, path in zip(conversations, (book_path, other_path), strict=True):
        add(assistant, conversation, path)
    alone = [answer(assistant, conversation)[1].answer for conversation in conversations]
    assert alone[0] != alone[1]
    together = [None, None]

    def ask(index):
        running = assistant.ask(conversations[index], "Who kept the light?", OPTIONS, after_turn=0)
        together[index] = list(running.follow())[-1].report.answer

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_conversation_does_one_thing_at_a_time(assistant, reading, book_path, blocked_engine):
    events = assistant.answer(reading, "Who?", OPTIONS)
    next(events)
    for busy in (
        lambda: assistant.answer(reading, "Why?", OPTIONS),
        lambda: next(assistant.race(reading, "Why?", OPTIONS)),
        lambda: assistant.select_turn(reading, "1"),
        lambda: assistant.remove_document(reading, reading.document_ids[0]),
    ):
        with pytest.raises(UserFacingError, match="still answering"):
            busy()
    with pytest.raises(UserFacingError, match="answer is being made from harbour.txt"):
        assistant.delete_document(reading.document_ids[0])
    assistant.cancel(reading)
    blocked_engine()
    list(events)
    assistant.remove_document(reading, reading.document_ids[0])


def test_telemetry_follows_the_answer(assistant, reading):
    subscription = assistant.telemetry.subscribe(reading.conversation_id)
    report = answer(assistant, reading)[1]
    events = []
    while (event := subscription.next(0)) is not None:
        events.append(event)
    told = [event for event in events if event["type"] not in ("changed", "library")]
    assert len(told) < len(events) and "changed" in [event["type"] for event in events]
    events, kinds = told, [event["type"] for event in told]
    assert (kinds[0], kinds[1], kinds[-2], kinds[-1]) == ("idle", "prefill", "step", "finished")
    step = assistant.telemetry.step(reading.conversation_id, 5)
    assert step["page_reads"] is not None and 0 < step["read_share"] <= 1.5
    assert 0 <= step["missed_share"] < 1
    assert (step["layers"], step["kv_heads"], step["dense_layers"]) == (3, 2, 0)
    assert step["pages"] == -(-step["context_tokens"] // EngineConfig.page_size)
    assert step["always_read_pages"] == [0, step["pages"] - 2, step["pages"] - 1]
    assert assistant.telemetry.step(reading.conversation_id, 0)["page_reads"] is None
    assert events[-1]["steps"] == report.decode_tokens
    # For a reader: of how many tokens it looked at how many, and at which document pages more than usual.
    assert step["attended_tokens"] == OPTIONS.token_budget < step["context_tokens"]
    end, listed = events[-1], assistant.document_pages(reading.conversation_id)
    assert (end["attended_tokens"], end["heat_of"]) == (OPTIONS.token_budget, "attention")
    pages = [page for document in listed["documents"] for page in document["pages"]]
    assert len(base64.b64decode(step["heat"])) == len(base64.b64decode(end["heat"])) == len(pages)
    assert events[1]["attention"] == "quest" and events[1]["already_read"]


def test_at_a_length_where_all_is_read_it_is_told_as_dense_attention_with_the_reason(assistant, reading):
    subscription = assistant.telemetry.subscribe(reading.conversation_id)
    report = answer(assistant, reading, options=replace(OPTIONS, attention="auto", token_budget=4096))[1]
    events = []
    while (event := subscription.next(0)) is not None:
        events.append(event)
    step, end = [[event for event in events if event["type"] == kind][-1] for kind in ("step", "finished")]
    assert (step["attention"], step["attended_tokens"]) == ("auto", step["context_tokens"])
    # Nothing was chosen: no map, no levels, nothing missed.
    assert (step["page_reads"], step["heat"], step["missed_share"], step["dense_layers"]) == (None, None, None, 3)
    assert (end["attended_tokens"], end["heat_of"]) == (step["context_tokens"], "attention")
    assert (report.read_all, report.attended_tokens) == (True, step["context_tokens"])
    assert reading_words(report) == f"all {step['context_tokens']:,} tokens read: at this length that is not slower"


def test_looking_at_the_usual_levels_changes_no_answer(assistant, book_path, monkeypatch):
    levels = []

    def answers() -> list[str]:
        conversation = assistant.new_conversation()
        assistant.library.wait(assistant.add_document(conversation, book_path).document_id)
        return [answer(assistant, conversation)[1].answer for _ in range(2)]

    def usual(self, *arguments):
        levels.append(look(self, *arguments))
        return levels[-1]

    look = SelectionLevels.usual
    monkeypatch.setattr(SelectionLevels, "usual", usual)
    told = answers()
    assert len(levels) == 2 and levels[0] is not None and levels[0] is levels[1]
    monkeypatch.setattr(SelectionLevels, "usual", lambda *arguments: None)
    assert answers() == told


def test_every_kv_page_has_its_text(assistant, reading):
    report = answer(assistant, reading)[1]
    pages = -(-(report.prompt_tokens + report.decode_tokens) // EngineConfig.page_size)
    texts = [assistant.page_text(reading.conversation_id, page) for page in range(pages)]
    assert {text["role"] for text in texts} >= {"document", "conversation"}
    text = assistant.documents(reading)[0].document_pages[0].text
    held = [part for page in texts for part in page["parts"] if part["page_index"] == 0]
    assert "".join(text[part["start_char"] : part["end_char"]] for part in held) == text


def test_a_race_runs_both_sides_and_changes_nothing(assistant, reading):
    first = answer(assistant, reading)[1]
    turns = list(reading.turns)
    events = list(assistant.race(reading, "And why?", OPTIONS))
    assert isinstance(events[0], RacePlanned) and isinstance(events[1], PrefillEvent)
    assert events[1].progress.reused_tokens >= first.prompt_tokens
    assert {event.side for event in events if isinstance(event, RaceToken)} == {"dense", "quest"}
    finished = events[-1]
    assert isinstance(finished, RaceFinished) and finished.speed_ratio > 0
    assert finished.quest.kv_bytes_per_token < finished.dense.kv_bytes_per_token
    assert reading.turns == turns
    dense = answer(assistant, reading, "And why?", replace(OPTIONS, attention="dense"))[1]
    assert finished.dense.answer == dense.answer
    # The race had a session of its own: the conversation's still ends where it did.
    assert dense.reused_tokens == events[1].progress.reused_tokens


def test_a_race_with_the_whole_budget_is_a_draw(assistant, reading):
    finished = list(assistant.race(reading, "Who?", replace(OPTIONS, token_budget=1024, temperature=0.8)))[-1]
    assert finished.dense.answer == finished.quest.answer
    assert finished.first_difference is None
    assert finished.fits_budget and finished.faster is None


def test_closing_a_race_gives_its_pages_back(assistant, reading):
    answer(assistant, reading)
    free_pages = assistant._loader.model.engine.memory()["free_pages"]
    events = assistant.race(reading, "Why?", replace(OPTIONS, max_new_tokens=300))
    for event in events:
        if isinstance(event, RaceToken):
            break
    events.close()
    answer(assistant, reading, "Why?", replace(OPTIONS, max_new_tokens=2))
    kept_pages = free_pages - assistant._loader.model.engine.memory()["free_pages"]
    assert kept_pages * EngineConfig.page_size <= 24  # the question and what it was answered


def test_deleting_a_conversation_gives_its_pages_back(assistant, book_path):
    engine = assistant._loader.model.engine
    list(engine.submit(lambda cancellation: iter([None])))
    free_pages = engine.memory()["free_pages"]
    conversation = assistant.new_conversation()
    entry = add(assistant, conversation, book_path)
    answer(assistant, conversation)
    assert engine.memory()["free_pages"] < free_pages
    assistant.delete_conversation(conversation.conversation_id)
    list(engine.submit(lambda cancellation: iter([None])))
    # The document's own pages serve other conversations, until it is deleted.
    assistant.flush_snapshots(60)
    assistant.delete_document(entry.document_id)
    wait_until(lambda: list(engine.submit(lambda _: iter([None]))) and engine.memory()["free_pages"] >= free_pages)


def test_usage_follows_the_passages_of_the_last_answer(assistant, conversation, tmp_path):
    pytest.importorskip("llama_index.retrievers.bm25")
    path = tmp_path / "long.txt"
    path.write_text("The boats came home one after the other. Nobody knew the keeper. " * 200)
    entry = add(assistant, conversation, path)
    assert assistant.reading(entry.document_id, conversation).stage == "passages"
    assert not assistant.context_usage(conversation).passages_are_read
    report = answer(assistant, conversation)[1]
    usage = assistant.context_usage(conversation)
    assert (usage.passages_are_read, usage.passage_tokens) == (True, report.document.tokens_in_context)
    # Other documents: nothing has been read yet.
    assistant.remove_document(conversation, entry.document_id)
    assert assistant.context_usage(conversation).mode == "whole"


def test_documents_are_added_once_and_removed(assistant, conversation, book_path):
    entry = add(assistant, conversation, book_path)
    twin = book_path.with_name("twin.txt")
    twin.write_bytes(book_path.read_bytes())
    # The same bytes are one document, whatever they are called.
    assert add(assistant, conversation, twin).document_id == entry.document_id
    assert conversation.document_ids == [entry.document_id]
    usage = assistant.context_usage(conversation, OPTIONS)
    assert usage.document_tokens == assistant.document_tokens(entry.document_id)
    assert usage.document_tokens.is_exact and usage.document_tokens.tokens > 0
    assert usage.mode == "whole" and usage.context_tokens == 1024
    assistant.remove_document(conversation, entry.document_id)
    assert conversation.document_ids == []
    assert answer(assistant, conversation)[1].document.pages == 0


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("  ", OPTIONS, "empty"),
        ("Who?", replace(OPTIONS, token_budget=8), "token budget"),
        ("Who?", replace(OPTIONS, top_p=0.0), "top_p"),
        ("Who?", replace(OPTIONS, temperature=float("nan")), "temperature"),
        ("Who?", replace(OPTIONS, temperature=float("inf")), "temperature"),
        ("Who?", replace(OPTIONS, seed=2**70), "seed"),
        ("Who?", replace(OPTIONS, token_budget=float("nan")), "token_budget"),
        ("Who?", replace(OPTIONS, max_new_tokens=2000), "window"),
    ],
)
def test_what_cannot_be_answered_says_why(assistant, conversation, question, options, message):
    with pytest.raises(UserFacingError, match=message):
        list(assistant.answer(conversation, question, options))
    assert conversation.turns == [] and not conversation.busy.locked()


def test_an_unknown_conversation_is_refused(assistant):
    for find in (assistant.conversation, assistant.open_conversation):
        with pytest.raises(UserFacingError, match="no such conversation"):
            find("0" * 32)


def test_a_model_that_is_not_there_fails_with_a_sentence(tmp_path):
    assistant = Assistant(AppSettings(data_dir=tmp_path, model=str(tmp_path / "nothing")))
    assert assistant.status().stage == "starting"
    with pytest.raises(UserFacingError, match="nothing"):
        assistant.wait_until_ready()
    assert assistant.status().stage == "failed"
    assistant.close()
