"""One answer on its way: the engine's work, and what becomes of each thing it yields.

`answer_work` runs on the engine's thread; `AnswerRun` in the thread of whoever waits, turning progress and steps into
events, telemetry and, at the end, the report. Knows nothing of conversations or queues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.chat.answers.answer import (
    AnswerOptions,
    AnswerReport,
    DocumentReport,
    FinishReason,
    PageReference,
    PassagesReport,
    PrefillEvent,
    Queued,
    TokenEvent,
)
from app.chat.answers.answer_reads import AnswerReads, ReadBaselines
from app.chat.answers.begun_answer import BegunAnswer
from app.chat.answers.live_reading import LiveReading
from app.chat.answers.page_heat import SelectionLevels, UsualLevels
from app.chat.answers.provenance import PageReadTotals
from app.chat.answers.text_stream import TextStream
from app.chat.answers.thought_stream import ThoughtStream
from app.chat.prompt.plan import DocumentEnd, PromptPlan
from app.chat.reading.prefill_timer import PrefillTimer
from app.library import Document

if TYPE_CHECKING:
    from quest_core.cache.prefixes import Prefix
    from quest_core.config import QuestConfig, SamplingConfig
    from quest_core.engine import Cancellation, Engine
    from quest_core.session import Session
    from quest_core.session_events import DecodeStep, PrefillProgress

# Weight of the newest step in the speed shown as "now".
_NEWEST_STEP_WEIGHT = 0.3


@dataclass(frozen=True)
class Thinking:
    """How a model may think before it answers.

    Args:
        opened: whether its prompts open a thought.
        max_tokens: of a thought.
        closing_token_ids: what ends one that reaches them.
    """

    opened: bool
    max_tokens: int
    closing_token_ids: tuple[int, ...]

    @property
    def most_tokens(self) -> int:
        """What a thought takes at most."""
        return self.max_tokens + len(self.closing_token_ids)

    @property
    def room_tokens(self) -> int:
        """What is kept free for one: nothing where a model seldom thinks, so that its documents have the window."""
        return self.most_tokens if self.opened else 0


@dataclass(frozen=True)
class StepText:
    """A decode step and the text that came of it.

    Args:
        step: the engine's.
        text_delta: new text; `answer` is all of it so far.
        kept_tokens: how many of the answer's tokens so far belong to the text, stop token and stop string left out.
        finish_reason: None while it goes on.
        inserted_token_ids: what the model was fed before this step's token without having drawn it.
        thought: all that was thought so far; its `thinking_tokens` come before the answer's own.
    """

    step: DecodeStep
    text_delta: str
    answer: str
    kept_tokens: int
    finish_reason: FinishReason | None
    inserted_token_ids: tuple[int, ...] = ()
    thought: str = ""
    thinking_tokens: int = 0


def answer_work(
    open_session: Callable[[], Session],
    plan: PromptPlan,
    quest: QuestConfig,
    sampling: SamplingConfig,
    text: ThoughtStream,
    thinking: Thinking,
    baselines: ReadBaselines,
    levels: SelectionLevels,
    begun: BegunAnswer | None = None,
) -> Callable[[Cancellation], Iterator[PrefillProgress | StepText | UsualLevels | AnswerReads]]:
    """What the engine's thread does for an answer of at most `sampling.max_new_tokens`, after a thought or without.

    After the first word come the `UsualLevels` of the documents' pages, if they can be told. When the answer is
    complete, it looks where its tokens attend; last come the `AnswerReads`, if there are any. With `begun`, whose
    tokens are in `text` already, so many tokens are added to that answer.
    """
    begun_token_ids = [] if begun is None else list(begun.token_ids)
    longest = replace(sampling, max_new_tokens=sampling.max_new_tokens + thinking.most_tokens)

    def work(cancellation: Cancellation) -> Iterator[PrefillProgress | StepText | UsualLevels | AnswerReads]:
        session = open_session()
        drawn = list(begun_token_ids)
        step_text = None
        for event in answer(session, cancellation):
            if isinstance(event, StepText):
                step_text = event
                drawn += [*event.inserted_token_ids, event.step.token_id]
            yield event
            # No step is launched ahead of the first word, which is not to wait for this.
            if len(drawn) == 1 and event is step_text and step_text.finish_reason is None:
                usual = levels.usual(session, plan, quest, cancellation)
                if usual is not None:
                    yield usual
        if step_text is None or cancellation.requested:
            return
        thought = step_text.thinking_tokens
        own = drawn[thought : step_text.kept_tokens]
        reads = baselines.watch(session, plan, len(plan.token_ids) + thought, own, cancellation)
        if reads is not None:
            yield reads

    def answer(session: Session, cancellation: Cancellation) -> Iterator[PrefillProgress | StepText]:
        room_tokens = sampling.max_new_tokens + thinking.room_tokens + len(begun_token_ids[-1:])
        token_ids = [*plan.token_ids, *begun_token_ids]
        read = token_ids[: max(len(plan.token_ids), len(token_ids) - 1)]
        yield from session.prefill(read, cancellation, room_tokens, kept_prefixes(plan.kept_ends))
        if cancellation.requested:
            return
        if begun_token_ids:
            # The token that was drawn last is in no cache: it is fed as the next step would have fed it.
            for _ in session.score(begun_token_ids[-1:], quest, cancellation):
                pass
            if cancellation.requested:
                return
        for step in session.decode(quest, longest, cancellation):
            step_text = _with_thought(read_step(step, text), text)
            token_ids.append(step.token_id)
            # What closes the thought needs room, and so does a word of the answer.
            full = text.thought_is_full and len(token_ids) + len(thinking.closing_token_ids) >= session.max_tokens
            if full and step_text.finish_reason is None:
                step_text = replace(step_text, finish_reason="context")
            yield step_text
            if step_text.finish_reason is not None:
                return
            if text.thought_is_full:
                break
        if not cancellation.requested:
            yield from answer_after_cut(session, token_ids, cancellation)

    def answer_after_cut(
        session: Session, token_ids: list[int], cancellation: Cancellation
    ) -> Iterator[PrefillProgress | StepText]:
        """The model goes on as if it had closed its thought itself."""
        drawn, inserted = len(token_ids) - len(plan.token_ids), thinking.closing_token_ids
        text.cut_thought(len(inserted))
        token_ids += inserted
        room_tokens = min(sampling.max_new_tokens, session.max_tokens - len(token_ids))
        for _ in session.prefill(token_ids, cancellation, room_tokens):
            pass
        if cancellation.requested:
            return
        for step in session.decode(quest, sampling, cancellation):
            step_text = _with_thought(read_step(replace(step, step=step.step + drawn), text), text)
            yield replace(step_text, inserted_token_ids=inserted if step.step == 0 else ())
            if step_text.finish_reason is not None:
                return

    return work


def kept_prefixes(document_ends: Sequence[DocumentEnd]) -> tuple[Prefix, ...]:
    """What the engine keeps of a prompt: up to the end of each document, as long as all up to there are kept."""
    from quest_core.cache.prefixes import Prefix

    return tuple(Prefix(end.end_token, end.document_ids) for end in document_ends)


def _with_thought(step_text: StepText, text: ThoughtStream) -> StepText:
    return replace(step_text, thought=text.thought, thinking_tokens=text.thinking_tokens)


def read_step(step: DecodeStep, text: TextStream | ThoughtStream) -> StepText:
    """Take a step's token into the answer's text."""
    delta = "" if step.finish_reason == "stop" else text.push(step.token_id)
    finish_reason: FinishReason | None = "stop" if text.stopped else step.finish_reason
    if finish_reason is None and text.is_full:
        finish_reason = "length"
    if finish_reason is not None:
        delta += text.finish()
    return StepText(step, delta, text.text, text.kept_tokens, finish_reason)


class AnswerRun:
    """Follows one answer from its submission, which is when this is made.

    Args:
        engine: for names and sizes.
        plan: the prompt.
        options: of the answer.
        publish: takes telemetry.
        begun: the answer that goes on; None if it is a new one.

    Attributes:
        token_ids: the tokens so far, a thought's included, as they entered or will enter the cache.
        answer, thought: their texts so far.
        reads: where the answer's tokens attended; None until it is complete, and where nobody looked.
    """

    def __init__(
        self,
        engine: Engine,
        plan: PromptPlan,
        options: AnswerOptions,
        publish: Callable[[dict[str, Any]], None],
        begun: BegunAnswer | None = None,
    ) -> None:
        self.token_ids: list[int] = [] if begun is None else list(begun.token_ids)
        self.answer = "" if begun is None else begun.turn.answer
        self.reads: AnswerReads | None = None
        self._begun = begun
        self._engine = engine
        self._plan = plan
        self._options = options
        self._publish = publish
        self._submitted = time.perf_counter()
        self._timer = PrefillTimer()
        self._reads = PageReadTotals()
        self._live = LiveReading(plan, options.attention, engine.page_size)
        self._reused_tokens = 0
        self._restored_tokens = 0
        self._restored_bytes = 0
        self._prefill_s = 0.0
        self._stretch_factor = 1.0
        self._first_token_s: float | None = None
        self._kept_tokens = len(self.token_ids)
        self.thought = "" if begun is None else begun.thought
        self._thinking_tokens = 0 if begun is None else len(begun.thought_token_ids)
        self._decode_steps = 0
        self._decode_s = 0.0
        self._tokens_per_s: float | None = None
        self._finish_reason: FinishReason | None = None

    def take_usual(self, usual: UsualLevels) -> None:
        """Note what the document pages' usual levels are."""
        self._live.take_usual(usual)

    def queued(self, jobs_ahead: int) -> Queued:
        self._publish({"type": "queued", "jobs_ahead": jobs_ahead})
        return Queued(jobs_ahead)

    def take(self, event: PrefillProgress | StepText) -> PrefillEvent | TokenEvent:
        """Note what the work yielded, publish it, and return it as the caller's event."""
        return self._take_step(event) if isinstance(event, StepText) else self._take_progress(event)

    def _take_progress(self, progress: PrefillProgress) -> PrefillEvent:
        self._reused_tokens, self._prefill_s = progress.reused_tokens, progress.elapsed_s
        self._restored_tokens, self._restored_bytes = progress.restored_tokens, progress.restored_bytes
        remaining_s = self._timer.remaining_s(
            progress.done_tokens, progress.total_tokens, progress.elapsed_s, progress.reused_tokens
        )
        self._stretch_factor = progress.stretch_factor
        told = {"type": "prefill", **vars(progress), "remaining_s": remaining_s}
        self._publish(told | self._live.of_prefill(progress.reused_tokens))
        return PrefillEvent(progress, remaining_s)

    def _take_step(self, event: StepText) -> TokenEvent:
        step = event.step
        self.answer, self._kept_tokens, self._finish_reason = event.answer, event.kept_tokens, event.finish_reason
        self.thought, self._thinking_tokens = event.thought, event.thinking_tokens
        self.token_ids += [*event.inserted_token_ids, step.token_id]
        if step.step == 0:
            self._first_token_s = time.perf_counter() - self._submitted
        else:
            self._decode_steps += 1
            self._decode_s += step.step_s
            now = 1.0 / max(step.step_s, 1e-9)
            last = now if self._tokens_per_s is None else self._tokens_per_s
            self._tokens_per_s = last + _NEWEST_STEP_WEIGHT * (now - last)
        if step.reads is not None:
            self._reads.add(step.reads)
        self._publish(self._step_telemetry(step))
        return TokenEvent(
            event.text_delta,
            event.answer,
            step.step,
            step.step_s,
            self._tokens_per_s,
            self._mean_tokens_per_s,
            event.thought,
            event.thinking_tokens,
        )

    @property
    def answer_token_ids(self) -> tuple[int, ...]:
        """The answer's own tokens, without the thought before it."""
        return tuple(self.token_ids[self._thinking_tokens :])

    @property
    def _mean_tokens_per_s(self) -> float | None:
        return self._decode_steps / self._decode_s if self._decode_s else None

    def _step_telemetry(self, step: DecodeStep) -> dict[str, Any]:
        model, reads = self._engine.model_config, step.reads
        if reads is not None and reads.dense_layers == model.num_layers:
            reads = None  # everything was read, as with dense attention
        return {
            "type": "step",
            "step": step.step,
            "tokens_per_s": self._tokens_per_s,
            "mean_tokens_per_s": self._mean_tokens_per_s,
            "time_to_first_token_s": self._first_token_s,
            "step_ms": 1000.0 * step.step_s,
            "context_tokens": step.context_tokens,
            "window_tokens": self._engine.context_tokens,
            # The first token comes from the prefill and reads nothing of its own.
            "read_share": step.kv_bytes_read / step.kv_bytes_dense if step.kv_bytes_dense else None,
            "missed_share": reads.missed_mass if reads else None,
            "layers": model.num_layers,
            "pages": -(-step.context_tokens // self._engine.page_size),
            "kv_heads": model.num_kv_heads,
            "dense_layers": reads.dense_layers if reads else model.num_layers,
            "always_read_pages": list(reads.always_read_pages) if reads else [],
            "page_reads": reads.page_reads if reads else None,
            **self._live.of_step(step),
        }

    def finish(self) -> AnswerReport:
        """Publish the end and return the report; an answer without an end was cancelled."""
        del self.token_ids[self._kept_tokens :]
        plan = self._plan
        report = AnswerReport(
            answer=self.answer,
            model=self._engine.model_name,
            device=self._engine.device_name,
            attention=self._options.attention,
            token_budget=self._options.token_budget,
            page_size=self._engine.page_size,
            document=document_report(plan),
            prompt_tokens=len(plan.token_ids),
            reused_tokens=self._reused_tokens,
            prefill_s=self._prefill_s,
            time_to_first_token_s=self._first_token_s,
            decode_tokens=len(self.answer_token_ids),
            decode_tokens_per_s=self._mean_tokens_per_s or 0.0,
            finish_reason=self._finish_reason or "cancelled",
            attended_tokens=self._live.attended_tokens,
            read_all=self._live.read_all,
            pages_read=self._reads.shares(plan, self._engine.page_size),
            passages=passages_report(plan),
            stretch_factor=self._stretch_factor,
            thinking=self.thought,
            thinking_tokens=self._thinking_tokens,
            restored_tokens=self._restored_tokens,
            restored_bytes=self._restored_bytes,
            options=self._options,
            document_ids=tuple(document.document_id for document in plan.documents),
            thinking_token_ids=tuple(self.token_ids[: self._thinking_tokens]),
            **self._live.drafts,
        )
        self._publish_end(report.finish_reason)
        return report if self._begun is None else self._begun.whole_report(report)

    def fail(self, error: BaseException) -> AnswerReport | None:
        """Publish the end of an answer that an error stopped; returns what is known of how its beginning was made."""
        self._publish_end("failed")
        return None if self._begun is None else self._begun.turn.report

    def _publish_end(self, finish_reason: str) -> None:
        self._publish(
            {
                "type": "finished",
                "finish_reason": finish_reason,
                "decode_tokens": len(self.answer_token_ids),
                "mean_tokens_per_s": self._mean_tokens_per_s,
                "time_to_first_token_s": self._first_token_s,
                "steps": self._decode_steps + (self._first_token_s is not None),
                **self._live.at_end(self.reads),
            }
        )


def document_report(plan: PromptPlan) -> DocumentReport:
    """Sizes of a prompt's documents, and what of them could not be read."""
    documents = plan.documents
    return DocumentReport(
        sum(document.page_count for document in documents),
        plan.document_tokens.tokens,
        plan.tokens_in_context,
        _references((document, label) for document in documents for label in document.picture_pages),
        _references((document, label) for document in documents for label in document.unreadable_pages),
        _references((document, label) for document in documents for label in document.garbled_pages),
        _references((document, label) for document in documents for label in document.recognised_pages),
        plan.document_tokens.is_exact,
    )


def passages_report(plan: PromptPlan) -> PassagesReport | None:
    """What a prompt holds of documents that are longer than the window; None if it holds them whole."""
    if plan.question_words is None:
        return None
    found, missing = plan.question_words.found, plan.question_words.missing
    return PassagesReport(
        _references(plan.document_pages_in_context),
        plan.passages,
        found,
        missing,
        plan.passages_added,
        plan.searched_text,
    )


def _references(pages: Iterable[tuple[Document, str]]) -> tuple[PageReference, ...]:
    return tuple(PageReference(document.shown_name, label) for document, label in pages)
