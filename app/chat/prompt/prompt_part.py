"""A stretch of a prompt: tokens, and where each of them comes from.

Knows nothing of how prompts are laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from app.chat.prompt.template import EncodedText
from app.library import Document

Role = Literal["document", "conversation", "instructions"]


@dataclass(frozen=True)
class PromptSpan:
    """Neighbouring prompt tokens of one origin.

    Args:
        start_token, end_token: position in the prompt, end excluded.
        role: what they are.
        document, page_index, page_label: the document page they are of; None, -1 and "" otherwise.
        characters: int32 [tokens, 2], start and end of each token in that page's text; None otherwise.
    """

    start_token: int
    end_token: int
    role: Role
    document: Document | None = None
    page_index: int = -1
    page_label: str = ""
    characters: np.ndarray | None = None


@dataclass(frozen=True)
class DocumentEnd:
    """Where a prompt has the whole of its first documents, and nothing else yet that another would not have.

    Args:
        end_token: the tokens before it are the beginning of every prompt with these documents.
        document_ids: of the documents up to there, in order.
    """

    end_token: int
    document_ids: tuple[str, ...]


@dataclass
class PromptPart:
    """Tokens and spans of a stretch of the prompt, counted from its own beginning."""

    token_ids: list[int] = field(default_factory=list)
    spans: list[PromptSpan] = field(default_factory=list)
    document_ends: list[DocumentEnd] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def document_tokens(self) -> int:
        """Tokens of documents' text."""
        return sum(span.end_token - span.start_token for span in self.spans if span.document is not None)

    def add(self, token_ids: Sequence[int], role: Role) -> None:
        if token_ids:
            self.spans.append(PromptSpan(self.length, self.length + len(token_ids), role))
            self.token_ids.extend(token_ids)

    def add_page(self, document: Document, page_index: int, encoded: EncodedText, start_char: int = 0) -> None:
        """Add text of a document page; `start_char` is where in the page it begins."""
        end = self.length + len(encoded.token_ids)
        label = document.document_pages[page_index].page_label
        characters = encoded.characters + start_char
        self.spans.append(PromptSpan(self.length, end, "document", document, page_index, label, characters))
        self.token_ids.extend(encoded.token_ids)

    def end_document(self, document: Document) -> None:
        """Note that the document is whole."""
        before = self.document_ends[-1].document_ids if self.document_ends else ()
        self.document_ends.append(DocumentEnd(self.length, (*before, document.document_id)))

    def append(self, part: PromptPart) -> None:
        start = self.length
        self.document_ends.extend(replace(end, end_token=end.end_token + start) for end in part.document_ends)
        self.token_ids.extend(part.token_ids)
        self.spans.extend(
            replace(span, start_token=span.start_token + start, end_token=span.end_token + start) for span in part.spans
        )
