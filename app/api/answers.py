"""Answers to requests, made in a thread: a completion of messages or text, or an answer over the library's documents.

Both are told as `Delta`s and an `Outcome`. Knows nothing of HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from app.api.errors import ApiError, refused
from app.api.requests import ApiRequest
from app.chat.answers.answer import AnswerOptions, AnswerReport, Finished, TokenEvent
from app.chat.assistant import Assistant
from app.chat.completions import Completion, CompletionToken, PromptTooLong
from app.chat.conversations.conversation import Conversation, Turn
from app.errors import UserFacingError

# What a report says that stands elsewhere in a reply.
_TOLD_ELSEWHERE = ("answer", "model", "device", "prompt_tokens", "reused_tokens", "decode_tokens", "finish_reason")
_TOLD_ELSEWHERE += ("thinking", "thinking_tokens", "citations")


@dataclass(frozen=True)
class TokenText:
    """A token by its text, and the logarithm of its probability."""

    text: str
    logprob: float


@dataclass(frozen=True)
class Delta:
    """What is new: text, a thought's text, and the token with its probability where they were asked for."""

    text: str = ""
    thinking: str = ""
    token: TokenText | None = None
    top: tuple[TokenText, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Args:
        finish_reason: as OpenAI calls it.
        prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens: counts for the usage.
        extra: fields of ours in the reply.
    """

    finish_reason: Literal["stop", "length", "content_filter"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    extra: dict[str, Any] = field(default_factory=dict)


class ApiAnswer:
    """An answer to a request: `begin`, then iterate; `cancel` from any thread."""

    def begin(self) -> None:
        """Check what needs the model, and start."""

    def cancel(self) -> None:
        """Stop it; the iteration ends early."""

    def __iter__(self) -> Iterator[Delta | Outcome]:
        raise NotImplementedError


def answer_to(request: ApiRequest, assistant: Assistant) -> ApiAnswer:
    """What will answer a request."""
    return (DocumentAnswer if request.documents else CompletionAnswer)(request, assistant)


class CompletionAnswer(ApiAnswer):
    """A completion of the request's own messages or text."""

    def __init__(self, request: ApiRequest, assistant: Assistant) -> None:
        self._request = request
        self._completions = assistant.completions
        self._completion: Completion | None = None
        self._lock = threading.Lock()
        self._is_cancelled = False

    def begin(self) -> None:
        request = self._request
        try:
            completion = self._completions.begin(
                request.prompt, request.options, request.top_logprobs, request.fills_window
            )
        except PromptTooLong as error:
            name = "prompt" if isinstance(request.prompt, str) else "messages"
            raise refused(error.message, name, "context_length_exceeded") from error
        except UserFacingError as error:
            raise refused(error.message) from error
        with self._lock:
            self._completion = completion
            if self._is_cancelled:
                completion.cancel()

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._completion is not None:
                self._completion.cancel()

    def __iter__(self) -> Iterator[Delta | Outcome]:
        completion = self._completion
        assert completion is not None
        text_of = _token_texts(completion.model.tokenizer.decode)
        for token in completion:
            yield _delta(token, text_of)
        report = completion.report
        if report is None or report.finish_reason == "cancelled":
            return
        extra = {}
        if self._request.wants_quest:
            options = self._request.options
            steps = max(0, report.completion_tokens - 1)
            extra["quest"] = {
                "attention": options.attention,
                "token_budget": options.token_budget,
                "page_size": completion.model.engine.page_size,
                "prefill_s": report.prefill_s,
                "time_to_first_token_s": report.time_to_first_token_s,
                "decode_tokens_per_s": steps / report.decode_s if report.decode_s else 0.0,
            }
        yield Outcome(
            report.finish_reason,
            report.prompt_tokens,
            report.cached_tokens,
            report.completion_tokens,
            report.thinking_tokens,
            extra,
        )


def _delta(token: CompletionToken, text_of: Callable[[int], str]) -> Delta:
    if token.logprob is None:
        return Delta(token.text_delta, token.thinking_delta)
    drawn = TokenText(text_of(token.token_id), token.logprob)
    top = tuple(TokenText(text_of(choice.token_id), choice.logprob) for choice in token.top_logprobs)
    return Delta(token.text_delta, token.thinking_delta, drawn, top)


def _token_texts(decode: Callable[..., str]) -> Callable[[int], str]:
    # Some tokenizers drop a blank at the start of what they decode.
    def text_of(token_id: int) -> str:
        alone = decode([token_id], keep_control=True)
        return decode([token_id, token_id], keep_control=True)[len(alone) :] or alone

    return text_of


class DocumentAnswer(ApiAnswer):
    """An answer over documents of the library, in a conversation that is not kept."""

    def __init__(self, request: ApiRequest, assistant: Assistant) -> None:
        self._request = request
        self._assistant = assistant
        self._conversation: Conversation | None = None
        self._lock = threading.Lock()
        self._is_cancelled = False

    def begin(self) -> None:
        for index, document_id in enumerate(self._request.documents):
            self._check(document_id, f"documents[{index}]")
        conversation = self._assistant.new_conversation(kept=False)
        with self._lock:
            self._conversation = conversation

    def _check(self, document_id: str, name: str) -> None:
        entry = self._assistant.library.entry_or_none(document_id)
        if entry is None:
            raise ApiError(404, f"The library has no document {document_id[:64]!r}.", name, "document_not_found")
        if entry.state in ("failed", "locked"):
            raise ApiError(409, f"{entry.name} cannot be read: {entry.message}", name, "document_unreadable")

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._conversation is not None:
                self._assistant.cancel(self._conversation)

    def __iter__(self) -> Iterator[Delta | Outcome]:
        conversation = self._conversation
        assert conversation is not None
        try:
            report = yield from self._follow(conversation)
        finally:
            # With it go its session and whatever still runs in it.
            self._assistant.delete_conversation(conversation.conversation_id)
        if report is None or report.finish_reason == "cancelled":
            return
        statistics = {name: value for name, value in report.to_json().items() if name not in _TOLD_ELSEWHERE}
        yield Outcome(
            _finish_reason(report),
            report.prompt_tokens,
            report.reused_tokens,
            report.decode_tokens + report.thinking_tokens,
            report.thinking_tokens,
            {"citations": [asdict(one) for one in report.citations], "quest": statistics},
        )

    def _follow(self, conversation: Conversation) -> Generator[Delta, None, AnswerReport | None]:
        assistant, request = self._assistant, self._request
        thought, report = "", None
        try:
            for document_id in request.documents:
                assistant.attach_document(conversation, document_id)
            options, question = self._tell(conversation)
            running = assistant.ask(conversation, question, options)
            with self._lock:
                # Asking has set it back to where nobody has cancelled.
                if self._is_cancelled:
                    assistant.cancel(conversation)
            with running.follow() as events:
                for event in events:
                    if isinstance(event, TokenEvent):
                        new_thought, thought = event.thinking[len(thought) :], event.thinking
                        if event.text_delta or new_thought:
                            yield Delta(event.text_delta, new_thought)
                    elif isinstance(event, Finished):
                        report = event.report
        except UserFacingError as error:
            if self._is_cancelled:
                return None
            raise refused(error.message) from error
        return report

    def _tell(self, conversation: Conversation) -> tuple[AnswerOptions, str]:
        """Make the earlier messages the conversation's turns; returns how to answer, and the question."""
        messages, options = list(self._request.prompt), self._request.options
        if messages[0].role == "system":
            options = replace(options, system_prompt=messages.pop(0).content)
        earlier = list(zip(messages[:-1:2], messages[1:-1:2], strict=True))
        tokenizer = self._assistant.loaded_model().tokenizer if earlier else None
        with conversation.lock:
            conversation.turns = [
                Turn(
                    asked.content,
                    answered.content,
                    None,
                    tokenizer.encode(answered.content).token_ids,
                    f"-api-{index}",
                )
                for index, (asked, answered) in enumerate(earlier)
            ]
        return options, messages[-1].content


def _finish_reason(report: AnswerReport) -> Literal["stop", "length", "content_filter"]:
    """Why an answer ended, in the API's words, which have none for most that makes another engine cut it."""
    if report.finish_reason == "engine" and report.engine_reason == "content_filter":
        return "content_filter"
    return "stop" if report.finish_reason == "stop" else "length"
