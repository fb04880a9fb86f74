"""Rows of turns and conversations inside a transaction: the steps that `ConversationStore`'s methods are made of.

Knows neither when a transaction begins nor what it is for.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.errors import UserFacingError
from app.store.stored_conversation import StoredTurn
from app.store.stored_text import storable, title_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# From a turn up to the first one.
_BRANCH = """
WITH RECURSIVE branch (turn_id, parent_id) AS (
    SELECT turn_id, parent_id FROM turns WHERE turn_id = ?
    UNION ALL
    SELECT turns.turn_id, turns.parent_id FROM turns JOIN branch ON turns.turn_id = branch.parent_id
)
"""


def number_of(connection: Connection, conversation_id: str) -> int:
    """The row of a conversation that is not deleted.

    Raises:
        UserFacingError: if there is none.
    """
    number = connection.exec_driver_sql(
        "SELECT number FROM conversations WHERE conversation_id = ? AND deleted_at IS NULL",
        (storable(conversation_id),),
    ).scalar()
    if number is None:
        raise UserFacingError("There is no such conversation any more. Open another, or begin a new one.")
    return number


def depth_of(connection: Connection, number: int, turn_id: int | None) -> int:
    """How many turns a branch has up to a turn; 0 if that is None.

    Raises:
        UserFacingError: if it is not one of the conversation's.
    """
    if turn_id is None:
        return 0
    depth = None
    # It comes from a page, which may ask for anything; SQLite takes no larger number.
    if abs(turn_id) < 1 << 63:
        depth = connection.exec_driver_sql(
            "SELECT depth FROM turns WHERE turn_id = ? AND conversation_number = ?", (turn_id, number)
        ).scalar()
    if depth is None:
        raise UserFacingError("There is no such turn in this conversation. Reload the page.")
    return depth


def touch(connection: Connection, number: int) -> None:
    """Say that a conversation is used now."""
    connection.exec_driver_sql("UPDATE conversations SET updated_at = ? WHERE number = ?", (time.time(), number))


def branch_to(connection: Connection, number: int, active_turn_id: int | None) -> tuple[StoredTurn, ...]:
    """The turns from a first one to `active_turn_id`; none if that is None."""
    rows = connection.exec_driver_sql(
        f"{_BRANCH} SELECT turns.* FROM branch JOIN turns USING (turn_id) ORDER BY turns.depth", (active_turn_id,)
    ).all()
    return _turns(connection, number, rows)


def turns_of(connection: Connection, number: int) -> tuple[StoredTurn, ...]:
    """The turns of all branches of a conversation, in the order they were asked."""
    rows = connection.exec_driver_sql(
        "SELECT * FROM turns WHERE conversation_number = ? ORDER BY turn_id", (number,)
    ).all()
    return _turns(connection, number, rows)


def _turns(connection: Connection, number: int, rows: Sequence[Row]) -> tuple[StoredTurn, ...]:
    """Rows of the table `turns`, all of one conversation, with those that begin where they do."""
    siblings: dict[int | None, list[int]] = {}
    for turn_id, parent_id in connection.exec_driver_sql(
        "SELECT turn_id, parent_id FROM turns WHERE conversation_number = ? ORDER BY turn_id", (number,)
    ):
        siblings.setdefault(parent_id, []).append(turn_id)
    return tuple(
        StoredTurn(
            row.turn_id,
            row.parent_id,
            row.question,
            row.answer,
            row.state,
            _report(row.report),
            _unpacked(row.token_ids),
            row.created_at,
            tuple(siblings.get(row.parent_id, [row.turn_id])),
            row.thinking,
        )
        for row in rows
    )


def discard(connection: Connection, turn_id: int) -> bool:
    """Take a turn back, and keep its question; False if there is none, or others follow it."""
    row = connection.exec_driver_sql(
        "SELECT turns.conversation_number AS number, parent_id, replaced_turn_id, question, title, "
        "active_turn_id = turn_id AS is_active FROM turns JOIN conversations ON number = conversation_number "
        "WHERE turn_id = ? AND NOT EXISTS (SELECT 1 FROM turns AS later WHERE later.parent_id = turns.turn_id)",
        (turn_id,),
    ).first()
    if row is None:
        return False
    connection.exec_driver_sql("DELETE FROM turns WHERE turn_id = ?", (turn_id,))
    if row.is_active:
        before = connection.exec_driver_sql(
            "SELECT turn_id FROM turns WHERE turn_id = ? AND conversation_number = ?",
            (row.replaced_turn_id, row.number),
        ).scalar()
        connection.exec_driver_sql(
            "UPDATE conversations SET active_turn_id = ? WHERE number = ?",
            (row.parent_id if before is None else before, row.number),
        )
    has_turns = connection.exec_driver_sql(
        "SELECT EXISTS (SELECT 1 FROM turns WHERE conversation_number = ?)", (row.number,)
    ).scalar()
    # The title may have come from this question.
    title = row.title if has_turns or row.title != title_of(row.question) else ""
    connection.exec_driver_sql(
        "UPDATE conversations SET unanswered = ?, title = ? WHERE number = ?", (row.question, title, row.number)
    )
    return True


def _report(kept: str | None) -> dict[str, Any] | None:
    try:
        return None if kept is None else json.loads(kept)
    except ValueError:
        # A flipped bit; the answer can be read all the same.
        return None


def packed(token_ids: Sequence[int]) -> bytes:
    """Tokens as a row holds them: four bytes each, the lowest first."""
    return struct.pack(f"<{len(token_ids)}I", *token_ids)


def _unpacked(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(packed) // 4}I", packed[: len(packed) // 4 * 4])
