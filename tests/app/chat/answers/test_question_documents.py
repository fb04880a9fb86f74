"""Which documents a question is asked of while some are still being read."""

from __future__ import annotations

import pytest

from app.chat.answers.answer import DocumentReading
from app.chat.answers.question_documents import JUST_ADDED_S, QuestionDocuments, choose_documents
from app.errors import UserFacingError
from app.library import LibraryEntry

NOW = 1000.0


def entry(document_id, state="read", message="", added_at=0.0, progress=None):
    name = f"{document_id}.pdf"
    return LibraryEntry(
        document_id, name, name, state, progress, message, 1, (), (), "", 100, added_at, added_at
    )  # fmt: skip


def choose(*entries, read=(), quick=(), waits_for_all=False):
    return choose_documents(entries, set(read), set(quick).__contains__, waits_for_all, NOW)


def test_what_was_read_is_used_and_the_rest_is_named():
    chosen = choose(entry("a"), entry("b"), entry("c", "reading"), read=["b"])
    assert chosen == QuestionDocuments(("b",), ("a.pdf", "c.pdf"))


def test_short_ones_are_read_with_the_question():
    assert choose(entry("a"), entry("b"), read=["b"], quick=["a"]) == QuestionDocuments(("a", "b"))


def test_where_none_was_read_the_first_one_is_read_with_the_question():
    assert choose(entry("a", "reading"), entry("b"), entry("c")) == QuestionDocuments(("b",), ("a.pdf", "c.pdf"))


def test_without_any_text_the_question_waits():
    assert choose(entry("a", "reading", progress=0.4), entry("b", "locked")) == DocumentReading("a.pdf", 0.4)


def test_who_has_just_added_one_means_it():
    fresh, older = entry("b", "reading", added_at=NOW - 0.1), entry("b", "reading", added_at=NOW - JUST_ADDED_S)
    assert choose(entry("a"), fresh, read=["a"]) == DocumentReading("b.pdf", None)
    assert choose(entry("a"), older, read=["a"]) == QuestionDocuments(("a",), ("b.pdf",))


def test_the_terminal_waits_for_all():
    assert choose(entry("a"), entry("b", "reading"), waits_for_all=True) == DocumentReading("b.pdf", None)
    assert choose(entry("a"), entry("b"), waits_for_all=True) == QuestionDocuments(("a", "b"))


def test_what_cannot_be_read_is_said_and_stops_only_what_has_nothing_else():
    locked = entry("b", "locked", "b.pdf is locked.")
    assert choose(entry("a"), locked, read=["a"]) == QuestionDocuments(("a",), (), ("b.pdf is locked.",))
    with pytest.raises(UserFacingError, match="b.pdf is locked"):
        choose(locked)


def test_without_documents_there_are_none():
    assert choose() == QuestionDocuments(())
