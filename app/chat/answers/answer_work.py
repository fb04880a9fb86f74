"""What the engine's thread does for an answer: prefill, decode, make text of the tokens, look where they attended.

A generator of progress and steps, as every job of the engine; `app.chat.answers.answer_run` follows it from another
thread. Knows nothing of conversations or queues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.chat.answers.answer import FinishReason
from app.chat.answers.begun_answer import BegunAnswer
from app.chat.answers.reads.answer_reads import AnswerReads, ReadBaselines
from app.chat.answers.reads.page_heat import SelectionLevels, UsualLevels
from app.chat.answers.text_stream import TextStream
from app.chat.answers.thought_stream import ThoughtStream
from app.chat.prompt.plan import DocumentEnd, PromptPlan

if TYPE_CHECKING:
    from quest_core.cache.prefixes import Prefix
    from quest_core.config import QuestConfig, SamplingConfig
    from quest_core.engine import Cancellation
    from quest_core.session import Session
    from quest_core.session_events import DecodeStep, PrefillProgress


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
