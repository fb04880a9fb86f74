"""Find the passages of documents that bear on a question, as many as fit a number of tokens.

llama-index splits the document pages into chunks (SentenceSplitter), BM25 ranks them; here the best are taken until
the limit is reached, and neighbours are joined. Works offline: the splitter's default tokenizer and sentence model,
which it may want to download, are replaced by regular expressions. Knows nothing of prompts.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest

from app.errors import UserFacingError
from app.library.document import Document, Passage
from app.library.word_search import QuestionWords, WordSearch, searched_words

# In words and punctuation marks: about a paragraph or two, 200 to 300 tokens of a model.
_CHUNK_WORDS = 180
_CHUNK_OVERLAP_WORDS = 20
# After this many chunks in a row that are too long for what is left, the rest is not tried.
_MISSES = 8
_CACHED_INDEXES = 4

_WORD = re.compile(r"\w+|[^\w\s]")
# Sentences keep the blanks after them, so that the pieces still make up the text.
_SENTENCE = re.compile(r".+?(?:[.!?…。！？]+[\"'”’»)\]]*(?:\s+|$)|\n+|$)|\s+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Chunk:
    document_number: int
    page_index: int
    start_char: int
    end_char: int


@dataclass(frozen=True)
class _ChunkIndex:
    """Chunks of a set of documents in document order, and the search over them."""

    chunks: tuple[_Chunk, ...]
    search: WordSearch

    def ranking(self, question: str) -> Iterator[_Chunk]:
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

    def _beginnings(self) -> Iterator[_Chunk]:
        by_document: dict[int, list[_Chunk]] = {}
        for chunk in self.chunks:
            by_document.setdefault(chunk.document_number, []).append(chunk)
        for chunks in zip_longest(*by_document.values()):
            yield from (chunk for chunk in chunks if chunk)


@dataclass
class _Selection:
    """The passages taken so far, by document page, and what they cost."""

    documents: Sequence[Document]
    token_limit: int
    count_tokens: Callable[[str], int]
    tokens: int = 0
    spans: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    span_tokens: dict[tuple[int, int], int] = field(default_factory=dict)

    def text(self, page: tuple[int, int], start: int, end: int) -> str:
        document_number, page_index = page
        return self.documents[document_number].document_pages[page_index].text[start:end]

    def add(self, chunk: _Chunk, end_char: int | None = None) -> bool:
        """Take a chunk, or its beginning up to `end_char`, if it fits; say whether it did."""
        page = (chunk.document_number, chunk.page_index)
        new_span = (chunk.start_char, end_char or chunk.end_char)
        spans = self._merge(page, [*self.spans.get(page, ()), new_span])
        # The page's passages are counted anew: joined text is not exactly the sum of its parts.
        cost = sum(self.count_tokens(self.text(page, start, end)) for start, end in spans)
        tokens = self.tokens - self.span_tokens.get(page, 0) + cost
        if tokens > self.token_limit:
            return False
        self.tokens, self.spans[page], self.span_tokens[page] = tokens, spans, cost
        return True

    def _merge(self, page: tuple[int, int], spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        merged: list[tuple[int, int]] = []
        for start, end in sorted(spans):
            # Chunks lose the blanks at their ends, so neighbours may have some between them.
            if merged and (start <= merged[-1][1] or not self.text(page, merged[-1][1], start).strip()):
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def passages(self) -> list[Passage]:
        return [
            Passage(
                document=self.documents[page[0]],
                page_index=page[1],
                page_label=self.documents[page[0]].document_pages[page[1]].page_label,
                start_char=start,
                end_char=end,
                text=self.text(page, start, end),
            )
            for page in sorted(self.spans)
            for start, end in self.spans[page]
        ]


def retrieve_passages(
    documents: Sequence[Document], question: str, token_limit: int, count_tokens: Callable[[str], int]
) -> list[Passage]:
    """Choose the passages that bear most on a question.

    Args:
        documents: where to look; all compete.
        question: in the user's words. If none of its words occurs, the documents' beginnings are taken, evenly; see
            `question_words`.
        token_limit: the most that `count_tokens`, summed over the passages' texts, may come to.
        count_tokens: tells how many tokens a text has for the model.

    Returns:
        Passages that do not overlap, in the order of the documents and of their pages. They fill the limit as far as
        whole chunks do: the best first, then what stands around them. Empty if `token_limit` leaves room for nothing.

    Raises:
        UserFacingError: llama-index is not installed.
    """
    if token_limit <= 0:
        return []
    selection = _Selection(documents, token_limit, count_tokens)
    misses = 0
    for chunk in _index(documents).ranking(question):
        if selection.add(chunk):
            misses = 0
            continue
        if not selection.spans and _add_beginning(selection, chunk):
            break
        misses += 1
        if misses == _MISSES:
            break
    return selection.passages()


def question_words(documents: Sequence[Document], question: str) -> QuestionWords:
    """Tell which of a question's words occur in the documents at all.

    Args:
        documents: where to look.
        question: in the user's words.

    Raises:
        UserFacingError: llama-index is not installed.
    """
    search = _index(documents).search
    words = dict.fromkeys(searched_words(question))
    found = tuple(word for word in words if search.has(word))
    return QuestionWords(found, tuple(word for word in words if word not in found))


def _add_beginning(selection: _Selection, chunk: _Chunk) -> bool:
    """Take as much of the best chunk as fits: a limit smaller than a chunk should not give nothing."""
    text = selection.text((chunk.document_number, chunk.page_index), chunk.start_char, chunk.end_char)
    word_ends = [match.end() for match in re.finditer(r"\S+", text)]
    low, high = 0, len(word_ends)
    while low < high:
        middle = (low + high + 1) // 2
        if selection.count_tokens(text[: word_ends[middle - 1]]) <= selection.token_limit:
            low = middle
        else:
            high = middle - 1
    return low > 0 and selection.add(chunk, chunk.start_char + word_ends[low - 1])


_indexes: OrderedDict[tuple, _ChunkIndex] = OrderedDict()
_indexes_lock = threading.Lock()


def _index(documents: Sequence[Document]) -> _ChunkIndex:
    # The same bytes under another name may be another format, and so another text.
    key = tuple((document.document_id, document.page_count, document.text_characters) for document in documents)
    with _indexes_lock:
        if key not in _indexes:
            _indexes[key] = _build_index(documents)
            if len(_indexes) > _CACHED_INDEXES:
                _indexes.popitem(last=False)
        _indexes.move_to_end(key)
        return _indexes[key]


def _build_index(documents: Sequence[Document]) -> _ChunkIndex:
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
    chunks: list[_Chunk] = []
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
                chunks.append(_Chunk(document_number, page.index, start, start + len(text)))
                texts.append(text)
                # The next one begins in the overlap: in text that repeats itself, it stands further up, too.
                words = list(_WORD.finditer(text))[-_CHUNK_OVERLAP_WORDS:]
                search_from = start + (words[0].start() if words else 1)
    return _ChunkIndex(tuple(chunks), WordSearch(texts))
