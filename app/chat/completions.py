"""Completions for other programs: their own messages or text, without documents or a conversation that is kept.

A completion is one job on the engine's thread; whoever iterates it reads its tokens as they come. Knows nothing of HTTP
or of the protocol that such a program speaks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from app.chat.answers.answer import AnswerOptions
from app.chat.answers.answer_work import read_step
from app.chat.answers.thought_stream import ThoughtStream
from app.chat.completion_sessions import CompletionSessions
from app.chat.engine_failures import explain_engine_failure
from app.chat.prompt.message_prompt import ChatMessage as ChatMessage  # whoever asks has it from here
from app.errors import UserFacingError
from app.models.model_loader import LoadedModel, ModelLoader

if TYPE_CHECKING:
    from quest_core.engine import Cancellation
    from quest_core.jobs import Job
    from quest_core.session import Session
    from quest_core.session_events import DecodeStep, PrefillProgress

# How often whoever waits for a token looks whether it was cancelled in the queue.
_POLL_S = 0.25
_CLOSING = "Quest Chat is closing. Start it again."
_MODEL_CHANGES = "The model is being changed, so the completion was stopped. Ask again when the other is loaded."


class PromptTooLong(UserFacingError):
    """The prompt, and what may follow it, do not fit the window."""


@dataclass(frozen=True)
class TokenChoice:
    """A token of the vocabulary and the natural logarithm of its probability, before temperature and limits."""

    token_id: int
    logprob: float


@dataclass(frozen=True)
class CompletionToken:
    """One token more.

    Args:
        text_delta, thinking_delta: new text; may be empty while a character or a possible stop string is incomplete.
        token_id: the token; None where text comes that was held back.
        logprob: natural logarithm of its probability; None where nobody asked.
        top_logprobs: the likeliest tokens, likeliest first.
    """

    text_delta: str
    thinking_delta: str
    token_id: int | None = None
    logprob: float | None = None
    top_logprobs: tuple[TokenChoice, ...] = ()


@dataclass(frozen=True)
class CompletionReport:
    """How a completion was made.

    Args:
        text, thinking: all of both.
        prompt_tokens: length of the prompt, of which `cached_tokens` had not to be computed.
        completion_tokens: drawn, a thought's included and without the stop token; `thinking_tokens` are the thought's.
        finish_reason: "length" also where the window has ended.
        model: its name.
        prefill_s, decode_s: seconds of reading the prompt and of all decode steps.
        time_to_first_token_s: from the submission, waiting in the queue included; None without a token.
    """

    text: str
    thinking: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    thinking_tokens: int
    finish_reason: Literal["stop", "length", "cancelled"]
    model: str
    prefill_s: float
    decode_s: float
    time_to_first_token_s: float | None


class Completion:
    """A completion on its way; iterate it once for its `CompletionToken`s.

    Attributes:
        model: what makes it.
        prompt_tokens: length of the prompt.
        report: None before the end.

    Raises:
        UserFacingError: while iterating, for whatever stops it.
    """

    def __init__(
        self,
        model: LoadedModel,
        sessions: CompletionSessions,
        token_ids: list[int],
        text: ThoughtStream,
        options: AnswerOptions,
        dense_layers: int,
        top_logprobs: int | None,
    ) -> None:
        self.model = model
        self.prompt_tokens = len(token_ids)
        self.report: CompletionReport | None = None
        self._sessions = sessions
        self._token_ids = token_ids
        self._text = text
        self._quest = options.quest_config(model.engine.page_size, dense_layers)
        self._sampling = options.sampling_config(model.stop_token_ids)
        self._top_logprobs = top_logprobs
        self._cancelled = threading.Event()
        self._has_ended = False
        self._stopped_because = ""
        self._cached_tokens = 0
        self._prefill_s = 0.0
        self._begun = time.perf_counter()
        try:
            self._job: Job = model.engine.submit(self._work)
        except RuntimeError as error:
            raise UserFacingError(_CLOSING) from error

    @property
    def is_running(self) -> bool:
        """Whether the engine still has something to do for it."""
        # After its last token the engine's thread may need a moment to see the end.
        return not self._has_ended and not self._job.done

    @property
    def jobs_ahead(self) -> int:
        """How many others go first."""
        return self._job.jobs_ahead

    def cancel(self, because: str = "") -> None:
        """Stop at the next token; whoever iterates it comes to the end, or is told why if there is a sentence."""
        self._stopped_because = self._stopped_because or because
        self._cancelled.set()
        self._job.cancel()

    def __iter__(self) -> Iterator[CompletionToken]:
        try:
            yield from self._tokens()
        finally:
            self._job.cancel()

    def _tokens(self) -> Iterator[CompletionToken]:
        count, thought, decode_s, first_s, reason = 0, "", 0.0, None, None
        for event in self._events():
            if hasattr(event, "done_tokens"):
                self._take_progress(event)
                continue
            step, logprob, top = event
            first_s = first_s or time.perf_counter() - self._begun
            decode_s += step.step_s
            read = read_step(step, self._text)
            reason = read.finish_reason
            count += step.finish_reason != "stop"
            # A thought only grows; its blanks at the end are held back.
            thinking_delta, thought = self._text.thought[len(thought) :], self._text.thought
            if step.finish_reason != "stop":
                yield CompletionToken(read.text_delta, thinking_delta, step.token_id, logprob, top)
            elif read.text_delta or thinking_delta:
                yield CompletionToken(read.text_delta, thinking_delta)
            if reason is not None:
                break
        self._has_ended = reason is not None
        if reason is None and not self._cancelled.is_set():
            raise UserFacingError(_CLOSING)
        if reason is None and self._stopped_because:
            raise UserFacingError(self._stopped_because)
        rest = self._text.finish() if reason is None else ""
        if rest:
            yield CompletionToken(rest, "")
        self.report = CompletionReport(
            text=self._text.text,
            thinking=self._text.thought,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=count,
            thinking_tokens=min(count, self._text.thinking_tokens),
            finish_reason="cancelled" if reason is None else "stop" if reason == "stop" else "length",
            model=self.model.engine.model_name,
            prefill_s=self._prefill_s,
            decode_s=decode_s,
            time_to_first_token_s=first_s,
        )

    def _take_progress(self, progress: PrefillProgress) -> None:
        self._cached_tokens, self._prefill_s = progress.reused_tokens, progress.elapsed_s

    def _events(self) -> Iterator[Any]:
        while True:
            try:
                yield self._job.next_event(_POLL_S)
            except TimeoutError:
                if self._cancelled.is_set():
                    return
            except StopIteration:
                return
            except Exception as error:
                raise explain_engine_failure(error, "The completion") from error

    def _work(
        self, cancellation: Cancellation
    ) -> Iterator[PrefillProgress | tuple[DecodeStep, float | None, tuple[TokenChoice, ...]]]:
        session = self._sessions.take(self._token_ids)
        yield from session.prefill(self._token_ids, cancellation, self._sampling.max_new_tokens)
        if cancellation.requested:
            return
        for step in session.decode(self._quest, self._sampling, cancellation, trace_reads=False):
            yield step, *self._logprobs(session, step.token_id)

    def _logprobs(self, session: Session, token_id: int) -> tuple[float | None, tuple[TokenChoice, ...]]:
        """Of a token that was just drawn: the session's logits are those that it was drawn from."""
        if self._top_logprobs is None or session.logits is None:
            return None, ()
        logprobs = session.logits.log_softmax(dim=-1)
        highest = logprobs.topk(self._top_logprobs) if self._top_logprobs else None
        top = () if highest is None else tuple(map(TokenChoice, highest.indices.tolist(), highest.values.tolist()))
        return float(logprobs[token_id]), top


class Completions:
    """Begins completions.

    Args:
        loader: has the model.
        dense_layers: of the program's settings.
    """

    def __init__(self, loader: ModelLoader, dense_layers: int) -> None:
        self._loader = loader
        self._dense_layers = dense_layers
        self._lock = threading.Lock()
        self._sessions: tuple[LoadedModel, CompletionSessions] | None = None
        self._running: list[Completion] = []

    def begin(
        self,
        prompt: Sequence[ChatMessage] | str,
        options: AnswerOptions,
        top_logprobs: int | None = None,
        fills_window: bool = False,
    ) -> Completion:
        """Begin a completion; waits for the model if it is loading.

        Args:
            prompt: messages, which the model's chat template renders, or a text that is continued as it stands.
            options: how; `system_prompt` means nothing here, and `max_new_tokens` counts a thought's tokens, too.
            top_logprobs: how many of the likeliest tokens are told at each step; None tells no probabilities.
            fills_window: it may be as long as the window leaves, whatever `options.max_new_tokens`.

        Raises:
            PromptTooLong: it does not fit the window.
            UserFacingError: nothing to continue, options out of range, or no model.
        """
        options.sampling_config(stop_token_ids=())
        while True:
            model = self._loader.wait()
            if model.is_remote:
                raise UserFacingError(
                    f"Messages and texts are completed by {model.engine.device_name} itself. Ask there, or ask about "
                    "documents here."
                )
            token_ids, opens_thought = self._prompt(model, prompt)
            options = self._fitted(model, len(token_ids), options, fills_window)
            limit = options.max_new_tokens
            text = ThoughtStream(model.tokenizer.decode, options.stop, limit, limit, opens_thought)
            with self._lock:
                # Who changes the model takes it away first, and then looks who has it.
                if self._loader.model is not model:
                    continue
                completion = Completion(
                    model, self._sessions_of(model), token_ids, text, options, self._dense_layers, top_logprobs
                )
                self._running = [one for one in self._running if one.is_running] + [completion]
            return completion

    def _prompt(self, model: LoadedModel, prompt: Sequence[ChatMessage] | str) -> tuple[list[int], bool]:
        if not isinstance(prompt, str):
            rendered = model.tokenizer.messages.prompt(prompt)
            return rendered.token_ids, rendered.opens_thought
        token_ids = model.tokenizer.encode_prompt(prompt)
        if not token_ids:
            raise UserFacingError("There is nothing to continue. Send a prompt that is not empty.")
        return token_ids, False

    @staticmethod
    def _fitted(model: LoadedModel, prompt_tokens: int, options: AnswerOptions, fills_window: bool) -> AnswerOptions:
        window_tokens = model.engine.context_tokens
        left_tokens = window_tokens - prompt_tokens
        if left_tokens < 1:
            raise PromptTooLong(
                f"The prompt has {prompt_tokens:,} tokens, and the model's window holds {window_tokens:,}, the answer "
                "included. Shorten the prompt."
            )
        if fills_window:
            return replace(options, max_new_tokens=left_tokens)
        if options.max_new_tokens > left_tokens:
            raise PromptTooLong(
                f"The prompt has {prompt_tokens:,} tokens and {options.max_new_tokens:,} more were asked for; the "
                f"model's window holds {window_tokens:,}. Shorten the prompt or ask for fewer tokens."
            )
        return options

    def _sessions_of(self, model: LoadedModel) -> CompletionSessions:
        if self._sessions is None or self._sessions[0] is not model:
            self._sessions = model, CompletionSessions(model.engine)
        return self._sessions[1]

    # A model that goes

    def users(self, model: LoadedModel) -> list[Completion]:
        """Completions that a model is making, or will."""
        with self._lock:
            return [one for one in self._running if one.model is model and one.is_running]

    def stop(self, model: LoadedModel) -> None:
        """Stop them; whoever waits for one is told that the model is being changed."""
        for completion in self.users(model):
            completion.cancel(_MODEL_CHANGES)

    def forget(self) -> None:
        """Let go of what a model has read, whose engine is closed."""
        with self._lock:
            self._sessions = None
            self._running = [one for one in self._running if one.is_running]
