"""Which conversations are open, and which of them makes room when there are too many.

Browser tabs vanish without a word, so conversations are closed for others: never one that answers, reads a document or
is watched, and of the rest the one unused for longest. Safe to call from any thread. Knows nothing of what happens in a
conversation.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.chat.conversation import Conversation
from app.errors import UserFacingError

# Enough for every tab that is really open; each keeps its documents' text in memory.
MAX_CONVERSATIONS = 64
# Of conversations that made room, so many are remembered, to tell their tabs.
_KEPT_EVICTIONS = 1024


class ConversationEvicted(UserFacingError):
    """A conversation was closed to make room for others."""


class OpenConversations:
    """Conversations by id.

    Args:
        is_watched: whether somebody has the conversation of an id before their eyes.
    """

    def __init__(self, is_watched: Callable[[str], bool]) -> None:
        self._is_watched = is_watched
        self._lock = threading.Lock()
        self._conversations: dict[str, Conversation] = {}  # the one unused for longest first
        self._kept_open: Counter[str] = Counter()
        self._evicted: deque[str] = deque(maxlen=_KEPT_EVICTIONS)

    def open(self) -> tuple[Conversation, Conversation | None]:
        """A new conversation, and the one that made room for it, if there is one; whoever calls releases that.

        Raises:
            UserFacingError: if there are `MAX_CONVERSATIONS` and all are in use.
        """
        conversation, evicted = Conversation(), None
        with self._lock:
            if len(self._conversations) >= MAX_CONVERSATIONS:
                evicted = self._take_unused()
            self._conversations[conversation.conversation_id] = conversation
        return conversation, evicted

    def _take_unused(self) -> Conversation:
        for conversation_id, conversation in self._conversations.items():
            if self._kept_open[conversation_id] or self._is_watched(conversation_id):
                continue
            # Whoever has it is answering; whoever takes it after us finds the conversation closed.
            if conversation.busy.acquire(blocking=False):
                del self._conversations[conversation_id]
                self._evicted.append(conversation_id)
                conversation.busy.release()
                return conversation
        raise UserFacingError(
            f"{MAX_CONVERSATIONS} conversations are open, and all of them are in use. Close a tab, and reload this one."
        )

    def find(self, conversation_id: str) -> Conversation:
        """The open conversation of that id, which is now the one used last.

        Raises:
            ConversationEvicted: if it made room for another.
            UserFacingError: if there is none.
        """
        with self._lock:
            conversation = self._conversations.pop(conversation_id, None)
            if conversation is not None:
                self._conversations[conversation_id] = conversation
            evicted = conversation_id in self._evicted
        if evicted:
            raise ConversationEvicted(
                f"This conversation is closed: nobody used it, and there are {MAX_CONVERSATIONS} newer ones. "
                "Reload the page to begin another."
            )
        if conversation is None:
            raise UserFacingError("This conversation is closed. Reload the page to begin a new one.")
        return conversation

    def take(self, conversation_id: str) -> Conversation | None:
        """Take a conversation out; None if there is none of that id."""
        with self._lock:
            return self._conversations.pop(conversation_id, None)

    @contextmanager
    def kept_open(self, conversation: Conversation) -> Iterator[None]:
        """Inside, a conversation makes room for no other."""
        with self._lock:
            self._kept_open[conversation.conversation_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._kept_open[conversation.conversation_id] -= 1
                self._kept_open += Counter()  # without zeros

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._conversations.clear()
