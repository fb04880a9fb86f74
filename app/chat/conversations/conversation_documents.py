"""The documents of conversations: which there are, their texts, and which of them the model has read.

What a document is, the library knows; when it is read, `app.chat.reading.background_reading`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from app.chat.conversations.conversation import Conversation
from app.chat.conversations.stored_conversations import StoredConversations
from app.errors import UserFacingError
from app.library import Document
from app.library.library import Library
from app.library.library_entry import LibraryEntry

_log = logging.getLogger(__name__)


class ConversationDocuments:
    """Brings conversations and the library together.

    Args:
        library: of all documents.
        stored: keeps which of them a conversation has.
        on_read: told of a conversation when documents of it were read.
    """

    def __init__(self, library: Library, stored: StoredConversations, on_read: Callable[[Conversation], None]) -> None:
        self._library = library
        self._stored = stored
        self._on_read = on_read

    def entries(self, conversation: Conversation) -> list[LibraryEntry]:
        """As the library lists them, in the conversation's order."""
        found = map(self._library.entry_or_none, list(conversation.document_ids))
        return [entry for entry in found if entry is not None]

    def text(self, conversation: Conversation, document_id: str) -> Document:
        """The document of an id, whose text is there.

        Raises:
            UserFacingError: if it is not, or not in the library.
        """
        document = self._library.document(document_id)
        # Held here, so that the library gives the same object the next time, and its tokens need not be counted again.
        conversation.texts[document_id] = document
        return document

    def texts(self, conversation: Conversation) -> list[Document]:
        """Those whose text is there, in order."""
        read = [entry.document_id for entry in self.entries(conversation) if entry.state == "read"]
        return [self.text(conversation, document_id) for document_id in read]

    def readable(self, conversation: Conversation) -> list[Document]:
        """What can be read ahead: the documents before the first whose text is still to come."""
        documents = []
        for entry in self.entries(conversation):
            if entry.state == "reading":
                break
            if entry.state == "read":
                documents.append(self.text(conversation, entry.document_id))
        return documents

    def attach(self, conversation: Conversation, document_id: str) -> bool:
        """Give a conversation a document of the library; False if it has it already.

        Raises:
            UserFacingError: no such document, or it cannot be stored.
        """
        self._library.entry(document_id)
        with conversation.lock:
            if document_id in conversation.document_ids:
                return False
            conversation.document_ids.append(document_id)
        try:
            self._stored.save_documents(conversation)
        except UserFacingError:
            with conversation.lock:
                conversation.document_ids.remove(document_id)
            raise
        return True

    def take_out(self, conversation: Conversation, document_id: str) -> None:
        """Take a document out of a conversation.

        Raises:
            UserFacingError: if that cannot be stored.
        """
        with conversation.lock:
            if document_id in conversation.document_ids:
                conversation.document_ids.remove(document_id)
            conversation.read_ids.discard(document_id)
            conversation.texts.pop(document_id, None)
        self._stored.save_documents(conversation)

    def forget_text(self, conversation: Conversation, document_id: str) -> None:
        """A document has another text than before, which the model has not read."""
        with conversation.lock:
            conversation.read_ids.discard(document_id)
            conversation.texts.pop(document_id, None)

    def note_read(self, conversation: Conversation, document_ids: Iterable[str]) -> None:
        """The model has read documents of a conversation."""
        with conversation.lock:
            conversation.read_ids.update(set(document_ids) & set(conversation.document_ids))
        try:
            self._stored.save_documents(conversation)
        except UserFacingError as error:
            # It will be read again, no more.
            _log.info("that a document was read is not noted: %s", error)
        self._on_read(conversation)
