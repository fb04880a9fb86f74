"""Documents cut into chunks of about a paragraph, and the search over them.

llama-index splits the document pages (SentenceSplitter), BM25 ranks the chunks. Works offline: the splitter's default
tokenizer and sentence model, which it may want to download, are replaced by regular expressions. Knows nothing of
limits or prompts.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest

from app.errors import UserFacingError
from app.library.document import Document
from app.library.word_search import WordSearch

# In words and punctuation marks: about a paragraph, 150 tokens of a model. Of 40, 60, 90, 120 and 180, this one and 90
# need the fewest tokens of passages until the answer is among them; see docs/long-documents.md.
_CHUNK_WORDS = 120
_CHUNK_OVERLAP_WORDS = 15
_CACHED_INDEXES = 4

_WORD = re.compile(r"\w+|[^\w\s]")
# Sentences keep the blanks after them, so that the pieces still make up the text.
_SENTENCE = re.compile(r".+?(?:[.!?…。！？]+[\"'”’»)\]]*(?:\s+|$)|\n+|$)|\s+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of one document page; `document_number` counts within the documents that were cut."""

    document_number: int
    page_index: int
    start_char: int
    end_char: int


@dataclass(frozen=True)
class ChunkIndex:
    """Chunks of a set of documents in document order, and the search over them."""

    chunks: tuple[Chunk, ...]
    search: WordSearch

    def hits(self, question: str) -> list[Chunk]:
        """The chunks that have words of the question, best first."""
        return [self.chunks[number] for number in self.search.hits(question)]

    def scored_hits(self, question: str) -> list[tuple[Chunk, float]]:
        """`hits`, each with its BM25 score."""
        return [(self.chunks[number], score) for number, score in self.search.scored_hits(question)]

    def ranking(self, question: str) -> Iterator[Chunk]:
        """Yield all chunks, best first: those with words of the question, then what stands ever farther from these.

        If no chunk has any of its words, the beginnings of the documents in turn.
        """
        hits = self.search.hits(question)
        if not hits:
            yield from self._beginnings()
            return
        seen = set(hits)
        yield from (self.chunks[number] for number in hits)
        for distance in count(1):
            if len(seen) == len(self.chunks):
                return
            for number in hits:
                for neighbour in (number + distance, number - distance):
                    if 0 <= neighbour < len(self.chunks) and neighbour not in seen:
                        seen.add(neighbour)
                        yield self.chunks[neighbour]

    def _beginnings(self) -> Iterator[Chunk]:
        by_document: dict[int, list[Chunk]] = {}
        for chunk in self.chunks:
            by_document.setdefault(chunk.document_number, []).append(chunk)
        for chunks in zip_longest(*by_document.values()):
            yield from (chunk for chunk in chunks if chunk)


_indexes: OrderedDict[tuple, ChunkIndex] = OrderedDict()
_indexes_lock = threading.Lock()


def chunk_index(documents: Sequence[Document]) -> ChunkIndex:
    """The chunks of documents and the search over them; those of the last few sets of documents are kept.

    Raises:
        UserFacingError: llama-index is not installed.
    """
    # The same bytes under another name may be another format, and so another text.
    key = tuple((document.document_id, document.page_count, document.text_characters) for document in documents)
    with _indexes_lock:
        if key not in _indexes:
            _indexes[key] = _build_index(documents)
            if len(_indexes) > _CACHED_INDEXES:
                _indexes.popitem(last=False)
        _indexes.move_to_end(key)
        return _indexes[key]


def _build_index(documents: Sequence[Document]) -> ChunkIndex:
    try:
        import bm25s  # noqa: F401
        from llama_index.core.node_parser import SentenceSplitter
    except ImportError as error:
        raise UserFacingError(
            "The documents are longer than the model's window, and finding passages in them needs packages that are "
            f"not installed ({error.name}). Install requirements.txt, or use a shorter document."
        ) from error

    splitter = SentenceSplitter(
        chunk_size=_CHUNK_WORDS,
        chunk_overlap=_CHUNK_OVERLAP_WORDS,
        tokenizer=_WORD.findall,
        chunking_tokenizer_fn=_SENTENCE.findall,
        paragraph_separator="\n\n",
    )
    chunks: list[Chunk] = []
    texts: list[str] = []
    for document_number, document in enumerate(documents):
        for page in document.document_pages:
            search_from = 0
            for text in splitter.split_text(page.text):
                # The splitter returns texts without their places.
                start = page.text.find(text, search_from)
                # One that is not found has no place to cite.
                if start < 0 or not text.strip():
                    continue
                chunks.append(Chunk(document_number, page.index, start, start + len(text)))
                texts.append(text)
                # The next one begins in the overlap: in text that repeats itself, it stands further up, too.
                words = list(_WORD.finditer(text))[-_CHUNK_OVERLAP_WORDS:]
                search_from = start + (words[0].start() if words else 1)
    return ChunkIndex(tuple(chunks), WordSearch(texts))
