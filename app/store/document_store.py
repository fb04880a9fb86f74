"""The library's documents in the database: their rows, the text of their pages, and the search in both.

Knows nothing of files, of reading, or of what is under way: `app.library.library` does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from app.library.document import Document, DocumentPage
from app.library.library_entry import EntryState, LibraryEntry, LibraryHit
from app.store.data_folder import StorageError, StorageFull
from app.store.database import Database
from app.store.search_words import match_expression, snippet
from app.store.stored_text import storable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# Pages are written in pieces, so that an answer that is saved meanwhile waits for one of them only.
_PIECE_CHARACTERS = 200_000
# And removed in pieces: rows of pages, and free pages of the file.
_REMOVED_ROWS = 200
_VACUUMED_PAGES = 256
_MOST_HITS = 50
_HITS_OF_A_DOCUMENT = 3
# Of the pages that have the words so many are looked at, the best first.
_RANKED_PAGES = 500
# In the order of LibraryEntry's fields.
_ENTRY_COLUMNS = (
    "document_id, name, file_name, state, NULL AS progress, message, page_count, picture_pages, unreadable_pages, "
    "assumed_encoding, file_bytes, added_at, last_used_at, garbled_pages, recognised_pages, failure"
)


class DocumentStore:
    """The documents of a database.

    Args:
        database: open for writing, unless only methods that read are called.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, document_id: str, name: str, file_name: str, suffix: str, file_bytes: int) -> None:
        """Add a document that is to be read; one that is there already is to be read anew, under this name."""
        now = time.time()
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "INSERT INTO documents (document_id, name, file_name, suffix, state, file_bytes, added_at, "
                "last_used_at) VALUES (?, ?, ?, ?, 'reading', ?, ?, ?) ON CONFLICT (document_id) DO UPDATE SET "
                "name = excluded.name, file_name = excluded.file_name, suffix = excluded.suffix, state = 'reading', "
                "message = '', last_used_at = excluded.last_used_at",
                (document_id, storable(name), storable(file_name), suffix, file_bytes, now, now),
            )

    def entries(self) -> list[LibraryEntry]:
        """All documents, the one used last first."""
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(
                f"SELECT {_ENTRY_COLUMNS} FROM documents WHERE state <> 'removing' "
                "ORDER BY last_used_at DESC, number DESC"
            ).all()
        return [_entry(row) for row in rows]

    def entry(self, document_id: str) -> LibraryEntry | None:
        """One document; None if it is not there."""
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(
                f"SELECT {_ENTRY_COLUMNS} FROM documents WHERE document_id = ? AND state <> 'removing'",
                (storable(document_id),),
            ).first()
        return None if row is None else _entry(row)

    def suffix(self, document_id: str) -> str | None:
        """The ending of a document's file, also of one that is being removed; None if it is not there."""
        with self._database.reading() as connection:
            return connection.exec_driver_sql(
                "SELECT suffix FROM documents WHERE document_id = ?", (storable(document_id),)
            ).scalar()

    def ids(self, state: str = "") -> list[str]:
        """Ids of the documents in a state, "removing" is one, in the order they were added; "" asks for all."""
        with self._database.reading() as connection:
            return list(
                connection.exec_driver_sql(
                    "SELECT document_id FROM documents WHERE ? IN ('', state) ORDER BY number", (state,)
                ).scalars()
            )

    def set_state(self, document_id: str, state: EntryState | str, message: str = "", failure: str = "") -> None:
        """Say how a document is, and what its reading has failed with; unknown ids are ignored."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE documents SET state = ?, message = ?, failure = ? WHERE document_id = ?",
                (state, storable(message), failure, document_id),
            )

    def set_used(self, document_id: str) -> None:
        """Say that a document is used now."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE documents SET last_used_at = ? WHERE document_id = ?", (time.time(), document_id)
            )

    def rename(self, document_id: str, name: str) -> None:
        """Give a document the name that people see."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE documents SET name = ? WHERE document_id = ?", (storable(name), document_id)
            )

    def set_names(self, document_id: str, name: str, file_name: str) -> None:
        """Give a document the name that people see, and that which goes into prompts."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE documents SET name = ?, file_name = ? WHERE document_id = ?",
                (storable(name), storable(file_name), document_id),
            )

    def set_read(self, document_id: str, document: Document) -> bool:
        """Keep the text of a document, in several transactions; the last of them makes its state "read".

        Returns:
            False if it is not "reading" any more, because it is being removed; nothing is kept of it then.
        """
        for piece in _pieces(document):
            with self._database.writing() as connection:
                number = _number_to_read(connection, document_id)
                if number is None:
                    return False
                _write_pages(connection, number, piece)
        with self._database.writing() as connection:
            number = _number_to_read(connection, document_id)
            if number is None:
                return False
            _write_result(connection, number, document)
        self._database.write_back()
        return True

    def replace_text(self, document_id: str, document: Document) -> bool:
        """Keep another text of a document, which is read then; all at once, so that nobody sees a part of it.

        Returns:
            False if it is not there any more, or is being removed; nothing is kept of it then.
        """
        with self._database.writing() as connection:
            number = connection.exec_driver_sql(
                "SELECT number FROM documents WHERE document_id = ? AND state <> 'removing'", (document_id,)
            ).scalar()
            if number is None:
                return False
            _write_pages(connection, number, document.document_pages)
            _write_result(connection, number, document)
        self._database.write_back()
        return True

    def pages(self, document_id: str) -> tuple[DocumentPage, ...]:
        """The pages of a document that is read, in order."""
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT page_index, page_label, text FROM document_pages JOIN documents USING (number) "
                "WHERE document_id = ? ORDER BY page_index",
                (document_id,),
            ).all()
        return tuple(DocumentPage(*row) for row in rows)

    def remove(self, document_id: str) -> None:
        """Remove a document with its pages, its tokens and what search knows of it, also out of conversations.

        In several transactions: call `set_state(document_id, "removing")` before, should the process end meanwhile.
        On a full disk they are small ones: to remove something takes space, too, for a moment.
        """
        rows = _REMOVED_ROWS
        while rows:
            try:
                with self._database.writing() as connection:
                    removed = connection.exec_driver_sql(
                        "DELETE FROM document_pages WHERE page_id IN (SELECT page_id FROM document_pages "
                        "JOIN documents USING (number) WHERE document_id = ? LIMIT ?)",
                        (document_id, rows),
                    ).rowcount
                    if removed == 0:
                        connection.exec_driver_sql("DELETE FROM documents WHERE document_id = ?", (document_id,))
                        break
            except StorageFull:
                if rows == 1:
                    raise
                rows = max(1, rows // 8)
            if rows < _REMOVED_ROWS:
                self._database.write_back()
        self._give_space_back()

    def _give_space_back(self) -> None:
        """Make the file smaller by what is not used of it; the next removal does what fails now."""
        self._database.write_back()
        step, left = _VACUUMED_PAGES, None
        while step and left != 0:
            try:
                with self._database.writing() as connection:
                    # One page with each row of the result, which has no columns: SQLAlchemy would fetch none of them.
                    vacuum = f"PRAGMA incremental_vacuum({step})"
                    connection.connection.driver_connection.execute(vacuum).fetchall()
                    before, left = left, connection.exec_driver_sql("PRAGMA freelist_count").scalar()
                    if left == before:
                        break
            except StorageError:
                step //= 8
            self._database.write_back()

    def set_tokens(self, document_id: str, model: str, tokens: int, is_exact: bool) -> None:
        """Keep how many tokens a document has for a model."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "INSERT OR REPLACE INTO document_tokens (number, model, tokens, is_exact) "
                "SELECT number, ?, ?, ? FROM documents WHERE document_id = ?",
                (model, tokens, int(is_exact), document_id),
            )

    def tokens(self, document_id: str, model: str) -> tuple[int, bool] | None:
        """Tokens of a document for a model, and whether they were counted exactly; None if nobody has counted."""
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(
                "SELECT tokens, is_exact FROM document_tokens JOIN documents USING (number) "
                "WHERE document_id = ? AND model = ?",
                (document_id, model),
            ).first()
        return None if row is None else (row.tokens, bool(row.is_exact))

    def all_tokens(self, model: str) -> dict[str, tuple[int, bool]]:
        """Of each document that was counted for a model: its tokens, and whether they are exact."""
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT document_id, tokens, is_exact FROM document_tokens JOIN documents USING (number) "
                "WHERE model = ?",
                (model,),
            ).all()
        return {row.document_id: (row.tokens, bool(row.is_exact)) for row in rows}

    def search(self, text: str) -> list[LibraryHit]:
        """Pages that have all words of `text`, or words that begin with them, the best first.

        Documents whose name has them come before, of which the page is "". Nothing is found if `text` has no word.
        """
        query = match_expression(text)
        if not query:
            return []
        with self._database.reading() as connection:
            named = connection.exec_driver_sql(
                "SELECT document_id, name FROM documents WHERE state <> 'removing' AND number IN "
                "(SELECT rowid FROM document_name_words WHERE document_name_words MATCH ?) "
                "ORDER BY last_used_at DESC LIMIT ?",
                (query, _MOST_HITS),
            ).all()
            ranked = connection.exec_driver_sql(
                "SELECT document_id, page_id, name, page_label FROM "
                "(SELECT rowid AS page_id, rank FROM document_page_words WHERE document_page_words MATCH ? "
                "ORDER BY rank LIMIT ?) JOIN document_pages USING (page_id) JOIN documents USING (number) "
                "WHERE state = 'read' ORDER BY rank",
                (query, _RANKED_PAGES),
            ).all()
            hits = [LibraryHit(document_id, name, "", "") for document_id, name in named]
            counts: dict[str, int] = {}
            for document_id, page_id, name, page_label in ranked:
                counts[document_id] = counts.get(document_id, 0) + 1
                if len(hits) == _MOST_HITS or counts[document_id] > _HITS_OF_A_DOCUMENT:
                    continue
                page_text = connection.exec_driver_sql(
                    "SELECT text FROM document_pages WHERE page_id = ?", (page_id,)
                ).scalar()
                hits.append(LibraryHit(document_id, name, page_label, snippet(page_text, text)))
        return hits


def _entry(row: Row) -> LibraryEntry:
    *before, pictures, unreadable, encoding, file_bytes, added_at, last_used_at, garbled, recognised, failure = row
    return LibraryEntry(
        *before,
        _labels(pictures),
        _labels(unreadable),
        encoding,
        file_bytes,
        added_at,
        last_used_at,
        _labels(garbled),
        _labels(recognised),
        failure,
    )


def _labels(kept: str) -> tuple[str, ...]:
    # Nearly always there are none, and a list has a thousand documents.
    try:
        return () if kept == "[]" else tuple(map(str, json.loads(kept)))
    except (ValueError, TypeError):
        # A flipped bit; the text can be read all the same.
        return ()


def _number_to_read(connection: Connection, document_id: str) -> int | None:
    return connection.exec_driver_sql(
        "SELECT number FROM documents WHERE document_id = ? AND state = 'reading'", (document_id,)
    ).scalar()


def _write_pages(connection: Connection, number: int, pages: Sequence[DocumentPage]) -> None:
    """Write a piece of a document's pages; the first one takes the place of all that were there."""
    if pages[0].index == 0:
        connection.exec_driver_sql("DELETE FROM document_pages WHERE number = ?", (number,))
    connection.exec_driver_sql(
        "INSERT INTO document_pages (number, page_index, page_label, text) VALUES (?, ?, ?, ?)",
        [(number, page.index, storable(page.page_label), storable(page.text)) for page in pages],
    )


def _write_result(connection: Connection, number: int, document: Document) -> None:
    """Say that a document is read, and what of it could not be."""
    connection.exec_driver_sql(
        "UPDATE documents SET state = 'read', message = '', failure = '', page_count = ?, picture_pages = ?, "
        "unreadable_pages = ?, assumed_encoding = ?, garbled_pages = ?, recognised_pages = ? WHERE number = ?",
        (
            document.page_count,
            json.dumps(document.picture_pages),
            json.dumps(document.unreadable_pages),
            document.assumed_encoding,
            json.dumps(document.garbled_pages),
            json.dumps(document.recognised_pages),
            number,
        ),
    )
    # What was counted and read of it before was another text.
    connection.exec_driver_sql("DELETE FROM document_tokens WHERE number = ?", (number,))
    connection.exec_driver_sql(
        "UPDATE conversation_documents SET was_read = 0 WHERE document_number = ? AND was_read", (number,)
    )


def _pieces(document: Document) -> Iterator[list[DocumentPage]]:
    piece: list[DocumentPage] = []
    characters = 0
    for page in document.document_pages:
        piece.append(page)
        characters += len(page.text)
        if characters >= _PIECE_CHARACTERS:
            yield piece
            piece, characters = [], 0
    if piece:
        yield piece
