"""Documents are read before anybody asks, give way to questions, and are waited for in plain sight."""

from __future__ import annotations

import threading
import time

import pytest

from app.chat.answers.answer import AnswerOptions, DocumentReading, Finished, PrefillEvent, TokenEvent
from app.errors import UserFacingError
from app.library import library as library_module

OPTIONS = AnswerOptions(token_budget=64, max_new_tokens=8)
SENTENCES = ("The boats came home {}. ", "Nobody knew the keeper {}. ", "The winter was long {}. ")


def wait_until(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def answered(assistant, conversation, question="Who kept the light?"):
    return list(assistant.answer(conversation, question, OPTIONS))[-1].report


class Gate:
    """Lets through what it wraps, once it is opened, or a few times."""

    def __init__(self, wrapped) -> None:
        self._wrapped = wrapped
        self._passes = threading.Semaphore(0)
        self._open = threading.Event()
        self.arrived = threading.Event()
        self.calls = 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        self.arrived.set()
        while not self._open.is_set() and not self._passes.acquire(timeout=0.02):
            pass
        return self._wrapped(*arguments, **options)

    def let_through(self, times=1):
        for _ in range(times):
            self._passes.release()

    def open(self):
        self._open.set()


@pytest.fixture
def assistant(open_assistant):
    return open_assistant(window_tokens=4096)


@pytest.fixture
def conversation(assistant):
    return assistant.new_conversation()


@pytest.fixture
def extraction(monkeypatch):
    """A gate before the text of each document; the files in `held` stay behind it."""
    original, gates = library_module.read_document, {}

    def read_document(path, password=None, on_progress=lambda progress: None, **options):
        read = gates.get(path.read_text()[:12], original)
        return read(path, password, on_progress, **options)

    def hold(path):
        gates[path.read_text()[:12]] = gate = Gate(original)
        return gate

    monkeypatch.setattr(library_module, "read_document", read_document)
    yield hold
    for gate in gates.values():
        gate.open()


@pytest.fixture
def prefill(assistant, monkeypatch):
    """A gate before each chunk of every prefill."""
    decoder = assistant._loader.model.engine.decoder
    gate = Gate(decoder.prefill)
    monkeypatch.setattr(decoder, "prefill", gate)
    yield gate
    gate.open()


@pytest.fixture
def book(tmp_path):
    """Return `book(number, tokens)`: a text file of about so many tokens."""

    def write(number, tokens=300):
        path = tmp_path / f"book{number}.txt"
        sentence = SENTENCES[number].format("one after the other")
        path.write_text(f"Book {number}: " + sentence * (tokens // 11 + 1))
        return path

    return write


def stage(assistant, conversation, entry):
    return assistant.reading(entry.document_id, conversation).stage


def test_a_document_is_read_before_anybody_asks(assistant, conversation, book):
    entry = assistant.add_document(conversation, book(0))
    wait_until(lambda: stage(assistant, conversation, entry) == "read")
    state = assistant.reading(entry.document_id, conversation)
    assert (state.share, state.remaining_s, state.message) == (1.0, 0.0, "")
    assert conversation.read_ids == {entry.document_id}
    report = answered(assistant, conversation)
    assert report.reused_tokens >= report.document.tokens > 250 and report.left_out == ()


def test_states_on_the_way(assistant, conversation, book, extraction, prefill):
    path = book(0, 800)
    gate = extraction(path)
    entry = assistant.add_document(conversation, path)
    assert gate.arrived.wait(30)
    assert stage(assistant, conversation, entry) == "text"
    gate.open()
    wait_until(lambda: stage(assistant, conversation, entry) == "waiting")
    assert prefill.arrived.wait(30)
    prefill.let_through()
    wait_until(lambda: stage(assistant, conversation, entry) == "model")
    state = assistant.reading(entry.document_id, conversation)
    assert 0 < state.share < 1 and state.remaining_s > 0
    prefill.open()
    wait_until(lambda: stage(assistant, conversation, entry) == "read")


def test_before_the_model_is_there_the_reading_waits_and_begins_with_it(open_assistant, book):
    assistant = open_assistant(loaded=False)
    conversation = assistant.new_conversation()
    entry = assistant.add_document(conversation, book(0))
    assistant.library.wait(entry.document_id)
    state = assistant.reading(entry.document_id, conversation)
    assert (state.stage, state.message) == ("waiting", "The model is not loaded yet.")
    assistant.wait_until_ready()
    wait_until(lambda: stage(assistant, conversation, entry) == "read")


def test_what_another_conversation_has_read_is_read_at_once(assistant, conversation, book, prefill):
    prefill.open()
    path = book(0, 800)
    entry = assistant.add_document(conversation, path)
    wait_until(lambda: stage(assistant, conversation, entry) == "read")
    calls = prefill.calls
    other = assistant.new_conversation()
    assistant.add_document(other, path)
    wait_until(lambda: stage(assistant, other, entry) == "read")
    assert prefill.calls == calls
    assert answered(assistant, other).reused_tokens >= 700


def test_a_question_waits_in_plain_sight_and_can_be_stopped(assistant, conversation, book, extraction):
    path = book(0)
    gate = extraction(path)
    assistant.add_document(conversation, path)
    events = assistant.answer(conversation, "Who?", OPTIONS)
    assert next(events) == DocumentReading("book0.txt", None)
    assistant.cancel(conversation)
    with pytest.raises(UserFacingError, match="Stopped before the document was read"):
        next(events)
    assert (conversation.turns, conversation.unanswered) == ([], "Who?")
    events = assistant.answer(conversation, "Who?", OPTIONS)
    assert isinstance(next(events), DocumentReading)
    gate.open()
    rest = list(events)
    assert any(isinstance(event, PrefillEvent) for event in rest) and isinstance(rest[-1], Finished)
    assert rest[-1].report.document.pages == 1 and conversation.unanswered == ""


def test_of_three_documents_the_first_can_be_asked_while_the_others_are_read(
    assistant, conversation, book, extraction, prefill
):
    gate = extraction(book(2))
    # None is as short as what is read in a moment.
    first, second = (assistant.add_document(conversation, book(number, 600)) for number in (0, 1))
    third = assistant.add_document(conversation, book(2))
    prefill.let_through(2)
    wait_until(lambda: stage(assistant, conversation, first) == "read")
    wait_until(lambda: stage(assistant, conversation, second) != "text")
    assert stage(assistant, conversation, third) == "text"
    running = assistant.ask(conversation, "Who kept the light?", OPTIONS)
    # The question goes before what is being read, and needs nothing of it but the first document.
    wait_until(lambda: conversation.job is not None)
    prefill.open()
    report = list(running.follow())[-1].report
    assert report.left_out == ("book1.txt", "book2.txt")
    assert (report.document.pages, [one.name for one in conversation.plan.documents]) == (1, ["book0.txt"])
    gate.open()
    wait_until(lambda: {stage(assistant, conversation, one) for one in (first, second, third)} == {"read"})
    report = answered(assistant, conversation)
    assert (report.left_out, report.document.pages) == ((), 3)


def test_short_documents_that_come_together_are_all_asked(assistant, conversation, book):
    for number in range(3):
        assistant.add_document(conversation, book(number, 100))
    report = answered(assistant, conversation)
    assert (report.left_out, report.document.pages) == ((), 3)


def test_a_question_elsewhere_goes_before_reading_ahead(assistant, conversation, book, prefill):
    other = assistant.new_conversation()
    entry = assistant.add_document(conversation, book(0, 1500))
    assert prefill.arrived.wait(30)
    running = assistant.ask(other, "Why?", OPTIONS)
    wait_until(lambda: other.job is not None)
    prefill.let_through(2)  # the chunk that was under way, and the question
    report = list(running.follow())[-1].report
    assert report.answer
    assert stage(assistant, conversation, entry) == "model"
    prefill.open()
    wait_until(lambda: stage(assistant, conversation, entry) == "read")


def test_a_document_that_comes_while_an_answer_runs_is_taken_in(assistant, conversation, book):
    first = assistant.add_document(conversation, book(0))
    wait_until(lambda: stage(assistant, conversation, first) == "read")
    events = assistant.answer(conversation, "Who?", AnswerOptions(token_budget=64, max_new_tokens=200))
    for event in events:
        if isinstance(event, TokenEvent):
            break
    second = assistant.add_document(conversation, book(1))
    assert conversation.document_ids == [first.document_id, second.document_id]
    report = list(events)[-1].report
    assert report.document.pages == 1
    wait_until(lambda: stage(assistant, conversation, second) == "read")
    assert answered(assistant, conversation).document.pages == 2


def test_one_that_cannot_be_read_is_told_and_does_not_stop_the_others(assistant, conversation, book, tmp_path):
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7\n" + b"nothing of it is true " * 20)
    entry = assistant.add_document(conversation, broken)
    wait_until(lambda: stage(assistant, conversation, entry) == "failed")
    message = assistant.reading(entry.document_id, conversation).message
    assert "broken.pdf" in message
    with pytest.raises(UserFacingError, match="broken.pdf"):
        answered(assistant, conversation)
    whole = assistant.add_document(conversation, book(0))
    wait_until(lambda: stage(assistant, conversation, whole) == "read")
    report = answered(assistant, conversation)
    assert report.document.pages == 1 and message in report.warning


def test_a_failure_of_the_engine_is_told_and_tried_again_by_the_question(assistant, conversation, book, monkeypatch):
    decoder = assistant._loader.model.engine.decoder

    def fail(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "prefill", fail)
        entry = assistant.add_document(conversation, book(0))
        wait_until(lambda: stage(assistant, conversation, entry) == "failed")
        assert "memory for KV pages is full" in assistant.reading(entry.document_id, conversation).message
    assert answered(assistant, conversation).document.pages == 1
    wait_until(lambda: stage(assistant, conversation, entry) == "read")


def test_a_document_that_is_being_read_can_be_deleted(assistant, conversation, book, prefill):
    entry = assistant.add_document(conversation, book(0, 850))
    other = assistant.add_document(conversation, book(1, 100))
    assert prefill.arrived.wait(30)
    deleting = threading.Thread(target=assistant.delete_document, args=(entry.document_id,))
    deleting.start()
    prefill.open()
    deleting.join(60)
    assert not deleting.is_alive()
    assert conversation.document_ids == [other.document_id]
    assert [one.document_id for one in assistant.library.entries()] == [other.document_id]
    wait_until(lambda: stage(assistant, conversation, other) == "read")
    snapshots = assistant._loader.model.engine.snapshots
    assert snapshots.flush(60) and snapshots.bytes(entry.document_id) == 0
    assert answered(assistant, conversation).document.pages == 1


def test_who_watches_hears_of_it_but_not_too_often(assistant, conversation, book):
    subscription = assistant.telemetry.subscribe(conversation.conversation_id)
    entry = assistant.add_document(conversation, book(0, 850))
    wait_until(lambda: stage(assistant, conversation, entry) == "read")
    began, kinds = time.monotonic(), []
    while time.monotonic() - began < 0.8:
        if (event := subscription.next(0.1)) is not None:
            kinds.append(event["type"])
    assert "changed" in kinds and 1 <= kinds.count("library") < 12
    subscription.close()
