"""A thousand documents and ten thousand turns: lists and searches stay quick.

What is measured is the time this process computes: others on the machine do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from app.store.conversation_store import ConversationStore
from app.store.database import Database
from app.store.document_store import DocumentStore

DOCUMENTS, PAGES, CONVERSATIONS, TURNS = 1000, 5, 1000, 10
LIST_S = 0.05
SEARCH_S = 0.3


@pytest.fixture(scope="module")
def full_database(tmp_path_factory):
    database = Database.open(tmp_path_factory.mktemp("many") / "data")
    words = [f"word{number:03x}" for number in range(0, 4000, 7)]
    with database.writing() as connection:

        def insert(table: str, columns: str, rows: list[tuple]) -> None:
            marks = ", ".join("?" * len(rows[0]))
            connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)

        insert(
            "documents",
            "number, document_id, name, file_name, suffix, state, file_bytes, added_at, last_used_at",
            [(n, f"{n:032x}", f"book {n}.pdf", f"book {n}.pdf", ".pdf", "read", 1, n, n) for n in range(DOCUMENTS)],
        )
        insert(
            "document_pages",
            "number, page_index, page_label, text",
            [
                (n, page, str(page + 1), "the harbour " + " ".join(words[(n + page) % 50 :: 9]))
                for n in range(DOCUMENTS)
                for page in range(PAGES)
            ],
        )
        insert(
            "conversations",
            "number, conversation_id, title, created_at, updated_at",
            [(n, f"{n:032x}", f"about {n}", n, n) for n in range(CONVERSATIONS)],
        )
        insert(
            "turns",
            "turn_id, conversation_number, parent_id, depth, question, answer, state, created_at",
            [
                (1 + n * TURNS + k, n, n * TURNS + k if k else None, k + 1, f"what {k}", "the sea", "finished", 1)
                for n in range(CONVERSATIONS)
                for k in range(TURNS)
            ],
        )
        connection.exec_driver_sql(f"UPDATE conversations SET active_turn_id = (number + 1) * {TURNS}")
        insert(
            "conversation_documents",
            "conversation_number, position, document_number, was_read",
            [(n, k, (n * 7 + k) % DOCUMENTS, 1) for n in range(CONVERSATIONS) for k in range(3)],
        )
    yield database
    database.close()


def quickest_s(action: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        begin = time.process_time()
        action()
        taken.append(time.process_time() - begin)
    return min(taken)


def test_lists(full_database):
    conversations, documents = ConversationStore(full_database), DocumentStore(full_database)
    assert len(conversations.summaries()) == CONVERSATIONS and len(documents.entries()) == DOCUMENTS
    assert conversations.summaries()[0].turns == TURNS and len(conversations.summaries()[0].document_names) == 3
    for action in (
        conversations.summaries,
        conversations.last_used,
        documents.entries,
        lambda: conversations.find(f"{500:032x}"),
        lambda: documents.pages(f"{500:032x}"),
        conversations.recover,
        lambda: conversations.summaries("about 77"),
    ):
        assert quickest_s(action) < LIST_S


@pytest.mark.parametrize("query", ["harbour", "the", "wo", "word1", "w", "the harbour word001", "sea what", "nowhere"])
def test_searches(full_database, query):
    conversations, documents = ConversationStore(full_database), DocumentStore(full_database)
    assert quickest_s(lambda: conversations.summaries(query)) < SEARCH_S
    assert quickest_s(lambda: documents.search(query)) < SEARCH_S
