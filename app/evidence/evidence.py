"""Evidence for questions and answers about documents: the one door to this room.

Keeps the documents' indexes; finds a question's passages and an answer's citations. Knows nothing of models.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from app.errors import UserFacingError
from app.evidence.citation import EvidencePassage
from app.evidence.document_indexes import DocumentIndexes
from app.evidence.question_passages import find_passages
from app.evidence.support import AnswerSupport, support_answer
from app.library.document import Document

# A document is indexed when its text has come, a thousand pages in a second or two: a question seldom waits.
_PASSAGES_WAIT_S = 3.0
_SUPPORT_WAIT_S = 20.0


class Evidence:
    """Finds what documents hold; safe to use from any thread."""

    def __init__(self) -> None:
        self._indexes = DocumentIndexes()

    def prepare(self, documents: Callable[[], Iterable[Document]]) -> None:
        """Index documents in a thread, so that the first question need not wait for it.

        Args:
            documents: called there, for to read their texts takes a moment, too; where it fails, nothing is prepared.
        """

        def run() -> None:
            # What is gone meanwhile needs no index.
            with suppress(UserFacingError):
                self._indexes.prepare(documents())

        threading.Thread(target=run, name="evidence-texts", daemon=True).start()

    def passages(self, documents: Sequence[Document], question: str) -> tuple[EvidencePassage, ...]:
        """The best passages of the whole documents for a question.

        Raises:
            UserFacingError: a package that it needs is not installed.
        """
        search, _ = self._indexes.search(documents, _PASSAGES_WAIT_S)
        return find_passages(search, question)

    def support(
        self, documents: Sequence[Document], question: str, answer: str, is_whole: bool = True
    ) -> AnswerSupport:
        """What of the documents supports an answer, sentence by sentence.

        Args:
            documents: where to look.
            question: that was answered; it says what an answer of few words is about.
            answer: its text.
            is_whole: whether it came to its end; the last sentence of one that did not is not called unsupported.

        Raises:
            UserFacingError: a package that it needs is not installed.
        """
        search, is_all = self._indexes.search(documents, _SUPPORT_WAIT_S)
        # What is not searched might hold any sentence.
        return support_answer(search, question, answer, is_whole) if is_all else AnswerSupport(search)
