"""Conversations in the database: written as they happen, found again after whatever ends the process.

Each method is one transaction: when it returns, what it was given is on the disk. Knows nothing of models or tabs;
who may change a conversation at a time is its caller's affair.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from app.errors import UserFacingError
from app.store.conversation_rows import (
    branch_to,
    depth_of,
    discard,
    number_of,
    packed,
    touch,
    turns_of,
)
from app.store.database import Database
from app.store.search_words import match_expression
from app.store.stored_conversation import (
    ConversationSummary,
    StoredConversation,
    StoredDocument,
    StoredTurn,
    TurnState,
)
from app.store.stored_text import one_line, storable, title_of

# From a turn down all branches.
_DESCENDANTS = """
WITH RECURSIVE later (turn_id) AS (
    SELECT ?
    UNION ALL
    SELECT turns.turn_id FROM turns JOIN later ON turns.parent_id = later.turn_id
)
"""
# What was deleted, and what never held anything.
_GONE = """
deleted_at <= ? OR updated_at <= ? AND unanswered = ''
AND NOT EXISTS (SELECT 1 FROM turns WHERE conversation_number = conversations.number)
AND NOT EXISTS (SELECT 1 FROM conversation_documents WHERE conversation_number = conversations.number)
"""
_FOUND_CONVERSATIONS = """
AND conversations.number IN (
    SELECT rowid FROM conversation_title_words WHERE conversation_title_words MATCH :query
    UNION
    SELECT conversation_number FROM turns
    WHERE turn_id IN (SELECT rowid FROM turn_words WHERE turn_words MATCH :query)
    UNION
    SELECT conversation_number FROM conversation_documents
    WHERE document_number IN (SELECT rowid FROM document_name_words WHERE document_name_words MATCH :query)
)
"""


class ConversationStore:
    """The conversations of a database.

    Args:
        database: open for writing, unless only methods that read are called.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> str:
        """Begin a conversation; returns its id."""
        conversation_id, now = uuid.uuid4().hex, time.time()
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "INSERT INTO conversations (conversation_id, created_at, updated_at) VALUES (?, ?, ?)",
                (conversation_id, now, now),
            )
        return conversation_id

    def find(self, conversation_id: str) -> StoredConversation | None:
        """A conversation with its active branch; None if there is none of that id, or it is deleted."""
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(
                "SELECT number, title, unanswered, created_at, updated_at, active_turn_id FROM conversations "
                "WHERE conversation_id = ? AND deleted_at IS NULL",
                (storable(conversation_id),),
            ).first()
            if row is None:
                return None
            documents = connection.exec_driver_sql(
                "SELECT document_id, was_read FROM conversation_documents "
                "JOIN documents ON documents.number = document_number "
                "WHERE conversation_number = ? ORDER BY position",
                (row.number,),
            ).all()
            turns = branch_to(connection, row.number, row.active_turn_id)
        return StoredConversation(
            conversation_id,
            row.title,
            tuple(StoredDocument(document_id, bool(was_read)) for document_id, was_read in documents),
            turns,
            row.unanswered,
            row.created_at,
            row.updated_at,
        )

    def all_turns(self, conversation_id: str) -> tuple[StoredTurn, ...]:
        """The turns of all branches of a conversation, in the order they were asked."""
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(
                "SELECT number FROM conversations WHERE conversation_id = ? AND deleted_at IS NULL",
                (storable(conversation_id),),
            ).first()
            if row is None:
                return ()
            return turns_of(connection, row.number)

    def last_used(self) -> list[str]:
        """Ids of all conversations that are not deleted, the one used last first."""
        with self._database.reading() as connection:
            return list(
                connection.exec_driver_sql(
                    "SELECT conversation_id FROM conversations WHERE deleted_at IS NULL "
                    "ORDER BY updated_at DESC, number DESC"
                ).scalars()
            )

    def summaries(self, search: str = "") -> list[ConversationSummary]:
        """The conversations that have a turn or a document, the one used last first.

        Args:
            search: only those whose title, documents' names or turns have words that begin with all of its words; if it
                has no word, as "?!" has none, nothing is found. "" asks for all.
        """
        query = match_expression(search)
        if search.strip() and not query:
            return []
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(
                f"""
                SELECT conversations.number, conversation_id, title, updated_at, coalesce(turns.depth, 0) AS turns
                FROM conversations LEFT JOIN turns ON turns.turn_id = active_turn_id
                WHERE deleted_at IS NULL
                AND (
                    EXISTS (SELECT 1 FROM turns WHERE conversation_number = conversations.number)
                    OR EXISTS (SELECT 1 FROM conversation_documents WHERE conversation_number = conversations.number)
                )
                {_FOUND_CONVERSATIONS if query else ""}
                ORDER BY updated_at DESC, conversations.number DESC
                """,
                {"query": query} if query else {},
            ).all()
            names: dict[int, list[str]] = {}
            for number, name in connection.exec_driver_sql(
                "SELECT conversation_number, name FROM conversation_documents "
                "JOIN documents ON documents.number = document_number ORDER BY conversation_number, position"
            ):
                names.setdefault(number, []).append(name)
        return [
            ConversationSummary(
                row.conversation_id, row.title, row.updated_at, row.turns, tuple(names.get(row.number, ()))
            )
            for row in rows
        ]

    def document_counts(self) -> dict[str, int]:
        """How many conversations have each document, by its id; those that no conversation has are left out."""
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT document_id, count(*) FROM conversation_documents "
                "JOIN documents ON documents.number = document_number "
                "JOIN conversations ON conversations.number = conversation_number "
                "WHERE deleted_at IS NULL GROUP BY document_id"
            )
            return {document_id: count for document_id, count in rows}

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation a title.

        Raises:
            UserFacingError: an empty title, or no such conversation.
        """
        if not (title := one_line(title)):
            raise UserFacingError("A conversation's name cannot be empty. Type one.")
        with self._database.writing() as connection:
            number_of(connection, conversation_id)
            connection.exec_driver_sql(
                "UPDATE conversations SET title = ? WHERE conversation_id = ?", (title, conversation_id)
            )

    def delete(self, conversation_id: str) -> None:
        """Hide a conversation until `undelete` or `purge_deleted`; unknown ids are ignored."""
        self._set_deleted(conversation_id, time.time())

    def undelete(self, conversation_id: str) -> None:
        """Bring a deleted conversation back.

        Raises:
            UserFacingError: if it has gone for good.
        """
        if not self._set_deleted(conversation_id, None):
            raise UserFacingError("The deleted conversation cannot be brought back: it has gone for good.")

    def purge_deleted(self, older_than_s: float) -> None:
        """Remove for good what was deleted so long ago, and what was begun so long ago and never held anything."""
        before = time.time() - older_than_s
        if self._database.finds(f"SELECT 1 FROM conversations WHERE {_GONE}", (before, before)):
            with self._database.writing() as connection:
                connection.exec_driver_sql(f"DELETE FROM conversations WHERE {_GONE}", (before, before))

    def set_documents(self, conversation_id: str, documents: Sequence[tuple[str, bool]]) -> None:
        """Say which documents a conversation has.

        Args:
            conversation_id: of the conversation.
            documents: ids in order, each with whether it was read there. Those that the library does not have are left
                out.

        Raises:
            UserFacingError: no such conversation.
        """
        with self._database.writing() as connection:
            number = number_of(connection, conversation_id)
            connection.exec_driver_sql("DELETE FROM conversation_documents WHERE conversation_number = ?", (number,))
            for position, (document_id, was_read) in enumerate(documents):
                connection.exec_driver_sql(
                    "INSERT OR IGNORE INTO conversation_documents "
                    "(conversation_number, position, document_number, was_read) "
                    "SELECT ?, ?, number, ? FROM documents WHERE document_id = ? AND state <> 'removing'",
                    (number, position, int(was_read), storable(document_id)),
                )
            touch(connection, number)

    def forget_reads(self) -> None:
        """Note of all documents, in all conversations, that they were not read: the model is another."""
        with self._database.writing() as connection:
            connection.exec_driver_sql("UPDATE conversation_documents SET was_read = 0 WHERE was_read")

    def begin_turn(self, conversation_id: str, parent_turn_id: int | None, question: str) -> int:
        """Keep a question whose answer begins now; its branch becomes the active one.

        The first question of a conversation without a title becomes its title. The conversation's documents count as
        used.

        Args:
            conversation_id: of the conversation.
            parent_turn_id: the turn it follows; None if it comes first.
            question: its text.

        Returns:
            The turn's id; its state is "answering".

        Raises:
            UserFacingError: no such conversation, or no such turn in it.
        """
        now = time.time()
        with self._database.writing() as connection:
            number = number_of(connection, conversation_id)
            depth = 1 + depth_of(connection, number, parent_turn_id)
            replaced, title = connection.exec_driver_sql(
                "SELECT active_turn_id, title FROM conversations WHERE number = ?", (number,)
            ).one()
            turn_id = connection.exec_driver_sql(
                "INSERT INTO turns (conversation_number, parent_id, depth, replaced_turn_id, question, state, "
                "created_at) VALUES (?, ?, ?, ?, ?, 'answering', ?)",
                (number, parent_turn_id, depth, replaced, storable(question), now),
            ).lastrowid
            connection.exec_driver_sql(
                "UPDATE conversations SET active_turn_id = ?, unanswered = '', title = ? WHERE number = ?",
                (turn_id, title or title_of(question), number),
            )
            touch(connection, number)
            connection.exec_driver_sql(
                "UPDATE documents SET last_used_at = ? WHERE number IN "
                "(SELECT document_number FROM conversation_documents WHERE conversation_number = ?)",
                (now, number),
            )
        return turn_id

    def reopen_turn(self, turn_id: int) -> None:
        """An answer goes on that had come to its end; its words and its report stay until others are saved."""
        with self._database.writing() as connection:
            connection.exec_driver_sql("UPDATE turns SET state = 'answering' WHERE turn_id = ?", (turn_id,))

    def save_partial(self, turn_id: int, answer: str, token_ids: Sequence[int], thinking: str = "") -> None:
        """Keep an answer as far as it has come; a turn that is not "answering" any more stays as it is."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE turns SET answer = ?, token_ids = ?, thinking = ? WHERE turn_id = ? AND state = 'answering'",
                (storable(answer), packed(token_ids), storable(thinking), turn_id),
            )

    def finish_turn(
        self,
        turn_id: int,
        answer: str,
        report: dict[str, Any] | None,
        token_ids: Sequence[int],
        state: TurnState = "finished",
        thinking: str | None = None,
    ) -> None:
        """Keep an answer that has come to its end.

        Args:
            turn_id: of the turn.
            answer: the whole text.
            report: how it was made, as JSON takes it.
            token_ids: of the answer.
            state: how it ended.
            thinking: None leaves what `save_partial` has kept.
        """
        values = (
            storable(answer),
            None if report is None else json.dumps(report),
            packed(token_ids),
            state,
            None if thinking is None else storable(thinking),
        )
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE turns SET answer = ?, report = ?, token_ids = ?, state = ?, thinking = coalesce(?, thinking) "
                "WHERE turn_id = ?",
                (*values, turn_id),
            )
            number = connection.exec_driver_sql(
                "SELECT conversation_number FROM turns WHERE turn_id = ?", (turn_id,)
            ).scalar()
            if number is not None:
                touch(connection, number)

    def discard_turn(self, turn_id: int) -> None:
        """Take back a turn without a word of an answer: what was active before is active again.

        Its question is kept as the conversation's `unanswered`. Unknown turns, and those that others follow, are
        ignored.
        """
        with self._database.writing() as connection:
            discard(connection, turn_id)

    def select_turn(self, conversation_id: str, turn_id: int) -> None:
        """Make the branch through a turn the active one, down to the latest turn that came of it.

        Raises:
            UserFacingError: no such conversation, or no such turn in it.
        """
        with self._database.writing() as connection:
            number = number_of(connection, conversation_id)
            depth_of(connection, number, turn_id)
            last = connection.exec_driver_sql(f"{_DESCENDANTS} SELECT max(turn_id) FROM later", (turn_id,)).scalar()
            connection.exec_driver_sql(
                "UPDATE conversations SET active_turn_id = ?, unanswered = '' WHERE number = ?", (last, number)
            )
            touch(connection, number)

    def recover(self) -> int:
        """Settle the turns that an ended process was still answering; call before any is begun.

        What was said stays, as "interrupted". A turn without a word is discarded, see `discard_turn`.

        Returns:
            How many there were.
        """
        if not self._database.finds("SELECT 1 FROM turns WHERE state = 'answering'"):
            return 0
        with self._database.writing() as connection:
            begun = connection.exec_driver_sql("SELECT turn_id, answer, thinking FROM turns WHERE state = 'answering'")
            found = begun.all()
            for turn_id, answer, thinking in found:
                if (answer or thinking).strip() or not discard(connection, turn_id):
                    connection.exec_driver_sql("UPDATE turns SET state = 'interrupted' WHERE turn_id = ?", (turn_id,))
        return len(found)

    def _set_deleted(self, conversation_id: str, deleted_at: float | None) -> bool:
        with self._database.writing() as connection:
            updated = connection.exec_driver_sql(
                "UPDATE conversations SET deleted_at = ? WHERE conversation_id = ?",
                (deleted_at, storable(conversation_id)),
            )
            return updated.rowcount > 0
