"""Conversations over another engine, through the assistant: answers, sources, faults, and what is absent."""

from __future__ import annotations

import time

import pytest

from app.chat.answers.answer import AnswerOptions, Finished, ModelLoading, TokenEvent
from app.errors import UserFacingError
from app.library.sample_books import SAMPLE_BOOKS
from app.race.kept_record import RaceRequest
from app.remote import remote_run
from app.remote.served_model import UNKNOWN_WINDOW_TOKENS
from tests.app.remote.misbehaving_server import DONE, chunk
from ui.chat.answer_row import ending_content

SENTENCE = "The daughter of the keeper kept the light, every night of the winter."


@pytest.fixture
def asked(open_remote, book_path):
    """Return `asked(**settings)`: an assistant, and a conversation in it with a document."""

    def ask(**settings):
        assistant = open_remote(**settings)
        assistant.wait_until_ready()
        conversation = assistant.new_conversation()
        for _ in assistant.read_document(conversation, book_path):
            pass
        return assistant, conversation

    return ask


def answered(assistant, conversation, question="Who kept the light?", **options):
    events = list(assistant.ask(conversation, question, AnswerOptions(**options)).follow())
    assert isinstance(events[-1], Finished)
    return events, events[-1].report


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> bytes:
    counts = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }
    return chunk(None, usage=counts)


def test_an_answer_has_its_sources(server, asked):
    server.says(chunk(SENTENCE[:20]), chunk(SENTENCE[20:]), chunk(None, "stop"), usage(700, 15, 640), DONE)
    assistant, conversation = asked()
    status = assistant.status()
    assert (status.model, status.device, status.context_tokens) == ("small", server.url, 2048)
    events, report = answered(assistant, conversation)
    assert report.answer == SENTENCE and report.finish_reason == "stop" and report.device == server.url
    assert (report.prompt_tokens, report.reused_tokens) == (700, 640) and report.passages_found
    assert report.citations and not report.pages_read
    assert [event.answer for event in events if isinstance(event, TokenEvent)][-1] == SENTENCE
    (question,) = server.questions
    assert question["model"] == "small" and question["max_tokens"] <= 2048
    assert "daughter of the keeper" in question["messages"][0]["content"]
    assert question["messages"][-1] == {"role": "user", "content": "Who kept the light?"}
    assert assistant.sources(conversation.conversation_id, conversation.turns[0].turn_id)
    assert assistant.context_usage(conversation).mode == "whole"
    # By the thread that would read ahead.
    end = time.monotonic() + 20
    while not conversation.read_ids:
        assert time.monotonic() < end, "the document was never noted as read"
        time.sleep(0.02)


def test_the_next_question_brings_the_turns_before(server, asked):
    server.says(chunk(SENTENCE, "stop"), DONE)
    server.says(chunk("Nobody knows.", "stop"), DONE)
    assistant, conversation = asked()
    answered(assistant, conversation)
    answered(assistant, conversation, "And why?")
    roles = [(message["role"], message["content"]) for message in server.questions[1]["messages"][1:]]
    assert roles == [("user", "Who kept the light?"), ("assistant", SENTENCE), ("user", "And why?")]


def test_a_book_longer_than_the_window_comes_in_passages(server, open_remote):
    server.says(chunk("It is about a whale.", "stop"), usage(1500, 6), DONE)
    assistant = open_remote()
    assistant.wait_until_ready()
    conversation = assistant.new_conversation()
    entry = assistant.add_sample_book(conversation, SAMPLE_BOOKS[0].document_id)
    while assistant.library.entry(entry.document_id).state == "reading":
        time.sleep(0.05)
    _, report = answered(assistant, conversation, "What is the name of the ship?", max_new_tokens=64)
    assert report.passages is not None and report.answer
    # What the panel shows of the document is planned in a thread of its own.
    deadline = time.monotonic() + 20
    while (stage := assistant.reading(entry.document_id, conversation).stage) == "waiting":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert stage in ("passages", "read")


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk(None, reasoning_content="The keeper left."), chunk("His daughter.", "stop")],
        [chunk("<thi"), chunk("nk>The keeper left.</thi"), chunk("nk>\n\nHis daughter.", "stop")],
        [chunk("The keeper left."), chunk("</think>His daughter.", "stop")],
    ],
)
def test_a_thought_is_no_part_of_the_answer(server, asked, pieces):
    server.says(*pieces, DONE)
    assistant, conversation = asked()
    _, report = answered(assistant, conversation)
    assert (report.thinking, report.answer) == ("The keeper left.", "His daughter.") and report.thinking_tokens


def test_an_answer_without_usage_is_counted_here(server, asked):
    server.says(chunk("His "), chunk("daughter.", "length"), DONE)
    assistant, conversation = asked()
    _, report = answered(assistant, conversation)
    assert report.prompt_tokens > 0 and report.decode_tokens > 0 and report.finish_reason == "length"


def test_an_answer_ends_at_its_limit(server, asked):
    server.says(*[chunk("light ")] * 500)
    assistant, conversation = asked()
    _, report = answered(assistant, conversation, max_new_tokens=16)
    assert report.finish_reason == "length" and 16 <= report.decode_tokens <= 17


def test_an_answer_that_we_cut_says_that_it_was_counted_here(server, asked):
    server.says(*[chunk("light ")] * 500)
    assistant, conversation = asked()
    _, report = answered(assistant, conversation, max_new_tokens=16)
    assert report.tokens_estimated and report.to_json()["tokens_estimated"]
    row = str(ending_content(conversation.turns[0]))
    assert f"about {report.prompt_tokens} tokens of prompt, counted here" in row and "read before" not in row


def test_of_a_model_that_does_not_think_the_server_keeps_the_limit_and_tells_its_usage(server, asked):
    server.says(chunk("Yes.", "stop"), DONE)
    # Far more of our tokens than sixteen.
    server.says(*[chunk("Lighthouse Keeper")] * 16, chunk(None, "length"), usage(700, 16, 640), DONE)
    assistant, conversation = asked()
    answered(assistant, conversation, max_new_tokens=16)
    _, report = answered(assistant, conversation, "And why?", max_new_tokens=16)
    first, second = server.questions
    assert first["max_tokens"] > 16 and second["max_tokens"] == 16
    assert (report.finish_reason, report.decode_tokens) == ("length", 16)
    assert (report.prompt_tokens, report.reused_tokens) == (700, 640)
    assert report.answer == "Lighthouse Keeper" * 16 and "tokens_estimated" not in report.to_json()


def test_a_server_that_knows_no_limit_is_cut_all_the_same(server, asked):
    server.says(chunk("Yes.", "stop"), DONE)
    server.says(*[chunk("light ")] * 500)
    assistant, conversation = asked()
    answered(assistant, conversation)
    _, report = answered(assistant, conversation, "And why?", max_new_tokens=16)
    assert report.finish_reason == "length" and 16 <= report.decode_tokens <= 19


@pytest.mark.parametrize(
    "thought",
    [
        [chunk(None, reasoning_content="The keeper "), *[chunk(None, reasoning_content="left. ")] * 500],
        [chunk("<think>The keeper "), *[chunk("left. ")] * 500],
        # One that is not shown.
        [chunk(None, "length"), DONE],
    ],
)
def test_a_thought_that_there_is_no_room_for_is_asked_for_anew(server, asked, thought):
    server.says(chunk("Yes.", "stop"), DONE)
    server.says(*thought)
    server.says(chunk("<think>The keeper left.</think>His "), chunk("daughter.", "stop"), DONE)
    assistant, conversation = asked()
    answered(assistant, conversation, max_new_tokens=16)
    _, report = answered(assistant, conversation, "And who?", max_new_tokens=16)
    assert (report.thinking, report.answer) == ("The keeper left.", "His daughter.")
    answered(assistant, conversation, "And then?", max_new_tokens=16)
    limits = [question["max_tokens"] for question in server.questions]
    assert len(limits) == 4 and limits[1] == 16 and min(limits[0], *limits[2:]) > 16


def test_an_answer_that_reaches_its_limit_with_its_end_has_come_to_its_end(server, asked):
    server.says(chunk("The light was kept by the daughter of the keeper.", "stop"), usage(700, 11), DONE)
    assistant, conversation = asked()
    _, report = answered(assistant, conversation, max_new_tokens=4)
    assert (report.finish_reason, report.prompt_tokens) == ("stop", 700)


@pytest.mark.parametrize(
    ("told", "reason"), [("content_filter", "content_filter"), ("a \n word", "a word"), ("x" * 99, "x" * 59 + "…")]
)
def test_an_answer_that_the_engine_cuts_is_told_as_that(server, asked, told, reason):
    server.says(chunk("The daughter of the"), chunk(None, told), DONE)
    assistant, conversation = asked()
    _, report = answered(assistant, conversation)
    assert (report.finish_reason, report.engine_reason) == ("engine", reason)
    assert report.to_json()["engine_reason"] == reason
    assert f"Cut by {server.url}: " in str(ending_content(conversation.turns[0]))


def test_an_answer_that_the_engine_cuts_before_its_first_word_leaves_the_question(server, asked):
    server.says(chunk(None, "content_filter"), DONE)
    assistant, conversation = asked()
    _, report = answered(assistant, conversation)
    assert report.is_empty and report.engine_reason and conversation.unanswered == "Who kept the light?"


@pytest.mark.parametrize(("told", "reason"), [("eos_token", "stop"), ("STOP", "stop"), ("MAX_TOKENS", "length")])
def test_the_ends_that_servers_call_otherwise_are_plain_ends(server, asked, told, reason):
    server.says(chunk("Yes.", told), DONE)
    assistant, conversation = asked()
    _, report = answered(assistant, conversation)
    assert report.finish_reason == reason and "engine_reason" not in report.to_json()


def test_what_was_said_before_a_break_is_kept(server, asked):
    server.says(chunk("The daughter "))
    assistant, conversation = asked()
    with pytest.raises(UserFacingError, match="broken off") as raised:
        answered(assistant, conversation)
    assert server.url in raised.value.message
    (turn,) = conversation.turns
    assert (turn.answer, turn.state) == ("The daughter ", "failed")
    assert turn.report.warning == raised.value.message
    assert "broken off" in str(ending_content(turn))
    server.says(chunk("Yes.", "stop"), DONE)
    server.replies.pop(0)
    assert answered(assistant, conversation, "Is it so?")[1].answer == "Yes."


def test_a_server_that_is_gone_is_told(server, asked):
    assistant, conversation = asked()
    server.close()
    with pytest.raises(UserFacingError, match="cannot be reached"):
        answered(assistant, conversation)
    assert conversation.turns == [] and conversation.unanswered == "Who kept the light?"


def test_no_server_at_all_is_told(open_remote):
    assistant = open_remote(engine_url="http://127.0.0.1:9")
    # Who has asked must ask again by himself; the server is asked without him.
    with pytest.raises(UserFacingError, match="http://127.0.0.1:9 cannot be reached.*, and ask again"):
        assistant.wait_until_ready()
    status = assistant.status()
    assert (status.stage, status.engine_url) == ("failed", "http://127.0.0.1:9")
    assert status.message == "http://127.0.0.1:9 cannot be reached. It is asked again every 5 seconds, by itself."


def test_what_only_a_person_can_mend_is_not_said_to_be_asked_again(server, open_remote):
    server.models = (401, {})
    assistant = open_remote()
    with pytest.raises(UserFacingError, match="does not accept the key"):
        assistant.wait_until_ready()
    assert "does not accept the key" in assistant.status().message and "again" not in assistant.status().message


def test_a_server_that_comes_later_is_used(server, open_remote, monkeypatch):
    monkeypatch.setattr("app.models.model_loader._ASK_AGAIN_S", 0.05)
    listing, server.models = server.models, (503, {})
    assistant = open_remote()
    with pytest.raises(UserFacingError, match="Ask again later"):
        assistant.wait_until_ready()
    assert "too busy" in assistant.status().message and "Ask again later" not in assistant.status().message
    server.models = listing
    loader = assistant._loader
    with loader._changed:
        assert loader._changed.wait_for(lambda: loader.model is not None, 20)
    assert assistant.status().stage == "ready"


def test_a_question_asks_a_server_again_that_was_set_right(server, open_remote):
    listing, server.models = server.models, (200, {"data": []})
    assistant = open_remote()
    with pytest.raises(UserFacingError):
        assistant.wait_until_ready()
    server.models = listing
    # The thread that was refused may be ending.
    assistant._loader._thread.join(20)
    assistant.wait_until_ready()
    assert assistant.status().stage == "ready"


def test_stopping_closes_the_connection(server, asked):
    server.says(*[chunk("light "), 0.02] * 500)
    assistant, conversation = asked()
    running = assistant.ask(conversation, "Who?", AnswerOptions(max_new_tokens=1000))
    for event in running.follow():
        if isinstance(event, TokenEvent):
            assistant.cancel(conversation)
    assert server.left.wait(10)
    assert event.report.finish_reason == "cancelled" and conversation.turns[0].state == "stopped"


def test_stopping_does_not_wait_for_a_silent_server(server, asked, monkeypatch):
    monkeypatch.setattr(remote_run, "_TOLD_FROM_S", 0.0)
    server.says(30.0)
    assistant, conversation = asked()
    running = assistant.ask(conversation, "Who?", AnswerOptions())
    for event in running.follow():
        if isinstance(event, ModelLoading):
            assert "has been reading for" in event.message
            assistant.cancel(conversation)
    assert isinstance(event, Finished) and event.report.is_empty


def test_a_request_is_put_as_the_server_knows_it(server, asked):
    server.fails(400, {"error": {"message": "Unknown parameter: 'stream_options'."}})
    server.fails(400, {"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}})
    server.fails(400, {"error": {"message": "System role not supported"}})
    server.says(chunk("Yes.", "stop"), DONE)
    assistant, conversation = asked()
    assert answered(assistant, conversation)[1].answer == "Yes."
    body = server.questions[-1]
    assert "stream_options" not in body and "max_tokens" not in body and body["max_completion_tokens"]
    assert [message["role"] for message in body["messages"]] == ["user"]
    answered(assistant, conversation, "Again?")
    assert len(server.questions) == 5


def test_a_prompt_that_is_too_long_makes_the_next_one_shorter(server, asked):
    server.fails(400, {"message": "This model's maximum context length is 512 tokens."})
    assistant, conversation = asked()
    before = assistant.context_usage(conversation).context_tokens
    with pytest.raises(UserFacingError, match="longer than"):
        answered(assistant, conversation)
    assert assistant.context_usage(conversation).context_tokens < before


def test_the_window_follows_what_the_server_counts(server, asked):
    server.says(chunk("Yes.", "stop"), usage(2000, 3), DONE)
    assistant, conversation = asked()
    before = assistant.context_usage(conversation).context_tokens
    answered(assistant, conversation)
    assert assistant.context_usage(conversation).context_tokens < before


@pytest.mark.parametrize(
    ("told", "wanted", "window"), [(None, None, UNKNOWN_WINDOW_TOKENS), (None, 1000, 1000), (2048, 1000, 1000)]
)
def test_a_window_that_nobody_tells_is_said_openly(server, open_remote, told, wanted, window):
    server.models = (200, {"data": [{"id": "small"} | ({"max_model_len": told} if told else {})]})
    assistant = open_remote(context_tokens=wanted)
    assistant.wait_until_ready()
    status = assistant.status()
    assert status.context_tokens == window
    assert ("does not say" in status.note and "--context-tokens" in status.note) == (told is None and wanted is None)


def test_what_needs_our_cache_is_refused(server, asked):
    server.says(chunk("The daughter.", "length"), DONE)
    assistant, conversation = asked()
    answered(assistant, conversation)
    conversation_id, turn = conversation.conversation_id, conversation.turns[0]
    with pytest.raises(UserFacingError, match="needs the cache"):
        assistant.start_race(conversation, RaceRequest("Who?", AnswerOptions()))
    with pytest.raises(UserFacingError, match="needs the cache"):
        list(assistant.race(conversation, "Who?", AnswerOptions()))
    with pytest.raises(UserFacingError, match="needs the cache"):
        assistant.page_text(conversation_id, 0)
    with pytest.raises(UserFacingError, match="needs the cache"):
        assistant.ask(conversation, "Who?", AnswerOptions(attention="exact"))
    with pytest.raises(UserFacingError, match="needs the cache"):
        list(assistant.continue_answer(conversation, turn.turn_id, AnswerOptions()).follow())
    assert conversation.turns == [turn]
    with pytest.raises(UserFacingError, match="Start Quest Chat without --engine-url"):
        assistant.switch_model("embedded")
    assert assistant.race_outlook(conversation_id) == {"ready": False}
    assert assistant.document_pages(conversation_id)["documents"]
    assert assistant.models.listing() and assistant.flush_snapshots(1)
    assistant.delete_document(conversation.document_ids[0])


def test_the_key_is_sent_and_told_nobody(server, asked):
    server.fails(401, {"error": {"message": "Incorrect API key provided: sk-hush."}})
    assistant, conversation = asked(engine_key="sk-hush")
    with pytest.raises(UserFacingError) as raised:
        answered(assistant, conversation)
    assert "sk-hush" not in raised.value.message + repr(assistant.status()) + str(assistant.models.state())
    assert {headers.get("Authorization") for _, headers, _ in server.requests} == {"Bearer sk-hush"}


def test_the_api_passes_on_that_a_content_filter_has_cut_an_answer(server, asked, serve_app):
    httpx, fastapi = pytest.importorskip("httpx"), pytest.importorskip("fastapi")
    from app.api.routes import add_api_routes

    server.says(chunk("The daughter of the", "content_filter"), DONE)
    assistant, conversation = asked()
    app = fastapi.FastAPI()
    add_api_routes(app, assistant, assistant.settings)
    messages = [{"role": "user", "content": "Who kept the light?"}]
    body = {"model": "small", "messages": messages, "documents": list(conversation.document_ids)}
    with serve_app(app) as address:
        reply = httpx.post(f"{address}/v1/chat/completions", json=body, trust_env=False, timeout=30).json()
    assert reply["choices"][0]["finish_reason"] == "content_filter"
    assert reply["quest"]["engine_reason"] == "content_filter"
