"""Documents as conversations use them: given to one, taken out, deleted, replaced by a better text.

What a document is, the library knows; here it is seen to that conversations, evidence and the model's reading follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from app.chat.conversations.conversation import Conversation
from app.chat.conversations.conversation_access import ConversationAccess
from app.chat.conversations.conversation_documents import ConversationDocuments
from app.chat.reading.background_reading import BackgroundReading
from app.errors import UserFacingError
from app.evidence.evidence import Evidence
from app.library.library import Library
from app.library.library_entry import LibraryEntry
from app.library.sample_books import sample_book

# How often one looks whether a document is still in use.
_IN_USE_POLL_S = 0.2


class DocumentUse:
    """Brings the library's documents into conversations and out of them.

    Args:
        library: of all documents.
        documents: which of them conversations have.
        access: the conversations.
        reading: reads their documents ahead of questions.
        evidence: indexes their texts.
        forget_reads: drops what the present model has read of the document of an id.
        on_change: told of a conversation whose documents have changed.
        is_closing: whether the program ends.
    """

    def __init__(
        self,
        library: Library,
        documents: ConversationDocuments,
        access: ConversationAccess,
        reading: BackgroundReading,
        evidence: Evidence,
        forget_reads: Callable[[str], None],
        on_change: Callable[[Conversation], None],
        is_closing: Callable[[], bool],
    ) -> None:
        self._library = library
        self._documents = documents
        self._access = access
        self._reading = reading
        self._evidence = evidence
        self._forget_reads = forget_reads
        self._on_change = on_change
        self._is_closing = is_closing

    def add(
        self,
        conversation: Conversation,
        path: Path,
        name: str | None = None,
        password: str | None = None,
        take: bool = False,
    ) -> LibraryEntry:
        """Add a document to the library and to a conversation; see `Assistant.add_document`."""
        entry = self._library.add(path, name, password, take)
        self.attach(conversation, entry.document_id)
        return entry

    def add_sample_book(self, conversation: Conversation, document_id: str) -> LibraryEntry:
        """Add one of the books that come with the app, under its title.

        Raises:
            UserFacingError: no such book, or it cannot be kept.
        """
        if (book := sample_book(document_id)) is None:
            raise UserFacingError("There is no such sample book. Reload the page.")
        entry = self.add(conversation, book.path)
        if entry.name == entry.file_name:
            self._library.rename(document_id, book.title)
        return self._library.entry(document_id)

    def attach(self, conversation: Conversation, document_id: str) -> None:
        """Give a conversation a document of the library; one that it has stays where it is.

        Raises:
            UserFacingError: no such document, or it cannot be stored.
        """
        conversation = self._access.present_one(conversation)
        if self._documents.attach(conversation, document_id):
            self._changed(conversation)

    def take_out(self, conversation: Conversation, document_id: str) -> None:
        """Take a document out of a conversation; it stays in the library.

        Raises:
            UserFacingError: if the conversation is busy, or that cannot be stored.
        """
        with self._access.occupied(conversation) as conversation:
            self._documents.take_out(conversation, document_id)
        self._changed(conversation)

    def delete(self, document_id: str, forget_pictures: Callable[[str], None]) -> None:
        """Remove a document from the library and all conversations, with all that models have kept of it.

        Args:
            document_id: which.
            forget_pictures: drops what is shown of it.

        Raises:
            UserFacingError: if an answer uses it, or it cannot be removed.
        """
        if self._is_in_use(document_id):
            name = self._library.entry(document_id).name
            raise UserFacingError(f"An answer is being made from {name}. Stop it, or wait for its end.")
        self._reading.stop_reading(document_id)
        forget_pictures(document_id)
        self._library.remove(document_id)
        self._forget_reads(document_id)
        for conversation in self._having(document_id):
            self._documents.take_out(conversation, document_id)
            self._changed(conversation)

    def take_new_text(self, document_id: str) -> None:
        """Keep nothing of what was read of a document's old text; called by the thread that has recognised the new."""
        while not self._is_closing() and self._is_in_use(document_id):
            # Answers that are being made end with the text that they have begun with.
            time.sleep(_IN_USE_POLL_S)
        self._reading.stop_reading(document_id)
        self._forget_reads(document_id)
        for conversation in self._having(document_id):
            self._documents.forget_text(conversation, document_id)
            self._changed(conversation)

    def take_new_texts(self) -> None:
        """Read and index what has come into the library."""
        self._reading.want_all()
        for conversation in self._access.present():
            self._index(conversation)

    def take_in(self, conversation: Conversation) -> None:
        """Read and index the documents of a conversation that has come into memory."""
        self._reading.want(conversation)
        self._index(conversation)

    def _changed(self, conversation: Conversation) -> None:
        if conversation.is_kept:
            self._reading.want(conversation)
        self._index(conversation)
        self._on_change(conversation)

    def _index(self, conversation: Conversation) -> None:
        self._evidence.prepare(lambda: [] if self._is_closing() else self._documents.texts(conversation))

    def _is_in_use(self, document_id: str) -> bool:
        return any(document_id in conversation.documents_in_use for conversation in self._access.present())

    def _having(self, document_id: str) -> list[Conversation]:
        return [one for one in self._access.present() if document_id in one.document_ids]
