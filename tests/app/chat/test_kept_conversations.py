"""What is there after a restart: conversations, branches, documents, and what the model had read of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.chat.answers.answer import AnswerOptions, TokenEvent
from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.store.data_folder import StorageFull
from app.store.folder_lock import FolderInUse

OPTIONS = AnswerOptions(token_budget=64, max_new_tokens=24)
ROOT = Path(__file__).parents[3]


def answered(assistant, conversation, question="Who kept the light?", options=OPTIONS, after_turn=None):
    running = assistant.ask(conversation, question, options, after_turn)
    return list(running.follow())[-1].report


def wait_until(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def read(assistant, conversation, path):
    entry = assistant.add_document(conversation, path)
    wait_until(lambda: assistant.reading(entry.document_id, conversation).stage == "read")
    return entry.document_id


def test_a_restart_opens_where_one_left_off_and_restores_what_was_read(open_assistant, book_path):
    first = open_assistant()
    conversation = first.open_conversation()
    document_id = read(first, conversation, book_path)
    # With Quest the first answer's own keys and values would be those of what it read.
    dense = replace(OPTIONS, attention="dense")
    report = answered(first, conversation, options=dense)
    assert report.restored_tokens == 0
    assert first.flush_snapshots(60)
    followed = answered(first, conversation, "And why?", dense)
    first.new_conversation()  # one that holds nothing is not where one left off
    first.close()

    second = open_assistant()
    opened = second.open_conversation()
    assert opened.conversation_id == conversation.conversation_id and opened.title == "Who kept the light?"
    assert [(turn.question, turn.answer, turn.state) for turn in opened.turns] == [
        ("Who kept the light?", report.answer, "finished"),
        ("And why?", followed.answer, "finished"),
    ]
    assert opened.turns[0].report == report
    assert (opened.document_ids, opened.read_ids) == ([document_id], {document_id})
    # The same greedy tokens from restored pages as from computed ones.
    assert answered(second, opened, "And why?", dense, after_turn=1).answer == followed.answer


def test_passages_of_a_long_document_stand_where_they_stood_after_a_restart(open_assistant, tmp_path):
    pytest.importorskip("llama_index.retrievers.bm25")
    path, options = tmp_path / "long.txt", replace(OPTIONS, max_new_tokens=4)
    lines = [f"On day {day} the boats of harbour {day} came home, and the bell rang." for day in range(300)]
    lines[200], lines[90] = "The lighthouse keeper had gone to Peru.", "A parrot sat on the mast of the ferry."
    path.write_text("\n\n".join(lines))
    first = open_assistant()
    conversation = first.open_conversation()
    entry = first.add_document(conversation, path)
    wait_until(lambda: first.reading(entry.document_id, conversation).stage == "passages")
    asked = answered(first, conversation, "Where had the lighthouse keeper gone?", options)
    followed = answered(first, conversation, "Where was the parrot?", options)
    said = asked.prompt_tokens + asked.decode_tokens
    assert followed.reused_tokens >= said - 1 and not followed.passages.added.begins_anew
    # What a first question about the whole gets is read ahead.
    other = first.new_conversation()
    first.attach_document(other, entry.document_id)
    wait_until(lambda: (reading := first._parts.reading._readings.get(other)) is not None and reading.done)
    whole = answered(first, other, "What is this about?", options)
    assert whole.passages.added.kind == "overview" and whole.reused_tokens > 0.5 * whole.prompt_tokens
    usage = first.context_usage(conversation, options)
    assert usage.passage_tokens == followed.document.tokens_in_context
    assert first.flush_snapshots(60)
    first.close()

    second = open_assistant()
    opened = second.open_conversation(conversation.conversation_id)
    assert opened.turns[1].report == followed
    # The same prompt: the first passages come from the disk, and an answer to the same question has the same passages.
    again = answered(second, opened, "Where was the parrot?", options, after_turn=1)
    assert (again.passages, again.prompt_tokens) == (followed.passages, followed.prompt_tokens)
    assert again.restored_tokens > 0.5 * asked.prompt_tokens
    assert second.context_usage(opened, options) == usage
    # What the other branch brought does not stand in this one.
    branch = answered(second, opened, "And why?", options, after_turn=1)
    assert branch.document.tokens_in_context == asked.document.tokens_in_context
    # An answer of an older version says nothing of its passages: they are chosen anew.
    stored = {**asked.to_stored(), "passages": {**asked.to_stored()["passages"]}}
    del stored["passages"]["added"], stored["passages"]["searched_for"]
    assert type(asked).from_stored(stored).passages == replace(asked.passages, added=None)


def test_a_question_of_the_terminal_takes_what_was_read_from_the_disk(open_assistant, book_path):
    first = open_assistant()
    fresh = first.new_conversation(kept=False)
    first.add_document(fresh, book_path)
    report = answered(first, fresh)
    assert (report.reused_tokens, report.restored_tokens) == (0, 0)
    assert first.flush_snapshots(60)
    first.close()
    second = open_assistant()
    again = second.new_conversation(kept=False)
    second.add_document(again, book_path)
    restored = answered(second, again)
    assert 0 < restored.restored_tokens == restored.reused_tokens < restored.prompt_tokens
    assert restored.restored_bytes > 0 and restored.answer == report.answer
    # Nothing of them is among the conversations.
    assert second.conversation_summaries() == []


def test_a_branch_is_kept_beside_the_one_that_replaces_it(open_assistant):
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    answered(assistant, conversation, "Who?")
    answered(assistant, conversation, "Where?")
    answered(assistant, conversation, "When?", after_turn=1)
    first, edited = conversation.turns
    assert (first.question, edited.question, len(edited.siblings)) == ("Who?", "When?", 2)
    assert edited.turn_id == edited.siblings[1]
    assistant.select_turn(conversation, edited.siblings[0])
    assert [turn.question for turn in conversation.turns] == ["Who?", "Where?"]
    answered(assistant, conversation, "Why?")
    assistant.select_turn(conversation, edited.turn_id)
    assert [turn.question for turn in conversation.turns] == ["Who?", "When?"]
    # Back to the other branch, down to its latest answer.
    assistant.select_turn(conversation, edited.siblings[0])
    assert [turn.question for turn in conversation.turns] == ["Who?", "Where?", "Why?"]
    with pytest.raises(UserFacingError, match="no such"):
        assistant.select_turn(conversation, "x")


def test_a_branch_that_got_no_word_leaves_the_old_one(open_assistant, monkeypatch):
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    answered(assistant, conversation, "Who?")
    turns = list(conversation.turns)
    monkeypatch.setattr(type(assistant._loader.model), "stop_token_ids", tuple(range(512)))
    assert answered(assistant, conversation, "When?", after_turn=0).is_empty
    assert (conversation.turns, conversation.unanswered) == (turns, "When?")
    again = assistant._stored.load(conversation.conversation_id)
    assert [turn.turn_id for turn in again.turns] == [turn.turn_id for turn in turns]
    assert again.unanswered == "When?"


def test_a_question_that_is_asked_is_at_no_moment_one_without_an_answer(open_assistant, monkeypatch):
    """A page that looks meanwhile would put it back into the question box."""
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    conversation.unanswered = "When?"
    seen, begin_turn = [], assistant._stored._store.begin_turn

    def begin(*turn):
        begun = begin_turn(*turn)
        seen.append((conversation.running, conversation.unanswered))
        return begun

    monkeypatch.setattr(assistant._stored._store, "begin_turn", begin)
    answered(assistant, conversation, "Who?")
    assert seen == [(None, "")]


def test_conversations_are_listed_found_renamed_deleted_and_brought_back(open_assistant, book_path):
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    read(assistant, conversation, book_path)
    answered(assistant, conversation, "Who kept the light?")
    other = assistant.new_conversation()
    answered(assistant, other, "Wherefore?")
    assert [one.title for one in assistant.conversation_summaries()] == ["Wherefore?", "Who kept the light?"]
    assert [one.title for one in assistant.conversation_summaries("kept light")] == ["Who kept the light?"]
    assistant.rename_conversation(conversation.conversation_id, "The keeper")
    assert conversation.title == "The keeper"
    subscription = assistant.telemetry.subscribe(conversation.conversation_id)
    assistant.delete_conversation(conversation.conversation_id)
    assert subscription.closed
    assert [one.title for one in assistant.conversation_summaries()] == ["Wherefore?"]
    for use in (
        lambda: assistant.open_conversation(conversation.conversation_id),
        lambda: assistant.ask(conversation, "Who?", OPTIONS),
    ):
        with pytest.raises(UserFacingError, match="deleted|no such"):
            use()
    assistant.undelete_conversation(conversation.conversation_id)
    back = assistant.open_conversation(conversation.conversation_id)
    assert (back.title, len(back.turns), len(back.document_ids)) == ("The keeper", 1, 1)
    answered(assistant, back, "And why?")
    assert len(back.turns) == 2


def test_a_conversation_is_exported_as_it_is_shown(open_assistant, book_path):
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    read(assistant, conversation, book_path)
    report = answered(assistant, conversation)
    markdown = assistant.export_conversation(conversation.conversation_id, "markdown")
    assert markdown.startswith("# Who kept the light?\n\nDocuments:\n\n- harbour.txt\n\n## Question\n")
    assert report.answer in markdown
    values = json.loads(assistant.export_conversation(conversation.conversation_id, "json"))
    assert values["documents"] == ["harbour.txt"]
    assert [(turn["question"], turn["answer"], turn["state"]) for turn in values["turns"]] == [
        ("Who kept the light?", report.answer, "finished")
    ]
    conversation.running = SimpleNamespace(question="And why?")
    for kind in ("markdown", "json"):
        assert "And why?" in assistant.export_conversation(conversation.conversation_id, kind)
    conversation.running = None
    assert values["turns"][0]["report"] == report.to_json() | {"pages_read": values["turns"][0]["report"]["pages_read"]}


def test_what_was_asked_before_is_exported_beside_what_is_shown(open_assistant):
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    answered(assistant, conversation, "First?")
    answered(assistant, conversation, "Second?")
    *_, finished = assistant.ask(conversation, "Instead?", OPTIONS, after_turn=0).follow()
    values = json.loads(assistant.export_conversation(conversation.conversation_id, "json"))
    assert [turn["question"] for turn in values["turns"]] == ["Instead?"]
    first, second = values["other_turns"]
    assert (first["question"], second["question"]) == ("First?", "Second?")
    assert first["parent_id"] is None and second["parent_id"] == first["turn_id"]
    assert values["turns"][0]["answer"] == finished.report.answer


def test_a_conversation_that_was_put_away_comes_back(open_assistant, book_path, monkeypatch):
    assistant = open_assistant()
    monkeypatch.setattr("app.chat.conversations.open_conversations.MAX_CONVERSATIONS", 2)
    conversation = assistant.new_conversation()
    document_id = read(assistant, conversation, book_path)
    answered(assistant, conversation)
    for _ in range(3):
        assistant.new_conversation()
    assert conversation not in assistant._access.present()
    back = assistant.conversation(conversation.conversation_id)
    assert back is not conversation and back.turns == conversation.turns and back.read_ids == {document_id}
    answered(assistant, back, "And why?")
    # Whoever still has the old object speaks of the same conversation.
    answered(assistant, conversation, "Where?")
    assert [turn.question for turn in back.turns] == ["Who kept the light?", "And why?", "Where?"]


def test_answers_of_another_model_are_told_in_this_models_tokens(open_assistant):
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    answered(assistant, conversation, "Who?")
    for token_ids in ((1, 2, 3), (10**6,), ()):
        conversation.turns[0] = replace(conversation.turns[0], answer="The daughter.", answer_token_ids=token_ids)
        conversation.checked_ids.clear()
        answered(assistant, conversation, "Why?", after_turn=1)
        plan = conversation.plan
        assert "The daughter." in assistant._loader.model.tokenizer.decode(plan.token_ids)
        del conversation.turns[1:]


def test_a_full_disk_stops_no_answer(open_assistant, monkeypatch):
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    answered(assistant, conversation, "Who?")

    def full(*arguments, **options):
        raise StorageFull("The disk is full. Free some space.")

    for refused in (["begin_turn"], ["save_partial", "finish_turn"], ["finish_turn"]):
        with monkeypatch.context() as patch:
            for name in refused:
                patch.setattr(assistant.conversations, name, full)
            report = answered(assistant, conversation, f"Why no {refused[0]}?")
        assert report.answer and "not saved" in report.warning and "Free some space" in report.warning
        assert conversation.turns[-1].answer == report.answer
    report = answered(assistant, conversation, "And now?")
    assert report.warning == "" and conversation.turns[-1].question == "And now?"
    stored = assistant._stored.load(conversation.conversation_id)
    # What could not be stored is, as soon as there is room.
    assert [turn.question for turn in stored.turns] == [turn.question for turn in conversation.turns]
    assert stored.turns[1].question == "Why no begin_turn?" and stored.turns[1].report is not None
    assert stored.turns[-1].answer == report.answer and all(turn.is_stored for turn in conversation.turns)
    with monkeypatch.context() as patch:
        patch.setattr(assistant.conversations, "create", full)
        unkept = assistant.new_conversation()
    assert "Free some space" in answered(assistant, unkept).warning


def test_a_start_on_a_full_disk_shows_what_is_kept(open_assistant, monkeypatch):
    from app.store.database import Database

    first = open_assistant()
    report = answered(first, first.open_conversation())
    first.close()
    opened = Database.open

    def open_on_full_disk(data_dir, read_only=False):
        if not read_only:
            raise StorageFull("The disk is full. Free some space.")
        return opened(data_dir, read_only)

    monkeypatch.setattr(Database, "open", open_on_full_disk)
    second = open_assistant()
    assert second.notice.startswith("The disk is full. Free some space.")
    conversation = second.open_conversation()
    assert [turn.answer for turn in conversation.turns] == [report.answer]
    told = answered(second, conversation, "And why?")
    assert told.answer and "not saved" in told.warning
    assert "Free some space" in answered(second, second.new_conversation()).warning


def test_two_servers_do_not_share_a_folder_but_a_reader_may_look_in(open_assistant, book_path):
    server = open_assistant()
    conversation = server.new_conversation()
    document_id = read(server, conversation, book_path)
    first = answered(server, conversation)
    assert server.flush_snapshots(60)
    with pytest.raises(FolderInUse, match="http://127.0.0.1:7860"):
        open_assistant(loaded=False)
    reader = open_assistant(beside_another=True)
    question = reader.new_conversation(kept=False)
    assert reader.add_document(question, book_path).document_id == document_id
    report = answered(reader, question)
    assert report.restored_tokens > 0 and report.answer == first.answer
    assert reader.new_conversation().is_kept is False
    added = book_path.with_name("other.txt")
    added.write_text("The boats came home one after the other. " * 20)
    reader.add_document(question, added)
    assert answered(reader, question, "What came home?").document.pages == 2
    reader.close()
    assert [entry.document_id for entry in server.library.entries()] == [document_id]
    assert len(server.conversation_summaries()) == 1


def test_without_keeping_nothing_is_read_or_left(open_assistant, book_path, tmp_path):
    kept = open_assistant()
    read(kept, kept.new_conversation(), book_path)
    kept.flush_snapshots(60)
    kept.close()
    before = sorted((tmp_path / "data").rglob("*"))
    assistant = open_assistant(keep=False)
    assert assistant.library.entries() == [] and assistant.conversation_summaries() == []
    conversation = assistant.new_conversation(kept=False)
    assistant.add_document(conversation, book_path)
    assert answered(assistant, conversation).reused_tokens == 0
    folder = assistant._parts.data.folder
    assistant.close()
    assert not folder.exists() and sorted((tmp_path / "data").rglob("*")) == before


KILLED_PROGRAM = """
import sys
from pathlib import Path
from app.chat.answers.answer import AnswerOptions, TokenEvent
from app.chat.assistant import Assistant
from app.settings import AppSettings
settings = AppSettings(data_dir=Path(sys.argv[1]), model=sys.argv[2], device="cpu", dtype="float32")
assistant = Assistant(settings)
conversation = assistant.new_conversation()
list(assistant.answer(conversation, "Who?", AnswerOptions(token_budget=64, max_new_tokens=8)))
import time
decode = assistant._loader.model.engine.decoder.decode
def slow(*arguments):
    time.sleep(0.05)
    return decode(*arguments)
assistant._loader.model.engine.decoder.decode = slow
print(conversation.conversation_id, flush=True)
for event in assistant.answer(conversation, "Why?", AnswerOptions(token_budget=64, max_new_tokens=700)):
    if isinstance(event, TokenEvent):
        print(len(event.answer), flush=True)
"""


def test_what_was_said_before_a_kill_is_there_afterwards(tiny_model_folder, open_assistant, tmp_path):
    data_dir = tmp_path / "data"
    command = [sys.executable, "-c", KILLED_PROGRAM, str(data_dir), str(tiny_model_folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        conversation_id = process.stdout.readline().strip()
        seen = 0
        end = time.monotonic() + 3
        while time.monotonic() < end:
            seen_a_second_ago = seen
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                seen = int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert seen_a_second_ago > 0
    assistant = open_assistant(loaded=False)
    conversation = assistant.open_conversation()
    assert conversation.conversation_id == conversation_id
    finished, interrupted = conversation.turns
    assert (finished.question, finished.state) == ("Who?", "finished") and finished.report is not None
    assert (interrupted.question, interrupted.state, interrupted.report) == ("Why?", "interrupted", None)
    assert len(interrupted.answer) >= seen_a_second_ago
    # It goes on from there.
    assistant.wait_until_ready()
    answered(assistant, conversation, "And then?")
    assert [turn.state for turn in conversation.turns] == ["finished", "interrupted", "finished"]


def test_the_end_of_the_program_keeps_what_a_running_answer_has_said(open_assistant):
    assistant = open_assistant()
    conversation = assistant.new_conversation()
    for event in assistant.answer(conversation, "Who?", replace(OPTIONS, max_new_tokens=700)):
        if isinstance(event, TokenEvent) and event.answer.strip():
            break
    assistant.close()
    again = open_assistant(loaded=False)
    (turn,) = again.open_conversation().turns
    assert (turn.question, turn.state) == ("Who?", "interrupted") and turn.answer.startswith(event.answer)


def test_a_folder_whose_database_cannot_be_settled_is_said_and_read(open_assistant, monkeypatch):
    def full(*arguments):
        raise StorageFull("The disk is full. Free some space.")

    monkeypatch.setattr("app.store.conversation_store.ConversationStore.recover", full)
    assistant: Assistant = open_assistant(loaded=False)
    assert assistant.notice == "The disk is full. Free some space."
    assert assistant.open_conversation().turns == []
