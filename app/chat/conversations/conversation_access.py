"""Which conversations there are, and who has one to himself: opened, begun, occupied, deleted, put away.

Knows nothing of answers, documents or the engine: what goes with a conversation is told to callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from app.chat.conversations.conversation import Conversation
from app.chat.conversations.conversation_export import exported_json, exported_markdown
from app.chat.conversations.open_conversations import OpenConversations
from app.chat.conversations.stored_conversations import StoredConversations
from app.errors import UserFacingError
from app.store.conversation_store import ConversationStore

# Why nothing can be done in a conversation that is busy: "answering", or what else keeps it so.
_STILL_BUSY = "This conversation is still {what}. Stop that, or wait for its end."


class ConversationAccess:
    """The conversations of one run of the app; safe to call from any thread.

    Args:
        store: where they are kept; `stored` brings them from there and back.
        unkept_reason: why none is kept, a sentence; "" where they are, or where nobody would expect it.
        is_written: whether the store may be written.
        is_watched: whether somebody watches the conversation of an id.
        on_open: told of the id of a conversation that comes into memory.
        on_load: told of one that came from the store.
        on_close: told of one that leaves memory, or is deleted; nothing runs in it any more.
        on_change: told of one that has changed.
        busy_with: what keeps the conversation of an id busy: "answering", "racing".
    """

    def __init__(
        self,
        store: ConversationStore,
        stored: StoredConversations,
        unkept_reason: str,
        is_written: bool,
        is_watched: Callable[[str], bool],
        on_open: Callable[[str], None],
        on_load: Callable[[Conversation], None],
        on_close: Callable[[Conversation], None],
        on_change: Callable[[Conversation], None],
        busy_with: Callable[[str], str],
    ) -> None:
        self._store = store
        self._stored = stored
        self._unkept_reason = unkept_reason
        self._is_written = is_written
        self._on_open = on_open
        self._on_load = on_load
        self._on_close = on_close
        self._on_change = on_change
        self._busy_with = busy_with
        self._open = OpenConversations(self._load, is_watched, on_close)

    def present(self) -> list[Conversation]:
        """The conversations in memory."""
        return self._open.present()

    def open(self, conversation_id: str, continue_last: bool) -> Conversation:
        """The conversation of that id; see `Assistant.open_conversation`."""
        if conversation_id:
            return self.find(conversation_id)
        if continue_last:
            with suppress(UserFacingError):
                for summary in self._store.summaries()[:1]:
                    conversation = self.find(summary.conversation_id)
                    if not conversation.busy.locked() and self._open.claim(summary.conversation_id):
                        return conversation
        return self.begin()

    def begin(self, kept: bool = True) -> Conversation:
        """An empty conversation; see `Assistant.new_conversation`."""
        reason, conversation = self._unkept_reason if kept and not self._is_written else "", None
        if kept and self._is_written:
            try:
                conversation = self._stored.create()
            except UserFacingError as error:
                reason = error.message
        if conversation is None:
            conversation = Conversation(is_kept=False, unkept_reason=reason)
        self._on_open(conversation.conversation_id)
        self._open.add(conversation)
        self._open.claim(conversation.conversation_id)
        return conversation

    def find(self, conversation_id: str) -> Conversation:
        """The conversation of that id, from the store if it must be.

        Raises:
            UserFacingError: if there is none.
        """
        conversation = self._open.find(conversation_id)
        if conversation is None:
            raise UserFacingError("There is no such conversation any more. Open another, or begin a new one.")
        return conversation

    def is_answering(self, conversation_id: str) -> bool:
        """Whether an answer is being made in a conversation."""
        return any(
            conversation.conversation_id == conversation_id and conversation.running is not None
            for conversation in self._open.present()
        )

    def delete(self, conversation_id: str) -> None:
        """Take a conversation away, until it is brought back; what runs in it is stopped.

        Raises:
            UserFacingError: if that cannot be stored.
        """
        self._store.delete(conversation_id)
        conversation = self._open.take(conversation_id)
        if conversation is not None:
            conversation.is_deleted = True
            self.cancel(conversation)
            self._on_close(conversation)

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation a title.

        Raises:
            UserFacingError: an empty title, or no such conversation.
        """
        self._store.rename(conversation_id, title)
        conversation = self.find(conversation_id)
        self._stored.refresh_title(conversation)
        self._on_change(conversation)

    def select_turn(self, conversation: Conversation, turn_id: str) -> None:
        """Go back to another branch: the one with that turn, down to its latest answer.

        Raises:
            UserFacingError: no such turn, or the conversation is busy.
        """
        with self.occupied(conversation) as conversation:
            self._stored.select_turn(conversation, turn_id)
        self._on_change(conversation)

    def export(self, conversation_id: str, document_names: list[str], kind: Literal["markdown", "json"]) -> str:
        """A conversation as a text of its own; see `Assistant.export_conversation`."""
        conversation = self.find(conversation_id)
        if kind == "markdown":
            return exported_markdown(conversation, document_names)
        return exported_json(conversation, document_names, self._stored.all_turns(conversation))

    def present_one(self, conversation: Conversation) -> Conversation:
        """The conversation in memory of that id: one that was put away meanwhile may have been loaded again.

        Raises:
            UserFacingError: it was deleted.
        """
        if conversation.is_deleted:
            raise UserFacingError("This conversation was deleted. Bring it back, or begin a new one.")
        self._on_open(conversation.conversation_id)
        return self._open.add(conversation)

    def occupy(self, conversation: Conversation) -> Conversation:
        """Keep a conversation to oneself, until `release`.

        Raises:
            UserFacingError: it is busy, or was deleted.
        """
        conversation = self.present_one(conversation)
        if not conversation.busy.acquire(blocking=False):
            raise UserFacingError(_STILL_BUSY.format(what=self._busy_with(conversation.conversation_id)))
        conversation.cancelled.clear()
        return conversation

    def release(self, conversation: Conversation) -> None:
        """Let others have a conversation that was occupied."""
        was_answer = conversation.running is not None
        conversation.running, conversation.documents_in_use, conversation.model = None, (), None
        conversation.busy.release()
        if was_answer:
            self._on_change(conversation)

    @contextmanager
    def occupied(self, conversation: Conversation) -> Iterator[Conversation]:
        """`occupy` and `release`."""
        conversation = self.occupy(conversation)
        try:
            yield conversation
        finally:
            self.release(conversation)

    @staticmethod
    def cancel(conversation: Conversation) -> None:
        """Stop what runs in a conversation at its next chance; does nothing if nothing does."""
        conversation.cancelled.set()
        job = conversation.job
        if job is not None:
            job.cancel()

    def _load(self, conversation_id: str) -> Conversation | None:
        conversation = self._stored.load(conversation_id)
        if conversation is not None:
            self._on_open(conversation_id)
            self._on_load(conversation)
        return conversation
