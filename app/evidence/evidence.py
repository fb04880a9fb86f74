"""Evidence for questions and answers about documents: the one door to this room.

Keeps the documents' indexes; finds a question's passages and an answer's citations. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.evidence.citation import EvidencePassage
from app.evidence.document_indexes import DocumentIndexes
from app.evidence.question_passages import find_passages
from app.evidence.support import AnswerSupport, support_answer
from app.library.document import Document


class Evidence:
    """Finds what documents hold; safe to use from any thread."""

    def __init__(self) -> None:
        self._indexes = DocumentIndexes()

    def prepare(self, documents: Iterable[Document]) -> None:
        """Index documents in a thread, so that the first question need not wait for it."""
        self._indexes.prepare(documents)

    def passages(self, documents: Sequence[Document], question: str) -> tuple[EvidencePassage, ...]:
        """The best passages of the whole documents for a question.

        Raises:
            UserFacingError: a package that it needs is not installed.
        """
        return find_passages(self._indexes.search(documents), question)

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
        return support_answer(self._indexes.search(documents), question, answer, is_whole)
