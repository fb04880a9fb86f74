"""The prompt of a conversation: documents first, then instructions, then the turns.

The documents' tokens stand at the same positions in every turn, so that the KV cache is reused, and answers are kept as
the very tokens that were generated. Every prompt token is known to be of a document page's characters, of the
conversation, or of the instructions. If the documents do not fit the window, passages take their place. Knows
nothing of the engine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from app.chat.prompt.document_tokens import DocumentTokens, TokenCount
from app.chat.prompt.template import ChatTokenizer, EncodedText
from app.errors import UserFacingError
from app.library import Document, QuestionWords, question_words, retrieve_passages

# Of several wordings and places tried on the embedded model and the sample book, this one behind the documents made the
# fewest inventions and repetitions; labels before every document page made no difference.
DEFAULT_SYSTEM_PROMPT = (
    "You are a helpful assistant. Answer the question from the document, briefly and in your own words."
)
# Stands in for the default where there is no document to answer from.
PLAIN_SYSTEM_PROMPT = "You are a helpful assistant."
# Passages shorter than this in all tell too little to answer from.
MIN_PASSAGE_TOKENS = 128
# What is reckoned for a question that has not come yet.
LIKELY_QUESTION_TOKENS = 64
_PAGE_END = "\n\n"
_DOCUMENTS_END = "---\n"

Role = Literal["document", "conversation", "instructions"]


class PastTurn(Protocol):
    """A question and the tokens that answered it, without the thought before them and the stop token."""

    question: str
    answer_token_ids: Sequence[int]


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


@dataclass(frozen=True)
class PromptPlan:
    """A prompt, and where its tokens come from.

    Args:
        token_ids: the whole prompt.
        spans: in order, without gaps.
        document_tokens: tokens of all the documents' text.
        tokens_in_context: how many of them are in the prompt.
        mode: "whole" if that is all of them, else "passages".
        documents: those of the conversation.
        question_words: what the passages were searched with; None if there was no search.
        document_ends: the end of each document, where they are there as a whole.
    """

    token_ids: list[int]
    spans: tuple[PromptSpan, ...]
    document_tokens: TokenCount
    tokens_in_context: int
    mode: Literal["whole", "passages"]
    documents: tuple[Document, ...] = ()
    question_words: QuestionWords | None = None
    document_ends: tuple[DocumentEnd, ...] = ()

    def spans_between(self, start_token: int, end_token: int) -> tuple[PromptSpan, ...]:
        """The spans that have tokens in [start_token, end_token)."""
        first = max(0, bisect_right(self.spans, start_token, key=lambda span: span.start_token) - 1)
        return tuple(
            span for span in self.spans[first:] if span.start_token < end_token and span.end_token > start_token
        )

    @property
    def document_pages_in_context(self) -> tuple[tuple[Document, str], ...]:
        """Each document page that has tokens in the prompt, with its label, in order."""
        pages = {
            (span.document.document_id, span.page_index): (span.document, span.page_label)
            for span in self.spans
            if span.document is not None
        }
        return tuple(pages.values())

    @property
    def passages(self) -> int:
        """Number of stretches of document text in the prompt."""
        return sum(span.document is not None for span in self.spans)

    @property
    def heading_tokens(self) -> int:
        """Tokens that introduce the documents' text: their names, page labels, the template's beginning."""
        end = max((span.end_token for span in self.spans if span.document is not None), default=0)
        return end - self.tokens_in_context


@dataclass(frozen=True)
class ReadingPlan:
    """What can be read before a question comes: the documents, as every prompt of the conversation begins.

    Args:
        token_ids: that beginning.
        document_ends: the end of each document; the last is that of all tokens.
        room_tokens: how many more the next question, its answer and the turns before it are likely to take.
    """

    token_ids: list[int]
    document_ends: tuple[DocumentEnd, ...]
    room_tokens: int


@dataclass(frozen=True)
class ContextUsage:
    """What fills the window, in tokens, before the next question.

    Args:
        document_tokens: of all the documents' text.
        conversation_tokens: of instructions and turns.
        context_tokens: the window.
        mode: "whole" if the next question gets the whole documents, else "passages".
        passage_tokens: with passages, how many tokens of the documents the last answer had; before there is one, how
            many the next can have at most.
        passages_are_read: which of the two it is.
        heading_tokens: what introduced these passages.
    """

    document_tokens: TokenCount
    conversation_tokens: int
    context_tokens: int
    mode: Literal["whole", "passages"]
    passage_tokens: int = 0
    passages_are_read: bool = False
    heading_tokens: int = 0

    def with_passages_of(self, plan: PromptPlan | None) -> ContextUsage:
        """The usage after the answer to `plan`; the same if that had no passages, or has not been."""
        if plan is None or self.mode != "passages" or plan.mode != "passages":
            return self
        return replace(
            self,
            passage_tokens=plan.tokens_in_context,
            passages_are_read=True,
            heading_tokens=plan.heading_tokens,
        )


class PromptPlanner:
    """Plans prompts for one model.

    Args:
        tokenizer: of the model.
        context_tokens: its window.
    """

    def __init__(self, tokenizer: ChatTokenizer, context_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._document_tokens = DocumentTokens(tokenizer, context_tokens)

    def plan(
        self,
        documents: Sequence[Document],
        turns: Sequence[PastTurn],
        question: str,
        system_prompt: str,
        max_new_tokens: int,
    ) -> PromptPlan:
        """The prompt for `question`.

        Raises:
            UserFacingError: if the conversation and the room for an answer leave too little of the window.
        """
        conversation = self._conversation(turns, question, _instructions(documents, system_prompt))
        document_tokens = TokenCount.total(map(self.document_tokens, documents))
        left_tokens = self._left_tokens(conversation, max_new_tokens)
        if left_tokens < 0:
            raise self._window_is_full(conversation.length, max_new_tokens, "")
        prompt = _PromptPart()
        prompt.add(self._tokenizer.before_system, "instructions")
        mode: Literal["whole", "passages"] = "whole"
        words = None
        whole = self._whole_documents(documents, left_tokens)
        if whole is not None:
            prompt.append(whole)
        else:
            mode = "passages"
            if left_tokens < MIN_PASSAGE_TOKENS:
                raise self._window_is_full(conversation.length, max_new_tokens, " for the documents")
            prompt.append(self._passages(documents, question, left_tokens))
            words = question_words(documents, question)
        prompt.append(conversation)
        in_context = sum(span.end_token - span.start_token for span in prompt.spans if span.document is not None)
        return PromptPlan(
            prompt.token_ids,
            tuple(prompt.spans),
            document_tokens,
            in_context,
            mode,
            tuple(documents),
            words,
            tuple(prompt.document_ends),
        )

    def reading_plan(
        self, documents: Sequence[Document], turns: Sequence[PastTurn], system_prompt: str, max_new_tokens: int
    ) -> ReadingPlan | None:
        """What of the next prompt is known before its question; None if passages will take the documents' place."""
        conversation = self._conversation(turns, "", _instructions(documents, system_prompt))
        left_tokens = self._left_tokens(conversation, max_new_tokens)
        whole = self._whole_documents(documents, left_tokens)
        if whole is None or not documents:
            return None
        prompt = _PromptPart()
        prompt.add(self._tokenizer.before_system, "instructions")
        prompt.append(whole)
        ends = tuple(prompt.document_ends)
        room_tokens = conversation.length + LIKELY_QUESTION_TOKENS + max_new_tokens
        return ReadingPlan(prompt.token_ids[: ends[-1].end_token], ends, room_tokens)

    def usage(
        self, documents: Sequence[Document], turns: Sequence[PastTurn], system_prompt: str, max_new_tokens: int
    ) -> ContextUsage:
        """How full the window is before the next question, which may be empty."""
        conversation = self._conversation(turns, "", _instructions(documents, system_prompt))
        document_tokens = TokenCount.total(map(self.document_tokens, documents))
        left_tokens = self._left_tokens(conversation, max_new_tokens)
        if self._whole_documents(documents, left_tokens) is not None:
            return ContextUsage(document_tokens, conversation.length, self._context_tokens, "whole")
        return ContextUsage(
            document_tokens, conversation.length, self._context_tokens, "passages", passage_tokens=max(0, left_tokens)
        )

    def _left_tokens(self, conversation: _PromptPart, max_new_tokens: int) -> int:
        """Room for documents beside the conversation and the answer."""
        return self._context_tokens - len(self._tokenizer.before_system) - conversation.length - max_new_tokens

    def _window_is_full(self, conversation_tokens: int, max_new_tokens: int, what: str) -> UserFacingError:
        return UserFacingError(
            f"The conversation ({conversation_tokens} tokens) and the room for an answer ({max_new_tokens}) leave too "
            f"little of the model's window of {self._context_tokens} tokens{what}. Clear the conversation, ask for a "
            "shorter answer, or start with more --context-tokens."
        )

    def _conversation(self, turns: Sequence[PastTurn], question: str, system_prompt: str) -> _PromptPart:
        """Instructions, past turns and the question, up to where the answer begins."""
        tokenizer, part = self._tokenizer, _PromptPart()
        part.add(tokenizer.encode(system_prompt).token_ids, "instructions")
        part.add(tokenizer.before_question, "instructions")
        for turn in turns:
            if not turn.answer_token_ids:
                # It was interrupted before its first word.
                continue
            part.add(tokenizer.encode(turn.question).token_ids, "conversation")
            part.add(tokenizer.before_past_answer, "instructions")
            part.add(turn.answer_token_ids, "conversation")
            part.add(tokenizer.after_answer, "instructions")
        part.add(tokenizer.encode(question).token_ids, "conversation")
        part.add(tokenizer.before_answer, "instructions")
        return part

    def _whole_documents(self, documents: Sequence[Document], limit_tokens: int) -> _PromptPart | None:
        """All of the documents' text, or None if it does not fit `limit_tokens`."""
        part = _PromptPart()
        if not documents:
            return part
        text_tokens = TokenCount.total(map(self.document_tokens, documents))
        if text_tokens.tokens > limit_tokens or not text_tokens.is_exact:
            return None
        for document in documents:
            part.add(self._tokenizer.encode(_title(document)).token_ids, "instructions")
            pages = self._document_tokens.pages(document)
            for page, encoded in zip(document.document_pages, pages, strict=True):
                if encoded.token_ids:
                    part.add_page(document, page.index, encoded)
                    part.add(self._tokenizer.encode(_PAGE_END).token_ids, "instructions")
            part.end_document(document)
        part.add(self._tokenizer.encode(_DOCUMENTS_END).token_ids, "instructions")
        return part if part.length <= limit_tokens else None

    def _passages(self, documents: Sequence[Document], question: str, limit_tokens: int) -> _PromptPart:
        """The passages for the question that fit `limit_tokens`, each under its document's name and page label."""

        def heading(document: Document, page_label: str) -> tuple[int, ...]:
            return self._tokenizer.encode(f"[{document.name}, page {page_label}]\n").token_ids

        page_end = self._tokenizer.encode(_PAGE_END).token_ids
        documents_end = self._tokenizer.encode(_DOCUMENTS_END).token_ids
        # Where a passage will come from is not known while it is counted, so each counts with the longest heading.
        heading_tokens = max(
            len(heading(document, page.page_label)) for document in documents for page in document.document_pages
        )
        passages = retrieve_passages(
            documents,
            question,
            limit_tokens - len(documents_end),
            lambda text: self._tokenizer.count(text) + heading_tokens + len(page_end),
        )
        part = _PromptPart()
        for passage in passages:
            part.add(heading(passage.document, passage.page_label), "instructions")
            encoded = self._tokenizer.encode(passage.text)
            part.add_page(passage.document, passage.page_index, encoded, passage.start_char)
            part.add(page_end, "instructions")
        part.add(documents_end, "instructions")
        return part

    def document_tokens(self, document: Document) -> TokenCount:
        """Tokens of a document's text."""
        return self._document_tokens.count(document)


@dataclass
class _PromptPart:
    """Tokens and spans of a stretch of the prompt, counted from its own beginning."""

    token_ids: list[int] = field(default_factory=list)
    spans: list[PromptSpan] = field(default_factory=list)
    document_ends: list[DocumentEnd] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.token_ids)

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

    def append(self, part: _PromptPart) -> None:
        start = self.length
        self.document_ends.extend(replace(end, end_token=end.end_token + start) for end in part.document_ends)
        self.token_ids.extend(part.token_ids)
        self.spans.extend(
            replace(span, start_token=span.start_token + start, end_token=span.end_token + start) for span in part.spans
        )


def _instructions(documents: Sequence[Document], system_prompt: str) -> str:
    return PLAIN_SYSTEM_PROMPT if system_prompt == DEFAULT_SYSTEM_PROMPT and not documents else system_prompt


def _title(document: Document) -> str:
    return f'Document "{document.name}":\n\n'
