"""The library's documents for llama-index: which are meant, and what goes along with their text."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from app.errors import UserFacingError
from app.library import Document
from app.library.library import Library

# Of the metadata, what a model should see beside a text; the rest is for programs.
_TOLD = ("name", "page_label")
_log = logging.getLogger(__name__)


def check_ids(library: Library, document_ids: Sequence[str] | None) -> None:
    """Refuse ids of documents that are not there; None stands for all and is fine.

    Raises:
        UserFacingError: one is not in the library, or the ids are one text instead of a list.
    """
    if isinstance(document_ids, str):
        raise UserFacingError(f'document_ids must be a list of ids, not the text "{document_ids}".')
    for document_id in document_ids or ():
        if library.entry_or_none(document_id) is None:
            raise UserFacingError(
                f'There is no document "{document_id}" in the library. `reader.list_resources()` names those that are.'
            )


def chosen_documents(library: Library, document_ids: Sequence[str] | None) -> Iterator[Document]:
    """Yield documents with their text, waiting for those that are still being read.

    Args:
        library: where they are.
        document_ids: in this order; None for all that can be read. Those that cannot are left out then, and the log
            says why.

    Raises:
        UserFacingError: a chosen one is not in the library or cannot be read.
    """
    check_ids(library, document_ids)
    chosen = [entry.document_id for entry in library.entries()] if document_ids is None else dict.fromkeys(document_ids)
    for document_id in chosen:
        if document_ids is None and library.entry_or_none(document_id) is None:
            # Removed since.
            continue
        entry = library.wait(document_id)
        if entry.state != "read" and document_ids is None:
            _log.warning("%s is left out: %s", entry.name, entry.message or "it is not read yet")
            continue
        yield library.document(document_id)


def page_id(document: Document, page_index: int) -> str:
    """Names a document page; the same in every run."""
    return f"{document.document_id}:{page_index}"


def page_metadata(document: Document, page_index: int) -> dict[str, Any]:
    """What is known of a text by its document page."""
    return {
        **document_metadata(document),
        "page_label": document.document_pages[page_index].page_label,
        "page_index": page_index,
    }


def document_metadata(document: Document) -> dict[str, Any]:
    """What is known of a text by its document."""
    return {"document_id": document.document_id, "name": document.shown_name, "file_name": document.name}


def untold(metadata: dict[str, Any]) -> list[str]:
    """The keys of metadata that are no use to a model."""
    return [key for key in metadata if key not in _TOLD]
