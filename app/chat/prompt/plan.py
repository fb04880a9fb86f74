"""The prompt of a conversation: documents first, then instructions, then the turns.

The documents' tokens stand at the same positions in every turn, so that the KV cache is reused, and answers are kept as
the very tokens that were generated. Every prompt token is known to be of a document page's characters, of the
conversation, or of the instructions. If the documents do not fit the window, passages take their place: see
`app.chat.prompt.passage_prompt`. Knows nothing of the engine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.chat.prompt.document_tokens import DocumentTokens, TokenCount
from app.chat.prompt.passage_prompt import DOCUMENTS_END, PassagePrompt, PassagePrompts, PassageRequest
from app.chat.prompt.prompt_part import DocumentEnd, PromptPart, PromptSpan
from app.chat.prompt.template import ChatTokenizer
from app.chat.prompt.turn_passages import PastTurn, TurnPassages
from app.chat.prompt.whole_questions import asks_for_the_whole
from app.errors import UserFacingError
from app.library import Document, QuestionWords, question_words

# Of several wordings and places tried on the embedded model and the sample book, this one behind the documents made the
# fewest inventions and repetitions; labels before every document page made no difference.
DEFAULT_SYSTEM_PROMPT = (
    "You are a helpful assistant. Answer the question from the document, briefly and in your own words."
)
# Stands in for the default where there is no document to answer from.
PLAIN_SYSTEM_PROMPT = "You are a helpful assistant."
# What is reckoned for a question that has not come yet.
LIKELY_QUESTION_TOKENS = 64
_PAGE_END = "\n\n"


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
        kept_ends: what is worth keeping for other prompts: up to each of these.
        passages_added: what the question has brought into the prompt; None without passages.
        searched_text: what was searched for beside the question; "" for nothing.
    """

    token_ids: list[int]
    spans: tuple[PromptSpan, ...]
    document_tokens: TokenCount
    tokens_in_context: int
    mode: Literal["whole", "passages"]
    documents: tuple[Document, ...] = ()
    question_words: QuestionWords | None = None
    document_ends: tuple[DocumentEnd, ...] = ()
    kept_ends: tuple[DocumentEnd, ...] = ()
    passages_added: TurnPassages | None = None
    searched_text: str = ""

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
        is_overview: whether the documents are longer than the window, and these are the passages that a question about
            the whole gets.
    """

    token_ids: list[int]
    document_ends: tuple[DocumentEnd, ...]
    room_tokens: int
    is_overview: bool = False


@dataclass(frozen=True)
class ContextUsage:
    """What fills the window, in tokens, before the next question.

    Args:
        document_tokens: of all the documents' text.
        conversation_tokens: of instructions and turns.
        context_tokens: the window.
        mode: "whole" if the next question gets the whole documents, else "passages".
        passage_tokens: with passages, how many tokens of the documents stand in the prompt; before there are any, how
            many the next can have at most.
        passages_are_read: which of the two it is.
        heading_tokens: what introduces these passages.
    """

    document_tokens: TokenCount
    conversation_tokens: int
    context_tokens: int
    mode: Literal["whole", "passages"]
    passage_tokens: int = 0
    passages_are_read: bool = False
    heading_tokens: int = 0


class PromptPlanner:
    """Plans prompts for one model.

    Args:
        tokenizer: of the model.
        context_tokens: its window.
        trained_tokens: the longest prompt without stretched positions; None is the window.
    """

    def __init__(self, tokenizer: ChatTokenizer, context_tokens: int, trained_tokens: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._document_tokens = DocumentTokens(tokenizer, context_tokens)
        self._passages = PassagePrompts(tokenizer, context_tokens, trained_tokens or context_tokens)

    def plan(
        self,
        documents: Sequence[Document],
        turns: Sequence[PastTurn],
        question: str,
        system_prompt: str,
        max_new_tokens: int,
        searched_text: str = "",
    ) -> PromptPlan:
        """The prompt for `question`; documents longer than the window are also searched for `searched_text`.

        Raises:
            UserFacingError: if the conversation and the room for an answer leave too little of the window.
        """
        instructions = _instructions(documents, system_prompt)
        conversation = self._conversation(turns, question, instructions)
        document_tokens = TokenCount.total(map(self.document_tokens, documents))
        left_tokens = self._left_tokens(conversation, max_new_tokens)
        if left_tokens < 0:
            raise self._window_is_full(conversation.length, max_new_tokens, "")
        whole = self._whole_documents(documents, left_tokens)
        if whole is None:
            request = PassageRequest(documents, turns, question, instructions, max_new_tokens, searched_text)
            made = self._passages.prompt(request)
            if made is None:
                raise self._window_is_full(conversation.length, max_new_tokens, " for the documents")
            return self._passage_plan(made, request, document_tokens)
        return self._whole_plan(whole, conversation, documents, document_tokens)

    def plan_again(
        self,
        documents: Sequence[Document],
        turns: Sequence[PastTurn],
        question: str,
        system_prompt: str,
        brought: TurnPassages | None,
    ) -> PromptPlan | None:
        """The prompt that a question had, for its answer to go on after it.

        Args:
            documents: those of that prompt.
            turns: that came before.
            question, system_prompt: as they were.
            brought: the passages that the question brought; None if the documents were there as a whole.

        Returns:
            None if it cannot be made any more: a text has changed, or the window is another.
        """
        instructions = _instructions(documents, system_prompt)
        document_tokens = TokenCount.total(map(self.document_tokens, documents))
        if brought is not None:
            request = PassageRequest(documents, turns, question, instructions, 0)
            made = self._passages.prompt_again(request, brought)
            return None if made is None else self._passage_plan(made, request, document_tokens)
        conversation = self._conversation(turns, question, instructions)
        whole = self._whole_documents(documents, self._left_tokens(conversation, 0))
        return None if whole is None else self._whole_plan(whole, conversation, documents, document_tokens)

    @staticmethod
    def _passage_plan(made: PassagePrompt, request: PassageRequest, document_tokens: TokenCount) -> PromptPlan:
        return PromptPlan(
            made.part.token_ids,
            tuple(made.part.spans),
            document_tokens,
            made.part.document_tokens,
            "passages",
            tuple(request.documents),
            question_words(request.documents, request.searched_text or request.question),
            kept_ends=tuple(made.part.document_ends),
            passages_added=made.added,
            searched_text=request.searched_text,
        )

    def _whole_plan(
        self, whole: PromptPart, conversation: PromptPart, documents: Sequence[Document], document_tokens: TokenCount
    ) -> PromptPlan:
        prompt = PromptPart()
        prompt.add(self._tokenizer.before_system, "instructions")
        prompt.append(whole)
        prompt.append(conversation)
        ends = tuple(prompt.document_ends)
        return PromptPlan(
            prompt.token_ids,
            tuple(prompt.spans),
            document_tokens,
            prompt.document_tokens,
            "whole",
            tuple(documents),
            document_ends=ends,
            kept_ends=ends,
        )

    def reading_plan(
        self, documents: Sequence[Document], turns: Sequence[PastTurn], system_prompt: str, max_new_tokens: int
    ) -> ReadingPlan | None:
        """What of the next prompt can be read before its question; None if nothing can."""
        if not documents:
            return None
        instructions = _instructions(documents, system_prompt)
        conversation = self._conversation(turns, "", instructions)
        left_tokens = self._left_tokens(conversation, max_new_tokens)
        room_tokens = conversation.length + LIKELY_QUESTION_TOKENS + max_new_tokens
        whole = self._whole_documents(documents, left_tokens)
        if whole is None:
            return self._overview_plan(PassageRequest(documents, turns, "", instructions, max_new_tokens), room_tokens)
        prompt = PromptPart()
        prompt.add(self._tokenizer.before_system, "instructions")
        prompt.append(whole)
        ends = tuple(prompt.document_ends)
        return ReadingPlan(prompt.token_ids[: ends[-1].end_token], ends, room_tokens)

    def _overview_plan(self, request: PassageRequest, room_tokens: int) -> ReadingPlan | None:
        """What a first question about the whole would get."""
        overview = None if request.turns else self._passages.overview(request)
        if overview is None:
            return None
        document_ids = tuple(document.document_id for document in request.documents)
        ends = (DocumentEnd(overview.length, document_ids),)
        return ReadingPlan(overview.token_ids, ends, room_tokens, is_overview=True)

    def first_question_tokens(self, text_tokens: int, system_prompt: str, max_new_tokens: int) -> int:
        """How many tokens of a text that is not here yet a first question about it would be given.

        Args:
            text_tokens: of the text, which is a document of its own.
            system_prompt, max_new_tokens: as for `plan`.

        Returns:
            All of them if they fit the window; else as many as passages may take.
        """
        if text_tokens <= self._left_tokens(self._conversation((), "", system_prompt), max_new_tokens):
            return text_tokens
        request = PassageRequest((), (), "", system_prompt, max_new_tokens)
        return max(0, min(text_tokens, self._passages.first_passage_tokens(request)))

    def usage(
        self, documents: Sequence[Document], turns: Sequence[PastTurn], system_prompt: str, max_new_tokens: int
    ) -> ContextUsage:
        """How full the window is before the next question, which may be empty."""
        instructions = _instructions(documents, system_prompt)
        conversation = self._conversation(turns, "", instructions)
        document_tokens = TokenCount.total(map(self.document_tokens, documents))
        left_tokens = self._left_tokens(conversation, max_new_tokens)
        if self._whole_documents(documents, left_tokens) is not None:
            return ContextUsage(document_tokens, conversation.length, self._context_tokens, "whole")
        request = PassageRequest(documents, turns, "", instructions, max_new_tokens)
        usage = ContextUsage(document_tokens, conversation.length, self._context_tokens, "passages")
        standing = self._passages.standing(request)
        if standing is None:
            return replace(usage, passage_tokens=max(0, self._passages.first_passage_tokens(request)))
        headings = standing.length - standing.document_tokens - conversation.length
        return replace(usage, passage_tokens=standing.document_tokens, passages_are_read=True, heading_tokens=headings)

    def needs_search(
        self, documents: Sequence[Document], turns: Sequence[PastTurn], question: str, system_prompt: str, room: int
    ) -> bool:
        """Whether passages will be searched for: the documents are longer than the window, and the question is not
        about the whole."""
        conversation = self._conversation(turns, question, _instructions(documents, system_prompt))
        left_tokens = self._left_tokens(conversation, room)
        return self._whole_documents(documents, left_tokens) is None and not asks_for_the_whole(question, documents)

    def _left_tokens(self, conversation: PromptPart, max_new_tokens: int) -> int:
        """Room for documents beside the conversation and the answer."""
        return self._context_tokens - len(self._tokenizer.before_system) - conversation.length - max_new_tokens

    def _window_is_full(self, conversation_tokens: int, max_new_tokens: int, what: str) -> UserFacingError:
        return UserFacingError(
            f"The conversation ({conversation_tokens} tokens) and the room for an answer ({max_new_tokens}) leave too "
            f"little of the model's window of {self._context_tokens} tokens{what}. Clear the conversation, ask for a "
            "shorter answer, or start with more --context-tokens."
        )

    def _conversation(self, turns: Sequence[PastTurn], question: str, system_prompt: str) -> PromptPart:
        """Instructions, past turns and the question, up to where the answer begins."""
        tokenizer, part = self._tokenizer, PromptPart()
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

    def _whole_documents(self, documents: Sequence[Document], limit_tokens: int) -> PromptPart | None:
        """All of the documents' text, or None if it does not fit `limit_tokens`."""
        part = PromptPart()
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
        part.add(self._tokenizer.encode(DOCUMENTS_END).token_ids, "instructions")
        return part if part.length <= limit_tokens else None

    def document_tokens(self, document: Document) -> TokenCount:
        """Tokens of a document's text."""
        return self._document_tokens.count(document)


def _instructions(documents: Sequence[Document], system_prompt: str) -> str:
    return PLAIN_SYSTEM_PROMPT if system_prompt == DEFAULT_SYSTEM_PROMPT and not documents else system_prompt


def _title(document: Document) -> str:
    return f'Document "{document.name}":\n\n'
