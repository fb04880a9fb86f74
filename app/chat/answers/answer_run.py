"""One answer on its way on our engine: what becomes of each thing that the engine's thread yields.

Runs in the thread of whoever waits, and turns progress and steps into events, telemetry and, at the end, the report.
Knows nothing of conversations or queues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
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
from app.chat.answers.answer_work import StepText
from app.chat.answers.begun_answer import BegunAnswer
from app.chat.answers.reads.answer_reads import AnswerReads
from app.chat.answers.reads.live_reading import LiveReading
from app.chat.answers.reads.page_heat import UsualLevels
from app.chat.answers.reads.provenance import PageReadTotals
from app.chat.prompt.plan import PromptPlan
from app.chat.reading.prefill_timer import PrefillTimer
from app.library import Document

if TYPE_CHECKING:
    from quest_core.engine import Engine
    from quest_core.session_events import DecodeStep, PrefillProgress

# Weight of the newest step in the speed shown as "now".
_NEWEST_STEP_WEIGHT = 0.3


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
