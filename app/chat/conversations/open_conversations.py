"""Which conversations are in memory, and which of them are put away when there are too many.

Browser tabs vanish without a word, so conversations are put away for others: never one that answers, is watched or is
not stored, and of the rest the one unused for longest. One that was put away is loaded again when somebody comes back
to it. Safe to call from any thread. Knows nothing of what happens in a conversation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from app.chat.conversations.conversation import Conversation

# Enough for every tab that is really open; each keeps its documents' text in memory.
MAX_CONVERSATIONS = 64
# A tab that has just been given a conversation is not watching it yet.
_CLAIM_S = 10.0


class OpenConversations:
    """Conversations by id.

    Args:
        load: a conversation from the store, None if there is none of that id.
        is_watched: whether somebody has the conversation of an id before their eyes.
        put_away: called for a conversation that makes room; it may be loaded again at once.
    """

    def __init__(
        self,
        load: Callable[[str], Conversation | None],
        is_watched: Callable[[str], bool],
        put_away: Callable[[Conversation], None],
    ) -> None:
        self._load = load
        self._is_watched = is_watched
        self._put_away = put_away
        self._lock = threading.Lock()
        self._conversations: dict[str, Conversation] = {}  # the one unused for longest first
        self._claimed_at: dict[str, float] = {}

    def add(self, conversation: Conversation) -> Conversation:
        """Hold a conversation, which is now the one used last; returns the one of its id, if that is held already."""
        with self._lock:
            present = self._touch(conversation.conversation_id) or self._insert(conversation)
            away = self._take_unused()
        for unused in away:
            self._put_away(unused)
        return present

    def find(self, conversation_id: str) -> Conversation | None:
        """The conversation of that id, loaded if it must be, which is now the one used last; None if there is none."""
        with self._lock:
            # Loaded inside, or two threads would have one each.
            conversation = self._touch(conversation_id)
            if conversation is None and (loaded := self._load(conversation_id)) is not None:
                conversation = self._insert(loaded)
            away = self._take_unused()
        for unused in away:
            self._put_away(unused)
        return conversation

    def claim(self, conversation_id: str) -> bool:
        """Take a conversation for a tab that will watch it soon; False if it is watched or claimed by another."""
        now = time.monotonic()
        with self._lock:
            if self._is_watched(conversation_id) or now - self._claimed_at.get(conversation_id, -_CLAIM_S) < _CLAIM_S:
                return False
            self._claimed_at[conversation_id] = now
            return True

    def present(self) -> list[Conversation]:
        """Those in memory, the one unused for longest first."""
        with self._lock:
            return list(self._conversations.values())

    def take(self, conversation_id: str) -> Conversation | None:
        """Take a conversation out of memory; None if it is not there."""
        with self._lock:
            self._claimed_at.pop(conversation_id, None)
            return self._conversations.pop(conversation_id, None)

    def _touch(self, conversation_id: str) -> Conversation | None:
        conversation = self._conversations.pop(conversation_id, None)
        if conversation is not None:
            self._conversations[conversation_id] = conversation
        return conversation

    def _insert(self, conversation: Conversation) -> Conversation:
        self._conversations[conversation.conversation_id] = conversation
        return conversation

    def _take_unused(self) -> list[Conversation]:
        """What is too many and in nobody's use. The one used last is always kept."""
        too_many = len(self._conversations) - MAX_CONVERSATIONS
        away: list[Conversation] = []
        for conversation_id, conversation in list(self._conversations.items())[:-1]:
            if len(away) >= too_many:
                break
            if not conversation.is_kept or conversation.busy.locked() or self._is_watched(conversation_id):
                continue
            del self._conversations[conversation_id]
            self._claimed_at.pop(conversation_id, None)
            away.append(conversation)
        return away
