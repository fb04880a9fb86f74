"""Conversations as they are kept: turns, branches, titles, what is left of interrupted answers, and the search."""

from __future__ import annotations

import threading
import time

import pytest

from app.errors import UserFacingError
from app.store.conversation_store import ConversationStore
from app.store.database import Database


def answered(conversations, conversation_id, parent, question, answer="An answer.", state="finished"):
    """A turn that came to its end; returns its id."""
    turn_id = conversations.begin_turn(conversation_id, parent, question)
    conversations.finish_turn(turn_id, answer, {"answer": answer}, (1, 2, 3), state)
    return turn_id


def questions(conversations, conversation_id):
    return [turn.question for turn in conversations.find(conversation_id).turns]


def test_a_turn_is_kept_as_it_was_given(conversations, database):
    conversation_id = conversations.create()
    turn_id = conversations.begin_turn(conversation_id, None, "Who kept\nthe light?")
    conversations.save_partial(turn_id, "The dau", (5, 49_151), "Let me think.")
    (turn,) = conversations.find(conversation_id).turns
    assert (turn.answer, turn.state, turn.token_ids) == ("The dau", "answering", (5, 49_151))
    assert (turn.thinking, turn.report) == ("Let me think.", None)
    report = {"answer": "The daughter.", "pages_read": [{"page_label": "iv", "share": 0.5}]}
    conversations.finish_turn(turn_id, "The daughter.", report, (5, 49_151, 128_255), "stopped")
    conversations.save_partial(turn_id, "too late", ())
    database.close()
    # As the next start finds it.
    database = Database.open(database.path.parent)
    (turn,) = ConversationStore(database).find(conversation_id).turns
    database.close()
    assert (turn.turn_id, turn.parent_id, turn.question) == (turn_id, None, "Who kept\nthe light?")
    assert (turn.answer, turn.state, turn.token_ids) == ("The daughter.", "stopped", (5, 49_151, 128_255))
    assert turn.report == report and turn.thinking == "Let me think."
    assert abs(turn.created_at - time.time()) < 60


def test_a_branch_is_begun_and_found_again(conversations):
    conversation_id = conversations.create()
    first = answered(conversations, conversation_id, None, "one")
    second = answered(conversations, conversation_id, first, "two")
    third = answered(conversations, conversation_id, second, "three")
    again = answered(conversations, conversation_id, first, "two, put better")
    assert questions(conversations, conversation_id) == ["one", "two, put better"]
    assert conversations.find(conversation_id).turns[1].siblings == (second, again)
    assert conversations.find(conversation_id).turns[0].siblings == (first,)
    conversations.select_turn(conversation_id, second)
    assert questions(conversations, conversation_id) == ["one", "two", "three"]
    conversations.select_turn(conversation_id, third)
    assert questions(conversations, conversation_id) == ["one", "two", "three"]
    assert [summary.turns for summary in conversations.summaries()] == [3]


def test_a_first_question_asked_anew_is_a_branch_too(conversations):
    conversation_id = conversations.create()
    first = answered(conversations, conversation_id, None, "one")
    other = answered(conversations, conversation_id, None, "one, put better")
    assert questions(conversations, conversation_id) == ["one, put better"]
    assert conversations.find(conversation_id).turns[0].siblings == (first, other)


def test_turns_of_another_conversation_are_refused(conversations):
    here, there = conversations.create(), conversations.create()
    turn_id = answered(conversations, there, None, "one")
    for attempt in (
        lambda: conversations.begin_turn(here, turn_id, "two"),
        lambda: conversations.select_turn(here, turn_id),
        lambda: conversations.begin_turn(here, 12_345, "two"),
        lambda: conversations.select_turn(here, 10**30),
    ):
        with pytest.raises(UserFacingError, match="no such turn"):
            attempt()
    with pytest.raises(UserFacingError, match="no such conversation"):
        conversations.begin_turn("f" * 32, None, "one")
    assert questions(conversations, here) == [] and questions(conversations, there) == ["one"]


def test_a_discarded_turn_leaves_its_question_and_what_was_active_before(conversations):
    conversation_id = conversations.create()
    turn_id = conversations.begin_turn(conversation_id, None, "one")
    conversations.discard_turn(turn_id)
    found = conversations.find(conversation_id)
    assert (found.turns, found.unanswered, found.title) == ((), "one", "")
    first = answered(conversations, conversation_id, None, "one, again")
    second = answered(conversations, conversation_id, first, "two")
    assert conversations.find(conversation_id).unanswered == ""
    conversations.discard_turn(conversations.begin_turn(conversation_id, None, "another beginning"))
    assert [turn.turn_id for turn in conversations.find(conversation_id).turns] == [first, second]
    assert conversations.find(conversation_id).unanswered == "another beginning"
    conversations.discard_turn(first)
    assert questions(conversations, conversation_id) == ["one, again", "two"]
    conversations.discard_turn(12_345)


def test_interrupted_answers_are_settled_at_the_next_start(conversations):
    conversation_id, other_id = conversations.create(), conversations.create()
    first = answered(conversations, conversation_id, None, "one")
    conversations.save_partial(conversations.begin_turn(conversation_id, first, "two"), "Half an ans", (1, 2))
    conversations.begin_turn(other_id, None, "never begun")
    assert conversations.recover() == 2
    assert conversations.recover() == 0
    turn = conversations.find(conversation_id).turns[-1]
    assert (turn.state, turn.answer, turn.token_ids) == ("interrupted", "Half an ans", (1, 2))
    assert conversations.find(conversation_id).turns[0].state == "finished"
    assert conversations.find(other_id).turns == ()
    assert conversations.find(other_id).unanswered == "never begun"


def test_a_thought_without_an_answer_is_kept(conversations):
    conversation_id = conversations.create()
    conversations.save_partial(conversations.begin_turn(conversation_id, None, "one"), "", (), "I wonder")
    conversations.recover()
    assert conversations.find(conversation_id).turns[0].thinking == "I wonder"


def test_the_first_question_names_a_conversation(conversations):
    conversation_id = conversations.create()
    first = answered(conversations, conversation_id, None, "  Who kept\n the light " + "in the long winter " * 10)
    answered(conversations, conversation_id, first, "And then?")
    title = conversations.find(conversation_id).title
    assert 60 < len(title) <= 80 and title.endswith("…")
    assert ("Who kept the light " + "in the long winter " * 10).startswith(title[:-1] + " ")
    conversations.rename(conversation_id, " The\tlight\u202e ")
    answered(conversations, conversation_id, first, "What else?")
    assert conversations.find(conversation_id).title == "The light"
    with pytest.raises(UserFacingError, match="cannot be empty"):
        conversations.rename(conversation_id, " \n\u200b ")


def test_the_list_has_what_holds_something_the_last_used_first(conversations, add_document):
    add_document("d" * 32, "harbour.txt", "The harbour lay still.")
    empty, asked, with_document = conversations.create(), conversations.create(), conversations.create()
    conversations.set_documents(with_document, [("d" * 32, False), ("unknown", True)])
    answered(conversations, asked, None, "one")
    summaries = conversations.summaries()
    assert [summary.conversation_id for summary in summaries] == [asked, with_document]
    assert [summary.turns for summary in summaries] == [1, 0]
    assert summaries[1].document_names == ("harbour.txt",)
    assert conversations.last_used() == [asked, with_document, empty]


def test_documents_keep_their_order_and_whether_they_were_read(conversations, documents, add_document):
    for letter in "abc":
        add_document(letter * 32, f"{letter}.txt", "Text.")
    conversation_id = conversations.create()
    conversations.set_documents(conversation_id, [("c" * 32, True), ("a" * 32, False), ("c" * 32, False)])
    found = conversations.find(conversation_id).documents
    assert [(document.document_id[0], document.was_read) for document in found] == [("c", True), ("a", False)]
    documents.remove("c" * 32)
    assert [document.document_id[0] for document in conversations.find(conversation_id).documents] == ["a"]


def test_deleted_conversations_come_back_until_they_are_purged(conversations):
    conversation_id = conversations.create()
    answered(conversations, conversation_id, None, "one")
    conversations.delete(conversation_id)
    assert conversations.find(conversation_id) is None
    assert conversations.summaries() == [] and conversations.last_used() == []
    with pytest.raises(UserFacingError, match="no such conversation"):
        conversations.begin_turn(conversation_id, None, "two")
    conversations.undelete(conversation_id)
    assert questions(conversations, conversation_id) == ["one"]
    conversations.delete(conversation_id)
    conversations.purge_deleted(older_than_s=60)
    conversations.undelete(conversation_id)
    conversations.delete(conversation_id)
    conversations.purge_deleted(older_than_s=0)
    with pytest.raises(UserFacingError, match="gone for good"):
        conversations.undelete(conversation_id)
    assert conversations.summaries("one") == []


def test_purging_takes_old_empty_conversations_along(conversations):
    empty, asked, unanswered = conversations.create(), conversations.create(), conversations.create()
    answered(conversations, asked, None, "one")
    conversations.discard_turn(conversations.begin_turn(unanswered, None, "what?"))
    conversations.purge_deleted(older_than_s=0)
    assert set(conversations.last_used()) == {asked, unanswered}
    assert conversations.find(empty) is None


def test_conversations_are_found_by_their_words(conversations, add_document):
    add_document("d" * 32, "Ärger im Hafen.pdf", "Text.")
    conversation_id, other_id = conversations.create(), conversations.create()
    turn_id = answered(conversations, conversation_id, None, "Who kept the lighthouse?", "Die Töchter des Wärters.")
    answered(conversations, other_id, None, "Something else", "灯台守は毎晩起きていた。")
    conversations.set_documents(other_id, [("d" * 32, True)])

    def found(search):
        return [summary.conversation_id for summary in conversations.summaries(search)]

    assert found("LIGHT") == found("tochter") == found("who  töchter") == [conversation_id]
    assert found("毎晩") == found("arger hafen") == found("else") == [other_id]
    assert found("lighthouse else") == found("?!") == []
    assert len(found("")) == len(found("   ")) == 2
    conversations.rename(conversation_id, "Winter nights")
    assert found("winter") == [conversation_id]
    answered(conversations, conversation_id, turn_id, "More", "Маяк светил")
    assert found("маяк") == [conversation_id]


OPERATORS = '" "" \' NEAR( OR NOT AND x* * ^x question:x -x ( ) + {a}:b \\ % _ ; -- \0 a\0b \ud800 🦊 \u202e'.split(" ")


@pytest.mark.parametrize(
    "search", [*OPERATORS, "a OR b", "x AND", "NEAR(a b, 3)", ";DROP TABLE turns;--", "x" * 100_000, "x " * 5000]
)
def test_hostile_searches_are_harmless(conversations, documents, search):
    conversation_id = conversations.create()
    answered(conversations, conversation_id, None, "one")
    conversations.summaries(search)
    documents.search(search)
    assert len(conversations.summaries()) == 1


@pytest.mark.parametrize("nonsense", ["", "\ud800", "\0", "x" * 100_000, "' OR 1=1 --"])
def test_ids_from_an_address_are_harmless(conversations, documents, nonsense):
    conversations.create()
    assert conversations.find(nonsense) is None and documents.entry(nonsense) is None
    assert documents.suffix(nonsense) is None
    conversations.delete(nonsense)
    for attempt in (
        lambda: conversations.rename(nonsense, "x"),
        lambda: conversations.begin_turn(nonsense, None, "x"),
        lambda: conversations.undelete(nonsense),
        lambda: conversations.set_documents(nonsense, [(nonsense, True)]),
    ):
        with pytest.raises(UserFacingError):
            attempt()
    assert len(conversations.last_used()) == 1


@pytest.mark.parametrize("text", ["\0nul\0", "half \ud800 a character", "x" * 1_000_000, "\u202eturned", "a\r\nb"])
def test_texts_from_anywhere_are_kept(conversations, text):
    conversation_id = conversations.create()
    turn_id = answered(conversations, conversation_id, None, text, text)
    conversations.save_partial(conversations.begin_turn(conversation_id, turn_id, text), text, (), text)
    conversations.discard_turn(conversations.begin_turn(conversation_id, turn_id, text))
    conversations.rename(conversation_id, f"name {text}")
    turn = conversations.find(conversation_id).turns[0]
    assert turn.question == turn.answer == text.replace("\ud800", "?")
    assert len(conversations.find(conversation_id).title) <= 200


def test_many_threads_write_at_once(conversations, database):
    ids = [conversations.create() for _ in range(4)]
    errors = []

    def talk(conversation_id):
        try:
            parent = None
            for number in range(8):
                turn_id = conversations.begin_turn(conversation_id, parent, f"question {number}")
                conversations.save_partial(turn_id, "half", (1,))
                conversations.finish_turn(turn_id, f"answer {number}", {}, (1, 2))
                assert conversations.find(conversation_id).turns
                conversations.summaries("answer")
                parent = turn_id
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=talk, args=(ids[number % 4],)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [len(conversations.find(conversation_id).turns) for conversation_id in ids] == [8] * 4
    assert database.faults() == []
