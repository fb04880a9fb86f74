"""An answer of another engine: its request, what it says as events, and the report.

The counterpart of `app.chat.answers.answer_run`, without anything that only a cache of ours could tell. Knows nothing
of how turns are kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from app.chat.answers.answer import AnswerOptions, AnswerReport, FinishReason, ModelLoading, TokenEvent
from app.chat.answers.answer_run import document_report, passages_report
from app.chat.answers.thought_stream import CLOSING, OPENING
from app.chat.conversations.conversation import Conversation
from app.chat.prompt.plan import PromptPlan
from app.errors import UserFacingError
from app.remote.chat_stream import ChatStream, Piece, Waiting
from app.remote.prompt_messages import prompt_messages, without_system
from app.remote.remote_model import RemoteModel
from app.remote.server_errors import ServerError

# How often an answer looks whether it was stopped.
_POLL_S = 0.1
# A server that is slower than this is said to be waited for.
_TOLD_FROM_S = 2.0
_SYSTEM = "system"
# What some servers refuse by name, and what they are asked instead.
_OPTIONAL = ("stream_options", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens")
# How servers call an end of the model's own, and a limit; whatever else one says, it has cut the answer.
_FINISH_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
}
_MOST_REASON_CHARACTERS = 60


class RemoteRun:
    """Follows one answer from its submission, which is when this is made.

    Args:
        model: that is asked.
        plan: the prompt.
        options: of the answer.

    Attributes:
        answer, thought: their texts so far.
        reads: None, as nobody sees what another engine reads.
    """

    reads = None

    def __init__(self, model: RemoteModel, plan: PromptPlan, options: AnswerOptions) -> None:
        self.token_ids: list[int] = []
        self._model = model
        self._plan = plan
        self._options = options
        self._submitted = time.perf_counter()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.answer = self.thought = self._text = self._told_thinking = ""
        self._first_token_s: float | None = None
        self._last_s = 0.0
        self._steps = 0
        self._usage: dict[str, Any] = {}
        self._finish_reason: FinishReason | None = None
        self._engine_reason = ""
        # The server's limit is the answer's own where the model is known not to think.
        self._has_thought_room = self._model.engine.thinks is not False

    @property
    def answer_token_ids(self) -> tuple[int, ...]:
        """The answer in tokens of the tokenizer that plans prompts."""
        return tuple(self._model.tokenizer.encode(self.answer).token_ids)

    def events(self, conversation: Conversation) -> Iterator[ModelLoading | TokenEvent]:
        """Ask, and tell what comes, until the end or until the conversation is cancelled.

        Raises:
            ServerError: the server cannot be asked, refuses, or breaks off.
        """
        engine = self._model.engine
        while True:
            try:
                yield from self._ask(conversation)
                self._note_thought()
                if conversation.cancelled.is_set() or not self._lacks_thought_room:
                    return
                self._begin_anew()
            except ServerError as error:
                if error.kind == "context":
                    self._model.planner.take_too_long()
                refused = self._refused(error)
                if refused is None:
                    raise
                engine.refused.add(refused)

    def _refused(self, error: ServerError) -> str | None:
        """What of the request the server does not know, if it has said so before its first word."""
        if error.kind != "refused" or self._text:
            return None
        said, known = error.said.lower(), self._model.engine.refused
        if "system" in said and "role" in said and _SYSTEM not in known:
            return _SYSTEM
        return next((name for name in _OPTIONAL if name in said and name not in known), None)

    def _ask(self, conversation: Conversation) -> Iterator[ModelLoading | TokenEvent]:
        with ChatStream(self._model.engine.address, self._body()) as stream:
            while not conversation.cancelled.is_set():
                try:
                    said = stream.next(_POLL_S)
                except StopIteration:
                    return
                if isinstance(said, Waiting):
                    if message := self._waiting(said):
                        yield ModelLoading(message)
                elif said is not None and (event := self._take(said)) is not None:
                    if self._lacks_thought_room:
                        return
                    yield event
                    if self._finish_reason is None and self._is_full():
                        self._finish_reason = "length"
                        return

    @property
    def _lacks_thought_room(self) -> bool:
        """Whether a thought has come, seen or unseen, that takes the room of the answer."""
        if self._has_thought_room or self._finish_reason not in (None, "length"):
            return False
        return bool(self.thought) or (self._finish_reason == "length" and not self.answer.strip())

    def _note_thought(self) -> None:
        """Note whether the model thinks, for the limit of what it is asked next."""
        engine, details = self._model.engine, self._usage.get("completion_tokens_details")
        if self.thought or self._lacks_thought_room or _count(details, "reasoning_tokens"):
            engine.thinks = True
        elif engine.thinks is None and self._finish_reason in ("stop", "length") and self.answer.strip():
            engine.thinks = False

    def _waiting(self, waiting: Waiting) -> str:
        if waiting.busy:
            return waiting.busy
        if self._text or waiting.silence_s < _TOLD_FROM_S:
            return ""
        return f"{self._model.engine.device_name} has been reading for {waiting.silence_s:.0f} s"

    def _body(self) -> dict[str, Any]:
        """The request: what every server knows, and of the rest only what differs from the default."""
        options, default, refused = self._options, AnswerOptions(), self._model.engine.refused
        messages = prompt_messages(self._model.tokenizer, self._plan.token_ids)
        body: dict[str, Any] = {
            "model": self._model.engine.model_id,
            "messages": without_system(messages) if _SYSTEM in refused else messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": self._most_tokens(),
        }
        for name in ("top_k", "min_p", "repetition_penalty", "seed"):
            if getattr(options, name) != getattr(default, name):
                body[name] = getattr(options, name)
        if options.stop:
            body["stop"] = list(options.stop)
        if "max_tokens" in refused:
            body["max_completion_tokens"] = body["max_tokens"]
        return {name: value for name, value in body.items() if name not in refused}

    def _most_tokens(self) -> int:
        """What the server may say: a thought has a room of its own, if there may be one and the window has it."""
        planner, engine = self._model.planner, self._model.engine
        wanted = self._options.max_new_tokens + (self._model.thinking.max_tokens if self._has_thought_room else 0)
        left = engine.context_tokens - planner.served_tokens(len(self._plan.token_ids))
        return max(1, min(wanted, left))

    def _is_full(self) -> bool:
        limit = self._options.max_new_tokens
        if not self._has_thought_room and self._steps <= limit:
            # The server ends it, after as many tokens of its own. None comes in two pieces, unless it knows no limit.
            return False
        # A token has one character at least, so that most answers need not be counted.
        return len(self.answer) >= limit and len(self.answer_token_ids) >= limit

    def _take(self, piece: Piece) -> TokenEvent | None:
        if piece.usage:
            self._usage = piece.usage
        if piece.finish_reason:
            self._finish_reason = _FINISH_REASONS.get(piece.finish_reason.lower(), "engine")
            self._engine_reason = _shown_reason(piece.finish_reason) if self._finish_reason == "engine" else ""
        if not (piece.text or piece.thinking or piece.finish_reason):
            return None
        now_s = time.perf_counter() - self._submitted
        if self._first_token_s is None:
            self._first_token_s, step_s = now_s, now_s
        else:
            step_s = now_s - self._last_s
            self._steps += 1
        self._last_s = now_s
        before = self.answer
        self._text += piece.text
        self._told_thinking += piece.thinking
        self.thought, self.answer = _told_apart(self._text, bool(piece.finish_reason))
        self.thought = self._told_thinking.strip() or self.thought
        delta = self.answer[len(before) :] if self.answer.startswith(before) else ""
        rate = self._rate()
        return TokenEvent(delta, self.answer, self._steps, step_s, rate, rate, self.thought, self._thinking_tokens)

    @property
    def _thinking_tokens(self) -> int:
        return self._model.tokenizer.count(self.thought) if self.thought else 0

    @property
    def _answer_tokens(self) -> int:
        """Of the answer: as the server counts them where it has cut it and they are all that it counts."""
        told = 0 if self._has_thought_room or self._finish_reason != "length" else self._completion_tokens
        return told or len(self.answer_token_ids)

    @property
    def _completion_tokens(self) -> int:
        return _count(self._usage, "completion_tokens")

    def _rate(self) -> float | None:
        """Tokens/s since the first word: as the server counts them at the end, pieces before."""
        span_s = self._last_s - (self._first_token_s or 0.0)
        steps = max(0, self._completion_tokens - 1) or self._steps
        return steps / span_s if steps and span_s > 0 else None

    def finish(self) -> AnswerReport:
        """The report; an answer without an end was cancelled."""
        plan, engine, options = self._plan, self._model.engine, self._options
        prompt_tokens = _count(self._usage, "prompt_tokens")
        if prompt_tokens:
            self._model.planner.take_count(len(plan.token_ids), prompt_tokens)
        details = self._usage.get("prompt_tokens_details")
        return AnswerReport(
            answer=self.answer,
            model=engine.model_name,
            device=engine.device_name,
            attention="the server's own",
            token_budget=options.token_budget,
            page_size=engine.page_size,
            document=document_report(plan),
            prompt_tokens=prompt_tokens or self._model.planner.served_tokens(len(plan.token_ids)),
            reused_tokens=_count(details, "cached_tokens"),
            tokens_estimated=not prompt_tokens,
            prefill_s=self._first_token_s or 0.0,
            time_to_first_token_s=self._first_token_s,
            decode_tokens=self._answer_tokens,
            decode_tokens_per_s=self._rate() or 0.0,
            finish_reason=self._finish_reason or "cancelled",
            engine_reason=self._engine_reason,
            passages=passages_report(plan),
            thinking=self.thought,
            thinking_tokens=self._thinking_tokens,
            options=options,
            document_ids=tuple(document.document_id for document in plan.documents),
        )

    def fail(self, error: BaseException) -> AnswerReport:
        """The report on an answer that an error stopped, with the reason."""
        reason = error.message if isinstance(error, UserFacingError) else "Quest Chat failed while it was written."
        return replace(self.finish(), finish_reason="cancelled", engine_reason="", warning=reason)


def _told_apart(text: str, is_complete: bool) -> tuple[str, str]:
    """A thought and the answer after it, out of a text that may open with `<think>`.

    Where the server's template opens the thought, only its end is in the text.
    """
    before, closing, after = text.partition(CLOSING)
    if closing:
        return before.strip().removeprefix(OPENING).strip(), after.lstrip()
    begun = text.lstrip()
    if begun.startswith(OPENING):
        return begun.removeprefix(OPENING).strip(), ""
    if OPENING.startswith(begun) and not is_complete:
        return "", ""
    return "", text


def _shown_reason(reason: str) -> str:
    """A server's own word, on one line."""
    text = " ".join(reason.split())
    return text if len(text) <= _MOST_REASON_CHARACTERS else text[: _MOST_REASON_CHARACTERS - 1] + "…"


def _count(values: Any, name: str) -> int:
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, int) and value > 0 else 0
