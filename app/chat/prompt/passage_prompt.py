"""The prompt of a conversation whose documents are longer than the window: passages take their place.

    before_system [passages of the first question] instructions [question 1] [answer 1]
    [what question 2 needs beside them] [question 2] ...

Every prompt continues the one before it, so that the cache is kept; what stands is not repeated. When the window is
full, the best passages for the present question stand first, and those of earlier questions are gone. How much is
taken was measured: see docs/long-documents.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from app.chat.prompt.prompt_part import DocumentEnd, PromptPart
from app.chat.prompt.template import ChatTokenizer
from app.chat.prompt.turn_passages import (
    PassageKind,
    PastTurn,
    StandingBlock,
    StandingPassages,
    TurnPassages,
    brought_block,
    standing_passages,
)
from app.chat.prompt.whole_questions import asks_for_the_whole
from app.library import Document, Passage, overview_passages, retrieve_more_passages, retrieve_passages

# Passages shorter than this in all tell too little to answer from.
MIN_PASSAGE_TOKENS = 128
# Of a window, for the passages of the first question; more than the most helps hardly any question.
_FIRST_SHARE = 0.6
_MOST_FIRST_TOKENS = 8000
# A further question gets so much of that: its first word comes in a quarter of the first one's time.
_NEXT_SHARE = 1 / 8
_LEAST_NEXT_TOKENS = 300
# Passages of a later question are kept on the disk from so many tokens on. Up to there everything has to be computed in
# a prefill's own chunks: the question and the answer before them are computed a second time.
_KEPT_TOKENS = 1024
# An overview gets half of it, and the first search beside it the other half; the outline is part of an overview.
_OVERVIEW_SHARE = 0.5
_OUTLINE_SHARE = 0.15
# Labels of pages up to this long may be Roman numbers.
_LONGEST_NUMBER = 7
_LABEL_CHARACTERS = 60
_PAGE_END = "\n\n"
DOCUMENTS_END = "---\n"


@dataclass(frozen=True)
class PassageRequest:
    """What a prompt with passages is made for.

    Args:
        documents: of the conversation.
        turns: that came before.
        question: as asked.
        instructions: the system prompt.
        room_tokens: kept free for the answer.
        searched_text: what is searched for beside the question, its translation; "" for nothing.
    """

    documents: Sequence[Document]
    turns: Sequence[PastTurn]
    question: str
    instructions: str
    room_tokens: int
    searched_text: str = ""

    @property
    def search(self) -> str:
        return f"{self.question} {self.searched_text}".strip()


@dataclass(frozen=True)
class PassagePrompt:
    """A prompt with passages.

    Args:
        part: all of it; its `document_ends` are those of the first passages, and of others that are worth keeping.
        added: what the question has brought into it.
    """

    part: PromptPart
    added: TurnPassages


class PassagePrompts:
    """Makes prompts with passages for one model.

    Args:
        tokenizer: of the model.
        context_tokens: its window.
        trained_tokens: the longest prompt without stretched positions. One that outgrew it would be read anew as a
            whole, and the model reads worse beyond it: passages stay within, if the conversation does.
    """

    def __init__(self, tokenizer: ChatTokenizer, context_tokens: int, trained_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._trained_tokens = min(trained_tokens, context_tokens)

    def prompt(self, request: PassageRequest) -> PassagePrompt | None:
        """The prompt for a question; None if the window leaves too little for passages."""
        standing = standing_passages(request.documents, request.turns)
        if standing is not None and (continued := self._continued(request, standing)) is not None:
            return continued
        return self._anew(request)

    def prompt_again(self, request: PassageRequest, brought: TurnPassages) -> PassagePrompt | None:
        """The prompt that a question had which has brought these passages; None if some of it is no longer there."""
        block = brought_block(request.documents, brought)
        if block is None:
            return None
        if brought.begins_anew:
            first = StandingPassages(len(request.turns), (block,))
            return PassagePrompt(self._layout(request, first, StandingBlock()), brought)
        standing = standing_passages(request.documents, request.turns)
        return None if standing is None else PassagePrompt(self._layout(request, standing, block), brought)

    def standing(self, request: PassageRequest) -> PromptPart | None:
        """How the next prompt will begin, up to where its question stands; None if it begins anew."""
        standing = standing_passages(request.documents, request.turns)
        if standing is None:
            return None
        part = self._layout(request, standing, StandingBlock())
        return part if part.length + request.room_tokens <= self._context_tokens else None

    def first_passage_tokens(self, request: PassageRequest) -> int:
        """The most that the passages of a prompt that begins anew may take; headings included."""
        conversation_tokens = self._layout(request, None, StandingBlock()).length
        window = self._trained_tokens
        if conversation_tokens + request.room_tokens + _first_tokens(window) > window:
            window = self._context_tokens
        return min(window - conversation_tokens - request.room_tokens, _first_tokens(window))

    def overview(self, request: PassageRequest) -> PromptPart | None:
        """How a first prompt begins that is asked about the whole; None if there is no room for it."""
        limit_tokens = self.first_passage_tokens(request)
        if limit_tokens < MIN_PASSAGE_TOKENS:
            return None
        passages = self._overview_passages(request.documents, int(limit_tokens * _OVERVIEW_SHARE), ())
        return self._beginning(StandingBlock(tuple(passages), "overview"), request.documents)

    def _anew(self, request: PassageRequest) -> PassagePrompt | None:
        limit_tokens = self.first_passage_tokens(request)
        if limit_tokens < MIN_PASSAGE_TOKENS:
            return None
        kind: PassageKind = "overview" if asks_for_the_whole(request.question, request.documents) else "search"
        if kind == "overview":
            passages = self._overview_passages(request.documents, int(limit_tokens * _OVERVIEW_SHARE), ())
        else:
            count = self._passage_counter(request.documents)
            passages = retrieve_passages(request.documents, request.search, limit_tokens - self._end_tokens, count)
        block = StandingBlock(tuple(passages), kind)
        first = StandingPassages(len(request.turns), (block,))
        part = self._layout(request, first, StandingBlock())
        if part.length + request.room_tokens > self._context_tokens:
            return None
        return PassagePrompt(part, TurnPassages.of(passages, True, kind))

    def _continued(self, request: PassageRequest, standing: StandingPassages) -> PassagePrompt | None:
        """The prompt with what stands and what is new; None if it does not fit."""
        base_tokens = self._layout(request, standing, StandingBlock()).length + request.room_tokens
        window = self._trained_tokens if base_tokens <= self._trained_tokens else self._context_tokens
        first_tokens, left_tokens = _first_tokens(window), window - base_tokens
        kind: PassageKind = "overview" if asks_for_the_whole(request.question, request.documents) else "search"
        if kind == "overview" and any(block.kind == "overview" for block in standing.blocks):
            passages = []
        elif kind == "overview":
            limit_tokens = int(first_tokens * _OVERVIEW_SHARE)
            if limit_tokens > left_tokens:
                return None
            passages = self._overview_passages(request.documents, limit_tokens, standing.passages)
        else:
            was_searched = any(block.kind == "search" and block.passages for block in standing.blocks)
            share = _NEXT_SHARE if was_searched else 1 - _OVERVIEW_SHARE
            limit_tokens = max(int(first_tokens * share), _LEAST_NEXT_TOKENS)
            count = self._passage_counter(request.documents)
            passages = retrieve_more_passages(
                request.documents, request.search, limit_tokens - self._end_tokens, count, standing.passages
            )
        part = self._layout(request, standing, StandingBlock(tuple(passages), kind))
        if part.length + request.room_tokens > window:
            return None
        return PassagePrompt(part, TurnPassages.of(passages, False, kind))

    def _layout(self, request: PassageRequest, standing: StandingPassages | None, new: StandingBlock) -> PromptPart:
        """The whole prompt, with `standing` in its places and `new` before the question."""
        tokenizer, documents = self._tokenizer, request.documents
        first = StandingBlock() if standing is None else standing.blocks[0]
        part = self._beginning(first, documents)
        part.add(tokenizer.encode(request.instructions).token_ids, "instructions")
        part.add(tokenizer.before_question, "instructions")
        for number, turn in enumerate(request.turns):
            if not turn.answer_token_ids:
                # It was interrupted before its first word.
                continue
            if standing is not None:
                self._append_block(part, standing.before_question(number), documents)
            part.add(tokenizer.encode(turn.question).token_ids, "conversation")
            part.add(tokenizer.before_past_answer, "instructions")
            part.add(turn.answer_token_ids, "conversation")
            part.add(tokenizer.after_answer, "instructions")
        self._append_block(part, new, documents)
        part.add(tokenizer.encode(request.question).token_ids, "conversation")
        part.add(tokenizer.before_answer, "instructions")
        return part

    def _beginning(self, block: StandingBlock, documents: Sequence[Document]) -> PromptPart:
        part = PromptPart()
        part.add(self._tokenizer.before_system, "instructions")
        part.append(self._block(block, documents))
        if block.passages:
            part.document_ends.append(_end(part, documents))
        return part

    def _append_block(self, part: PromptPart, block: StandingBlock, documents: Sequence[Document]) -> None:
        added = self._block(block, documents)
        part.append(added)
        if added.length >= _KEPT_TOKENS:
            part.document_ends.append(_end(part, documents))

    def _block(self, block: StandingBlock, documents: Sequence[Document]) -> PromptPart:
        """Passages, each under its document's name and page label; nothing if there are none."""
        part = PromptPart()
        if not block.passages:
            return part
        page_end = self._tokenizer.encode(_PAGE_END).token_ids
        if block.kind == "overview":
            part.append(self._outlines(documents))
        for passage in block.passages:
            part.add(self._heading(passage.document, passage.page_label), "instructions")
            encoded = self._tokenizer.encode(passage.text)
            part.add_page(passage.document, passage.page_index, encoded, passage.start_char)
            part.add(page_end, "instructions")
        part.add(self._tokenizer.encode(DOCUMENTS_END).token_ids, "instructions")
        return part

    def _heading(self, document: Document, page_label: str) -> tuple[int, ...]:
        return self._tokenizer.encode(f"[{document.name}, page {page_label}]\n").token_ids

    @property
    def _end_tokens(self) -> int:
        return len(self._tokenizer.encode(DOCUMENTS_END).token_ids)

    def _passage_counter(self, documents: Sequence[Document]) -> Callable[[str], int]:
        # Where a passage will come from is not known while it is counted, so each counts with the longest heading.
        places = {(document, page.page_label) for document in documents for page in document.document_pages}
        heading_tokens = max(len(self._heading(*place)) for place in places)
        beside_tokens = heading_tokens + len(self._tokenizer.encode(_PAGE_END).token_ids)
        return lambda text: self._tokenizer.count(text) + beside_tokens

    def _overview_passages(
        self, documents: Sequence[Document], limit_tokens: int, standing: Sequence[Passage]
    ) -> list[Passage]:
        left_tokens = limit_tokens - self._end_tokens - self._outlines(documents).length
        return overview_passages(documents, left_tokens, self._passage_counter(documents), standing)

    def _outlines(self, documents: Sequence[Document]) -> PromptPart:
        """The names of the documents' pages, as many as fit their part of an overview."""
        part = PromptPart()
        limit_tokens = int(_OUTLINE_SHARE * _first_tokens(self._trained_tokens)) // len(documents)
        for document in documents:
            # No name has less than a token, and hardly one so few.
            lines = [f"[{document.name}, contents]", *named_sections(document)[:limit_tokens]]
            text_tokens = [len(self._tokenizer.encode(f"{line}\n").token_ids) for line in lines]
            fitting = bisect_right(list(accumulate(text_tokens)), limit_tokens)
            if fitting > 1:
                part.add(self._tokenizer.encode("\n".join(lines[:fitting]) + _PAGE_END).token_ids, "instructions")
        return part


def named_sections(document: Document) -> list[str]:
    """What a document's pages are called, such as the chapters of an EPUB; nothing where they are only numbered."""
    labels = list(dict.fromkeys(page.page_label for page in document.document_pages))
    named = [
        label for label in labels if len(label) > _LONGEST_NUMBER and sum(map(str.isalpha, label)) > len(label) / 2
    ]
    return [label[:_LABEL_CHARACTERS] for label in named] if len(named) > len(labels) / 2 else []


def _first_tokens(window: int) -> int:
    return min(int(window * _FIRST_SHARE), _MOST_FIRST_TOKENS)


def _end(part: PromptPart, documents: Sequence[Document]) -> DocumentEnd:
    # Whatever it holds: it goes with any of the documents that were searched for it.
    return DocumentEnd(part.length, tuple(document.document_id for document in documents))
