"""Find the passages of documents that bear on a question, as many as fit a number of tokens.

`app.library.chunk_index` ranks the chunks of the documents; here the best are taken until the limit is reached, and
neighbours are joined. For a question about the whole there is an even spread instead. Knows nothing of prompts.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from app.library.chunk_index import Chunk, chunk_index
from app.library.document import Document, Passage
from app.library.word_search import QuestionWords, searched_words

# After this many chunks in a row that are too long for what is left, the rest is not tried.
_MISSES = 8
# What a chunk has beyond passages that stand already is not worth a passage of its own if it is shorter.
_LEAST_CHARACTERS = 40
# Of an overview: the beginning, the tables of contents, and the rest for the spread.
_BEGINNING_SHARE = 0.3
_CONTENTS_SHARE = 0.3
_CONTENTS_PAGES = 30
_CONTENTS_LINE = re.compile(r"\S.*?[\s.·…_]+(?:\d{1,4}|[ivxlc]{1,7})\s*$", re.IGNORECASE)
_CONTENTS_LINES = 8
_CONTENTS_LINE_CHARACTERS = 200


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

    def add(self, chunk: Chunk, end_char: int | None = None) -> bool:
        """Take a chunk, or its beginning up to `end_char`, if it fits; say whether it did."""
        return self.add_span((chunk.document_number, chunk.page_index), chunk.start_char, end_char or chunk.end_char)

    def add_span(self, page: tuple[int, int], start_char: int, end_char: int) -> bool:
        """Take a stretch of a page if it fits; say whether it did."""
        new_span = (start_char, end_char)
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
    for chunk in chunk_index(documents).ranking(question):
        if selection.add(chunk):
            misses = 0
            continue
        if not selection.spans and _add_beginning(selection, chunk):
            break
        misses += 1
        if misses == _MISSES:
            break
    return selection.passages()


def retrieve_more_passages(
    documents: Sequence[Document],
    question: str,
    token_limit: int,
    count_tokens: Callable[[str], int],
    standing: Sequence[Passage],
) -> list[Passage]:
    """Choose what a further question needs beside the passages that stand already.

    Args:
        documents, question, count_tokens: as in `retrieve_passages`.
        token_limit: the best chunks are looked at until they have as many tokens, those that stand already included.
        standing: passages of earlier questions.

    Returns:
        Passages that overlap neither each other nor those that stand, in the order of the documents; none if all that
        is best stands already, or no word of the question occurs.

    Raises:
        UserFacingError: llama-index is not installed.
    """
    selection, depth_tokens = _Selection(documents, token_limit, count_tokens), 0
    covered = _covered(documents, standing)
    for chunk in chunk_index(documents).hits(question):
        page = (chunk.document_number, chunk.page_index)
        depth_tokens += count_tokens(selection.text(page, chunk.start_char, chunk.end_char))
        if depth_tokens > token_limit:
            break
        for start, end in _uncovered(chunk, covered.get(page, ())):
            selection.add_span(page, start, end)
    return selection.passages()


def overview_passages(
    documents: Sequence[Document],
    token_limit: int,
    count_tokens: Callable[[str], int],
    standing: Sequence[Passage] = (),
) -> list[Passage]:
    """Choose what tells most of the documents as a whole: beginnings, tables of contents, and an even spread.

    Args:
        documents: each gets the same part of the limit.
        token_limit, count_tokens: as in `retrieve_passages`.
        standing: passages that are there already, and are left out.

    Returns:
        Passages that overlap neither each other nor those that stand, in the order of the documents.

    Raises:
        UserFacingError: llama-index is not installed.
    """
    chunks, passages = chunk_index(documents).chunks, []
    covered = _covered(documents, standing)
    for number in range(len(documents)):
        own = [chunk for chunk in chunks if chunk.document_number == number]
        if own:
            selection = _Selection(documents, token_limit // len(documents), count_tokens)
            _select_overview(selection, own, covered)
            passages += selection.passages()
    return passages


def _select_overview(
    selection: "_Selection", chunks: Sequence[Chunk], covered: dict[tuple[int, int], list[tuple[int, int]]]
) -> None:
    def take(chosen: Iterable[Chunk], limit_tokens: float) -> None:
        for chunk in chosen:
            page = (chunk.document_number, chunk.page_index)
            for start, end in _uncovered(chunk, covered.get(page, ())):
                selection.add_span(page, start, end)
            if selection.tokens >= limit_tokens:
                return

    limit = selection.token_limit
    take(chunks, _BEGINNING_SHARE * limit)
    pages = selection.documents[chunks[0].document_number].document_pages
    contents = {page.index for page in pages[:_CONTENTS_PAGES] if _is_contents(page.text)}
    take((chunk for chunk in chunks if chunk.page_index in contents), (_BEGINNING_SHARE + _CONTENTS_SHARE) * limit)
    longest = max(
        selection.count_tokens(
            selection.text((chunk.document_number, chunk.page_index), chunk.start_char, chunk.end_char)
        )
        for chunk in chunks[:: max(1, len(chunks) // 64)]
    )
    places = min(len(chunks), int((limit - selection.tokens) // max(1, longest)))
    step = len(chunks) / max(1, places)
    # From the last one on, which is an end that is worth knowing.
    take((chunks[len(chunks) - 1 - int(place * step)] for place in range(places)), limit)


def _is_contents(text: str) -> bool:
    """Whether a page is a table of contents: most of its lines end in a number."""
    # Of endless lines the ends: the expression tries each of their characters as a beginning.
    lines = [line[-_CONTENTS_LINE_CHARACTERS:] for line in text.splitlines() if line.strip()]
    return len(lines) >= _CONTENTS_LINES and sum(map(bool, map(_CONTENTS_LINE.match, lines))) > len(lines) / 2


def _covered(
    documents: Sequence[Document], passages: Sequence[Passage]
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The characters of passages, by document number and page."""
    numbers = {document.document_id: number for number, document in enumerate(documents)}
    covered: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for one in passages:
        page = (numbers[one.document.document_id], one.page_index)
        covered.setdefault(page, []).append((one.start_char, one.end_char))
    return covered


def _uncovered(chunk: Chunk, covered: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The stretches of a chunk that are in none of `covered`, without the shortest."""
    left, start = [], chunk.start_char
    for covered_start, covered_end in sorted(covered):
        if covered_start < chunk.end_char and covered_end > start:
            left.append((start, covered_start))
            start = covered_end
    left.append((start, chunk.end_char))
    least = min(_LEAST_CHARACTERS, chunk.end_char - chunk.start_char)
    return [(start, end) for start, end in left if end - start >= least]


def question_words(documents: Sequence[Document], question: str) -> QuestionWords:
    """Tell which of a question's words occur in the documents at all.

    Args:
        documents: where to look.
        question: in the user's words.

    Raises:
        UserFacingError: llama-index is not installed.
    """
    search = chunk_index(documents).search
    words = dict.fromkeys(searched_words(question))
    found = tuple(word for word in words if search.has(word))
    return QuestionWords(found, tuple(word for word in words if word not in found))


def _add_beginning(selection: _Selection, chunk: Chunk) -> bool:
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
