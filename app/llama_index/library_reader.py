"""The library as a reader of llama-index: texts of documents, for indexes of its own.

Whoever only wants answers needs none of it: `app.llama_index.library_retriever` searches the library as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from llama_index.core import Document as TextDocument
from llama_index.core.readers.base import BaseReader

from app.errors import UserFacingError
from app.library import Document
from app.library.library import Library
from app.llama_index.library_documents import (
    check_ids,
    chosen_documents,
    document_metadata,
    page_id,
    page_metadata,
    untold,
)

_PAGE_END = "\n\n"


class LibraryReader(BaseReader):
    """Reads documents of a library into those of llama-index.

    Args:
        library: where they are.
    """

    def __init__(self, library: Library) -> None:
        self._library = library

    def list_resources(self) -> dict[str, str]:
        """The ids of all documents, each with its name; the one used last first."""
        return {entry.document_id: entry.name for entry in self._library.entries()}

    def lazy_load_data(
        self, document_ids: Sequence[str] | None = None, per: Literal["page", "document"] = "page"
    ) -> Iterator[TextDocument]:
        """Yield texts, each with the metadata document_id, name, file_name and, of a page, page_label and page_index.

        Ids are the same in every run. Pages without text are left out. Waits for documents that are still being read.

        Args:
            document_ids: which documents; None for all. Of all, those that cannot be read are left out, and the log
                says why.
            per: what becomes one of llama-index's documents: a document page, or a whole document.

        Raises:
            UserFacingError: at once for an id that is not in the library and for another `per`; later for a chosen
                document that cannot be read.
        """
        check_ids(self._library, document_ids)
        if per not in ("page", "document"):
            raise UserFacingError(f'per must be "page" or "document", not {per!r}.')
        texts = _pages if per == "page" else _whole
        return (text for document in chosen_documents(self._library, document_ids) for text in texts(document))


def _pages(document: Document) -> Iterator[TextDocument]:
    for page in document.document_pages:
        if page.text.strip():
            yield _text_document(page_id(document, page.index), page.text, page_metadata(document, page.index))


def _whole(document: Document) -> Iterator[TextDocument]:
    texts = [page.text for page in document.document_pages if page.text.strip()]
    if texts:
        metadata = {**document_metadata(document), "page_count": document.page_count}
        yield _text_document(document.document_id, _PAGE_END.join(texts), metadata)


def _text_document(text_id: str, text: str, metadata: dict[str, Any]) -> TextDocument:
    return TextDocument(
        id_=text_id,
        text=text,
        metadata=metadata,
        excluded_llm_metadata_keys=untold(metadata),
        excluded_embed_metadata_keys=untold(metadata),
    )
