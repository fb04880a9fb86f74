"""What can still be read of a damaged database, taken over into a new one.

Rows are read in the order they lie in, around the places that cannot be; what belongs to a row that is lost is left
out, but a turn whose predecessor is lost begins a branch. Indexes, of words too, are made anew by writing the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress

# Those that others belong to come first.
_TABLES = ("documents", "document_pages", "document_tokens", "conversations", "turns", "conversation_documents")
# Beyond a row that cannot be read the next is looked for in steps that double.
_MOST_STEP = 1 << 20


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
        columns = [row[1] for row in target.execute(f"PRAGMA table_info({table})")]
        statement = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        for values in _readable_rows(damaged, table, columns):
            # Flipped bits can make a row that no table takes.
            with suppress(sqlite3.Error):
                target.execute(statement, values)
    _leave_out_what_belongs_to_nothing(target)
    target.execute("COMMIT")
    target.execute("PRAGMA foreign_keys = ON")
    return {table: target.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES}


def _readable_rows(damaged: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[tuple]:
    try:
        last = damaged.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0
    except sqlite3.Error:
        last = _MOST_STEP
    after, step = 0, 1
    while after < last:
        try:
            found = damaged.execute(
                f"SELECT rowid, {', '.join(columns)} FROM {table} WHERE rowid > ? ORDER BY rowid", (after,)
            )
            for row in found:
                after, step = row[0], 1
                yield row[1:]
            return
        except sqlite3.Error:
            after, step = after + step, min(2 * step, _MOST_STEP)


def _leave_out_what_belongs_to_nothing(target: sqlite3.Connection) -> None:
    while orphans := target.execute("PRAGMA foreign_key_check").fetchall():
        for table, rowid, parent, _ in orphans:
            if parent == "turns" and table == "turns":
                target.execute("UPDATE turns SET parent_id = NULL WHERE turn_id = ?", (rowid,))
            elif parent == "turns":
                target.execute("UPDATE conversations SET active_turn_id = NULL WHERE number = ?", (rowid,))
            else:
                target.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
    # A conversation whose active turn is lost shows the latest that is there.
    target.execute(
        "UPDATE conversations SET active_turn_id = (SELECT max(turn_id) FROM turns WHERE conversation_number = number) "
        "WHERE active_turn_id IS NULL"
    )
