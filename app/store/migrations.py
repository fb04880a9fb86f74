"""The database's tables, as the steps that have led to them.

A step that was ever released is never changed: what follows is a step more. Each is one transaction together with the
version that it leads to, so that a file is of one version or of the next. Knows nothing of what the rows are used for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

# Written into the file's header, which tells it from other programs' databases: "QCht".
APPLICATION_ID = 0x51436874

_TABLES = (
    """
    CREATE TABLE documents (
        number INTEGER PRIMARY KEY,
        document_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        file_name TEXT NOT NULL,
        suffix TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('reading', 'read', 'locked', 'failed', 'removing')),
        message TEXT NOT NULL DEFAULT '',
        page_count INTEGER NOT NULL DEFAULT 0,
        picture_pages TEXT NOT NULL DEFAULT '[]',
        unreadable_pages TEXT NOT NULL DEFAULT '[]',
        assumed_encoding TEXT NOT NULL DEFAULT '',
        file_bytes INTEGER NOT NULL,
        added_at REAL NOT NULL,
        last_used_at REAL NOT NULL
    )
    """,
    """
    CREATE TABLE document_pages (
        page_id INTEGER PRIMARY KEY,
        number INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        page_index INTEGER NOT NULL,
        page_label TEXT NOT NULL,
        text TEXT NOT NULL,
        UNIQUE (number, page_index)
    )
    """,
    """
    CREATE TABLE document_tokens (
        number INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        model TEXT NOT NULL,
        tokens INTEGER NOT NULL,
        is_exact INTEGER NOT NULL,
        PRIMARY KEY (number, model)
    )
    """,
    """
    CREATE TABLE conversations (
        number INTEGER PRIMARY KEY,
        conversation_id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL DEFAULT '',
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        active_turn_id INTEGER REFERENCES turns ON DELETE SET NULL,
        unanswered TEXT NOT NULL DEFAULT '',
        deleted_at REAL
    )
    """,
    """
    CREATE TABLE conversation_documents (
        conversation_number INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        position INTEGER NOT NULL,
        document_number INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        was_read INTEGER NOT NULL,
        PRIMARY KEY (conversation_number, document_number)
    )
    """,
    """
    CREATE TABLE turns (
        turn_id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation_number INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        parent_id INTEGER REFERENCES turns ON DELETE CASCADE,
        depth INTEGER NOT NULL,
        replaced_turn_id INTEGER,
        question TEXT NOT NULL,
        answer TEXT NOT NULL DEFAULT '',
        thinking TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL CHECK (state IN ('answering', 'finished', 'stopped', 'interrupted', 'failed')),
        report TEXT,
        token_ids BLOB NOT NULL DEFAULT x'',
        created_at REAL NOT NULL
    )
    """,
    "CREATE INDEX conversations_by_use ON conversations (updated_at)",
    "CREATE INDEX conversation_documents_by_document ON conversation_documents (document_number)",
    "CREATE INDEX turns_by_parent ON turns (conversation_number, parent_id)",
    # Deleting a turn looks for those that follow it, and for conversations where it is the active one.
    "CREATE INDEX turns_by_parent_alone ON turns (parent_id)",
    "CREATE INDEX conversations_by_active_turn ON conversations (active_turn_id)",
    "CREATE INDEX turns_in_the_making ON turns (state) WHERE state = 'answering'",
)


def _word_index(name: str, table: str, key: str, columns: Sequence[str]) -> tuple[str, ...]:
    """A full-text index of columns of a table, kept up to date by triggers.

    It holds no text of its own, so that what is removed must be told to it as it was indexed. Beginnings of words of
    two and three letters have an index of their own: so many words can begin with them that looking each up takes
    seconds.
    """
    listed = ", ".join(columns)
    old, new = (", ".join(f"indexed_text({row}.{column})" for column in columns) for row in ("old", "new"))
    insert = f"INSERT INTO {name} (rowid, {listed}) VALUES (new.{key}, {new});"
    delete = f"INSERT INTO {name} ({name}, rowid, {listed}) VALUES ('delete', old.{key}, {old});"
    changed = " OR ".join(f"old.{column} IS NOT new.{column}" for column in columns)
    return (
        f"CREATE VIRTUAL TABLE {name} USING fts5({listed}, content='', prefix='2 3', "
        "tokenize='unicode61 remove_diacritics 2')",
        f"CREATE TRIGGER {name}_inserted AFTER INSERT ON {table} BEGIN {insert} END",
        f"CREATE TRIGGER {name}_deleted AFTER DELETE ON {table} BEGIN {delete} END",
        f"CREATE TRIGGER {name}_updated AFTER UPDATE OF {listed} ON {table} WHEN {changed} BEGIN {delete} {insert} END",
        f"INSERT INTO {name} (rowid, {listed}) "
        f"SELECT {key}, {', '.join(f'indexed_text({column})' for column in columns)} FROM {table}",
    )


_SEARCH = (
    *_word_index("document_name_words", "documents", "number", ("name", "file_name")),
    *_word_index("document_page_words", "document_pages", "page_id", ("text",)),
    *_word_index("conversation_title_words", "conversations", "number", ("title",)),
    *_word_index("turn_words", "turns", "turn_id", ("question", "answer")),
)

# Which pages hold no text that can be trusted, and what reading a document has failed with.
_PAGE_FLAGS = (
    "ALTER TABLE documents ADD COLUMN garbled_pages TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE documents ADD COLUMN recognised_pages TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE documents ADD COLUMN failure TEXT NOT NULL DEFAULT ''",
)

WORD_INDEXES = ("document_name_words", "document_page_words", "conversation_title_words", "turn_words")

# From version 0, an empty file, to 1, to 2 ...
MIGRATIONS: tuple[tuple[str, ...], ...] = (_TABLES, _SEARCH, _PAGE_FLAGS)


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the tables in a file; 0 if it has none."""
    return connection.execute("PRAGMA user_version").fetchone()[0]


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """Take the steps that a file has not taken yet.

    Args:
        connection: to the file, without a transaction; knows the function `indexed_text`.
        migrations: the statements of each step.

    Raises:
        sqlite3.Error: if a step fails; the file is as it was after the step before.
    """
    for version in range(version_of(connection), len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
