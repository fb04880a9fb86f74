"""What can still be read of a damaged database, taken over into a new one.

Rows are read in the order they lie in, around the places that cannot be; what belongs to a row that is lost is left
out, but a turn whose predecessor is lost follows an earlier one. Indexes, of words too, are made anew by writing the
rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress

from app.store.data_folder import SQLITE_ERRORS

# Those that others belong to come first.
_TABLES = ("documents", "document_pages", "document_tokens", "conversations", "turns", "conversation_documents")
# Where those between are lost; a first turn follows none.
_FOLLOW_AN_EARLIER_TURN = """
UPDATE turns SET parent_id = (
    SELECT max(earlier.turn_id) FROM turns AS earlier
    WHERE earlier.conversation_number = turns.conversation_number
    AND earlier.turn_id < turns.turn_id AND earlier.depth < turns.depth
) WHERE turn_id = ?
"""
# Where a table does not tell how many it has.
_MOST_ROWS = 1 << 24


def take_over(damaged: sqlite3.Connection, target: sqlite3.Connection) -> dict[str, int]:
    """Copy all rows that can be read.

    Args:
        damaged: opened for reading.
        target: an empty database of this version, without a transaction.

    Returns:
        How many rows there are now, by table.
    """
    target.execute("PRAGMA foreign_keys = OFF")
    target.execute("BEGIN IMMEDIATE")
    for table in _TABLES:
        # Without a column that the damage has taken.
        columns = sorted(_columns(target, table) & _columns(damaged, table))
        if not columns:
            continue
        statement = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        for values in _readable_rows(damaged, table, columns):
            # Flipped bits can make a row that no table takes.
            with suppress(sqlite3.Error, UnicodeError):
                target.execute(statement, values)
    _leave_out_what_belongs_to_nothing(target)
    target.execute("COMMIT")
    target.execute("PRAGMA foreign_keys = ON")
    return {table: target.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES}


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    with suppress(*SQLITE_ERRORS):
        return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    return set()


def _readable_rows(damaged: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[tuple]:
    statement = f"SELECT rowid, {', '.join(columns)} FROM {table} WHERE rowid > ? ORDER BY rowid"
    last = _last_row(damaged, table)
    after = -1
    while after < last:
        try:
            for row in damaged.execute(statement, (after,)):
                after = row[0]
                yield row[1:]
            return
        except SQLITE_ERRORS:
            after = _end_of_damage(damaged, statement, after, last)


def _last_row(damaged: sqlite3.Connection, table: str) -> int:
    try:
        return damaged.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0
    except SQLITE_ERRORS:
        return _MOST_ROWS


def _end_of_damage(damaged: sqlite3.Connection, statement: str, after: int, last: int) -> int:
    """The last row after `after` that cannot be read, or `last`: looked for in steps that double, and then back."""

    def can_be_read(row: int) -> bool:
        try:
            damaged.execute(statement, (row,)).fetchone()
        except SQLITE_ERRORS:
            return False
        return True

    lost, found, step = after, after + 1, 1
    while found < last and not can_be_read(found):
        lost, step = found, 2 * step
        found = min(last, found + step)
    while found - lost > 1:
        middle = (lost + found) // 2
        if can_be_read(middle):
            found = middle
        else:
            lost = middle
    return found


def _leave_out_what_belongs_to_nothing(target: sqlite3.Connection) -> None:
    while orphans := target.execute("PRAGMA foreign_key_check").fetchall():
        for table, rowid, parent, _ in orphans:
            if parent == "turns" and table == "turns":
                target.execute(_FOLLOW_AN_EARLIER_TURN, (rowid,))
            elif parent == "turns":
                target.execute("UPDATE conversations SET active_turn_id = NULL WHERE number = ?", (rowid,))
            else:
                target.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
    # A conversation whose active turn is lost shows the latest that is there.
    target.execute(
        "UPDATE conversations SET active_turn_id = (SELECT max(turn_id) FROM turns WHERE conversation_number = number) "
        "WHERE active_turn_id IS NULL"
    )
