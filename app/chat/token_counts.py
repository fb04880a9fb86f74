"""How many tokens the library's documents have for the model that is loaded; counted once, and kept in the library."""

from __future__ import annotations

from contextlib import suppress

from app.chat.prompt.document_tokens import TokenCount
from app.errors import UserFacingError
from app.library.library import Library
from app.models.model_loader import ModelLoader


class TokenCounts:
    """Counts and remembers.

    Args:
        library: keeps the counts, of each model its own.
        loader: of the model.
    """

    def __init__(self, library: Library, loader: ModelLoader) -> None:
        self._library = library
        self._loader = loader

    def of(self, document_id: str) -> TokenCount | None:
        """Tokens of one document's text, counted if nobody has, which takes a second for a long book.

        None if its text is not there yet, or the model is not, by which they would be counted.
        """
        model, entry = self._loader.model, self._library.entry_or_none(document_id)
        if entry is None or entry.state != "read":
            return None
        reference = self._loader.settings.model
        kept = self._library.tokens(document_id, reference)
        if kept is not None:
            return TokenCount(*kept)
        if model is None:
            return None
        count = model.planner.document_tokens(self._library.document(document_id))
        with suppress(UserFacingError):
            # Counted again another time, no more.
            self._library.set_tokens(document_id, reference, count.tokens, count.is_exact)
        return count

    def counted(self) -> dict[str, TokenCount]:
        """Tokens of all documents that were counted for the model."""
        counted = self._library.all_tokens(self._loader.settings.model)
        return {document_id: TokenCount(*tokens) for document_id, tokens in counted.items()}
