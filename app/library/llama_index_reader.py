"""Documents as llama-index sees them: one llama-index `Document` for each document page.

A `DocumentReader` can be given to `SimpleDirectoryReader(file_extractor=...)`, which without one takes in a PDF's raw
bytes. Importing this module imports llama-index, which takes seconds.
"""

from pathlib import Path
from typing import Any

from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import Document as LlamaIndexDocument

from app.library.document import Document
from app.library.limits import ReadLimits
from app.library.reader import read_document


class DocumentReader(BaseReader):
    """Reads every format that `read_document` reads, in the same separate process.

    Args:
        password: opens encrypted PDFs.
        limits: what reading one file may cost; the defaults of `ReadLimits` if None.
    """

    def __init__(self, password: str | None = None, limits: ReadLimits | None = None):
        self._password = password
        self._limits = limits

    def load_data(
        self, file: Path | str, extra_info: dict[str, Any] | None = None, **_: Any
    ) -> list[LlamaIndexDocument]:
        """Read one file.

        Args:
            file: the file's path.
            extra_info: metadata to add to each page, as `SimpleDirectoryReader` passes it.

        Returns:
            One llama-index document for each document page, in order, those without text included; the metadata of each
            holds `page_label`, `page_index` (0-based), `file_name` and `document_id`.

        Raises:
            UserFacingError: as `read_document` does.
        """
        document = read_document(Path(file), password=self._password, limits=self._limits)
        return to_llama_index(document, extra_info)


def to_llama_index(document: Document, extra_metadata: dict[str, Any] | None = None) -> list[LlamaIndexDocument]:
    """Turn a document into llama-index documents, one for each document page.

    Args:
        document: a document that was read.
        extra_metadata: added to the metadata of each page; must not matter to retrieval.

    Returns:
        The pages in order.
    """
    pages = []
    for page in document.document_pages:
        metadata = {
            **(extra_metadata or {}),
            "page_label": page.page_label,
            "page_index": page.index,
            "file_name": document.name,
            "document_id": document.document_id,
        }
        pages.append(
            LlamaIndexDocument(
                id_=f"{document.document_id}-{page.index}",
                text=page.text,
                metadata=metadata,
                # Retrievers index text together with metadata: every page would match the words of the file's name.
                excluded_embed_metadata_keys=list(metadata),
                excluded_llm_metadata_keys=[key for key in metadata if key not in ("page_label", "file_name")],
            )
        )
    return pages
