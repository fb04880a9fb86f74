"""What an answer waits for before its prompt can be planned: the model, and the text of a document.

Runs in the thread of whoever makes an answer or a race, which can be cancelled meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from app.chat.answers.answer import DocumentReading, ModelLoading
from app.chat.answers.begun_answer import BegunAnswer
from app.chat.answers.question_documents import QUICKLY_READ_TOKENS, QuestionDocuments, choose_documents
from app.chat.conversations.conversation import Conversation
from app.errors import UserFacingError
from app.library import Document
from app.library.library_entry import LibraryEntry
from app.models.model_loader import LoadedModel, ModelLoader

# How often a question that waits for the model, or for a document's text, looks how far that is.
_POLL_S = 0.1


class AnswerNeeds:
    """Waits, and tells how far it is.

    Args:
        loader: of the model.
        entries: a conversation's documents as they are listed, in order.
        text: the document of an id, whose text is there.
    """

    def __init__(
        self,
        loader: ModelLoader,
        entries: Callable[[Conversation], list[LibraryEntry]],
        text: Callable[[Conversation, str], Document],
    ) -> None:
        self._loader = loader
        self._entries = entries
        self._text = text

    def wait_for_model(self, conversation: Conversation) -> Generator[ModelLoading, None, LoadedModel]:
        """Wait for the model and tell how far it is, each step once.

        Raises:
            UserFacingError: if it cannot be loaded, or the question was cancelled meanwhile.
        """
        self._loader.start()
        told = None
        while True:
            while (status := self._loader.status).stage in ("starting", "loading"):
                if conversation.cancelled.wait(_POLL_S if status.message == told else 0):
                    raise UserFacingError("Stopped before the model was loaded. Ask again when it is.")
                if status.message != told:
                    told = status.message
                    yield ModelLoading(told)
            model = conversation.model = self._loader.wait()
            # Looked at once it is said: who changes the model takes it away first, and then looks who has it.
            if self._loader.model is model:
                return model
            conversation.model = None

    def wait_for_documents(
        self, conversation: Conversation, model: LoadedModel, begun: BegunAnswer | None = None
    ) -> Generator[DocumentReading, None, QuestionDocuments]:
        """Wait for a document's text if none is there, and tell how far it is; an answer that goes on has those that it
        was begun with.

        Raises:
            UserFacingError: if no document can be read, the question was cancelled meanwhile, or a document that the
                answer was begun with is not there any more.
        """
        if begun is not None and (report := begun.turn.report) is not None and report.options is not None:
            read = {entry.document_id for entry in self._entries(conversation) if entry.state == "read"}
            if not read.issuperset(report.document_ids):
                raise UserFacingError(
                    "A document that this answer was made from is not in this chat any more. Add it again, or ask the "
                    "question again."
                )
            conversation.documents_in_use = report.document_ids
            return QuestionDocuments(report.document_ids, report.left_out)

        def is_quickly_read(document_id: str) -> bool:
            document = self._text(conversation, document_id)
            return model.planner.document_tokens(document).tokens <= QUICKLY_READ_TOKENS

        waits_for_all = not conversation.is_kept
        told = None
        while True:
            entries = self._entries(conversation)
            chosen = choose_documents(entries, conversation.read_ids, is_quickly_read, waits_for_all, time.time())
            if isinstance(chosen, QuestionDocuments):
                conversation.documents_in_use = chosen.document_ids
                return chosen
            if conversation.cancelled.wait(_POLL_S if chosen == told else 0):
                raise UserFacingError("Stopped before the document was read. Ask again when it is.")
            if chosen != told:
                told = chosen
                yield chosen
