"""The library as a retriever of llama-index: the passages that the page's own prompts are made of, with their scores.

BM25 over chunks of about a paragraph (`app.library.chunk_index`); no embeddings, so nothing to download or to keep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode

from app.errors import UserFacingError
from app.library import Document
from app.library.chunk_index import Chunk, chunk_index
from app.library.library import Library
from app.llama_index.library_documents import check_ids, chosen_documents, page_id, page_metadata, untold

DEFAULT_PASSAGES = 4


class LibraryRetriever(BaseRetriever):
    """Finds passages of a library's documents.

    A node is a stretch of one document page. Its metadata are those of `LibraryReader`'s pages, with the place of the
    passage in the page's text as start_char and end_char; its source is the reader's document of that page. The score
    is BM25's, which compares passages of one question. A question without a word of the documents finds none.

    Args:
        library: where to look.
        document_ids: which documents compete; None for all that can be read when a question is asked.
        similarity_top_k: how many passages at most.

    Raises:
        UserFacingError: a document that is not in the library, or `similarity_top_k` is below 1.
    """

    def __init__(
        self,
        library: Library,
        document_ids: Sequence[str] | None = None,
        similarity_top_k: int = DEFAULT_PASSAGES,
    ) -> None:
        check_ids(library, document_ids)
        if not isinstance(similarity_top_k, int) or similarity_top_k < 1:
            raise UserFacingError(f"similarity_top_k must be a number from 1 on, not {similarity_top_k!r}.")
        self._library = library
        self._document_ids = document_ids
        self._most_passages = similarity_top_k
        # Of the last question; as long as they are held here, the library need not read them from the disk again.
        self._documents: list[Document] = []
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        documents = self._documents = list(chosen_documents(self._library, self._document_ids))
        hits = chunk_index(documents).scored_hits(query_bundle.query_str)
        return [
            NodeWithScore(node=_node(documents[chunk.document_number], chunk), score=score)
            for chunk, score in hits[: self._most_passages]
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # The first question over a long book indexes it, which takes seconds.
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(document: Document, chunk: Chunk) -> TextNode:
    place = {"start_char": chunk.start_char, "end_char": chunk.end_char}
    metadata = {**page_metadata(document, chunk.page_index), **place}
    source = page_id(document, chunk.page_index)
    return TextNode(
        id_=f"{source}:{chunk.start_char}-{chunk.end_char}",
        text=document.document_pages[chunk.page_index].text[chunk.start_char : chunk.end_char],
        start_char_idx=chunk.start_char,
        end_char_idx=chunk.end_char,
        metadata=metadata,
        excluded_llm_metadata_keys=untold(metadata),
        excluded_embed_metadata_keys=untold(metadata),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)},
    )
