"""Dense attention against Quest or Exact: the same question, two forks of one session, one engine job.

The fork that has used less step time goes next, so both stream at their true relative speed although they share the
device. Exact, speculative decoding, gives several tokens a round: it takes a round for a turn, which costs its time at
its first token and shows all its tokens at its end. Before the start both sides take some turns on forks of their own
that go at once: what is compiled or allocated on first use costs neither of them time. Knows nothing of how its events
are shown.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from app.chat.answers.answer import DocumentReading, FinishReason, ModelLoading, PrefillEvent, Queued
from app.chat.answers.answer_work import kept_prefixes, read_step
from app.chat.answers.text_stream import TextStream
from app.chat.prompt.plan import PromptPlan
from app.chat.reading.prefill_timer import PrefillTimer
from app.race.turns import WARM_UP_STEPS, Turn, common_turns, ratio_noise, speed_ratio

if TYPE_CHECKING:
    from quest_core.config import QuestConfig, SamplingConfig
    from quest_core.decode.read_trace import StepReads
    from quest_core.engine import Cancellation
    from quest_core.session import Session
    from quest_core.session_events import DecodeStep, PrefillProgress

# The second side is "quest" whatever its attention: saved files have it so.
Side = Literal["dense", "quest"]
# Of the second side.
RaceAttention = Literal["quest", "exact"]


@dataclass(frozen=True)
class RaceToken:
    """One token more on one side.

    Args:
        side: whose.
        text_delta: new text; `answer` is all of it so far.
        step: 0 for the first token, which comes from the shared prefill.
        step_s: seconds this step took; of one of several tokens of a round, its part of the round.
        tokens_per_s, ms_per_token, kv_bytes_per_token: means of this side's steps after warm-up; None before.
        at_s: seconds of the device that this side has used up to here; the same for all tokens of a round.
        reads: the pages that the step read; None if it read all, and for the first token.
        drafted, accepted: of the round that this token begins, as in `quest_core.session_events.DecodeStep`.
    """

    side: Side
    text_delta: str
    answer: str
    step: int
    step_s: float
    tokens_per_s: float | None
    ms_per_token: float | None
    kv_bytes_per_token: float | None
    at_s: float = 0.0
    reads: StepReads | None = None
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class RaceSide:
    """One side's result; figures as in `RaceToken`.

    Args:
        steps: tokens that it drew, the stop token included.
        finished_s: seconds of the device that it used.
        looked_share: part of the pages in context that its steps read, from 0 to 1; None if it made none.
        drafted_tokens: by speculative decoding; `accepted_tokens` of them were what dense attention gives.
    """

    answer: str
    decode_tokens: int
    tokens_per_s: float | None
    ms_per_token: float | None
    kv_bytes_per_token: float | None
    finish_reason: FinishReason
    steps: int = 0
    finished_s: float = 0.0
    looked_share: float | None = None
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class RaceFinished:
    """Both sides are done, or the race was cancelled.

    Args:
        dense, quest: the sides.
        speed_ratio: dense's step time over the other's in the steps both made after warm-up; None if there are none.
        noise: factor within which `speed_ratio` may lie off by chance, from the spread of these turns' times; see
            `ratio_noise`. None where they are too few to tell.
        fits_budget: the text never had more tokens than the budget, so that Quest read all of it and Exact drafted
            nothing.
        warm_up_steps: turns that begin with one of so many decode steps were left out, besides the first token.
        first_difference: index of the first token that differs; None if the answers are the same.
        first_difference_char: where the texts part; None likewise.
        lead_s: by how much less of the device's time the second side had used when both had made as many steps as the
            side with fewer; below zero where dense attention had. None if one has made none.
        attention: of the second side.
    """

    dense: RaceSide
    quest: RaceSide
    speed_ratio: float | None
    warm_up_steps: int
    first_difference: int | None
    first_difference_char: int | None
    noise: float | None = None
    fits_budget: bool = False
    lead_s: float | None = None
    attention: RaceAttention = "quest"

    @property
    def stopped(self) -> bool:
        """Whether a side was stopped before its end."""
        return "cancelled" in (self.dense.finish_reason, self.quest.finish_reason)

    @property
    def is_same_work(self) -> bool:
        """Whether both sides did the same: Quest read everything, or Exact drafted nothing."""
        return not self.quest.drafted_tokens if self.attention == "exact" else self.fits_budget

    @property
    def faster(self) -> Side | None:
        """The faster side; None inside the noise, and where both did the same work."""
        if self.speed_ratio is None or self.noise is None or self.is_same_work:
            return None
        if 1 / self.noise <= self.speed_ratio <= self.noise:
            return None
        return "quest" if self.speed_ratio > 1 else "dense"


@dataclass(frozen=True)
class RacePlanned:
    """What is raced over; comes before the prefill.

    Args:
        plan: the prompt.
        model, device: names.
        page_size: tokens of a KV page.
    """

    plan: PromptPlan
    model: str
    device: str
    page_size: int


RaceEvent = ModelLoading | DocumentReading | Queued | RacePlanned | PrefillEvent | RaceToken | RaceFinished


@dataclass
class _Runner:
    """One side on its way."""

    side: Side
    steps: Iterator[DecodeStep]
    text: TextStream
    token_ids: list[int] = field(default_factory=list)
    used_s: float = 0.0
    reached_s: list[float] = field(default_factory=list)
    looked_shares: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    context_tokens: int = 0
    finish_reason: FinishReason | None = None

    def take_turn(self) -> Iterator[RaceToken]:
        """Run one step, or one round of speculative decoding, and give its tokens; none if it was cancelled."""
        step = self._next_step()
        if step is None:
            return
        given_tokens = 1 + step.accepted
        # The round has run when its first token comes: the others cost no time, and whoever is next need not wait.
        turn = Turn(step.step, given_tokens, given_tokens * step.step_s, given_tokens * step.kv_bytes_read)
        self.used_s += turn.seconds
        if step.step:
            self.turns.append(turn)
        self.drafted_tokens += step.drafted
        self.accepted_tokens += step.accepted
        yield self._take(step)
        for shown_tokens in range(1, given_tokens):
            if self.finish_reason is None:
                step = self._next_step()
            if self.finish_reason is not None:
                turn.tokens = shown_tokens
                return
            yield self._take(step)

    def _next_step(self) -> DecodeStep | None:
        step = next(self.steps, None)
        if step is None:
            self.finish_reason = "cancelled"
        return step

    def _take(self, step: DecodeStep) -> RaceToken:
        self.reached_s.append(self.used_s)
        if step.step:
            self.looked_shares.append(1.0 if step.reads is None else looked_share(step.reads))
        self.context_tokens = max(self.context_tokens, step.context_tokens)
        if step.finish_reason != "stop":
            self.token_ids.append(step.token_id)
        read = read_step(step, self.text)
        self.finish_reason = read.finish_reason
        told = self.side, read.text_delta, read.answer, step.step, step.step_s
        return RaceToken(*told, *self.figures(), self.used_s, step.reads, step.drafted, step.accepted)

    def figures(self) -> tuple[float | None, float | None, float | None]:
        """tokens_per_s, ms_per_token and kv_bytes_per_token after warm-up."""
        measured = [turn for turn in self.turns if turn.is_measured]
        tokens, seconds = sum(turn.tokens for turn in measured), sum(turn.seconds for turn in measured)
        if not seconds:
            return None, None, None
        return tokens / seconds, 1000.0 * seconds / tokens, sum(turn.kv_bytes for turn in measured) / tokens

    def result(self) -> RaceSide:
        self.text.finish()
        return RaceSide(
            self.text.text,
            len(self.token_ids),
            *self.figures(),
            self.finish_reason or "cancelled",
            len(self.reached_s),
            self.used_s,
            statistics.fmean(self.looked_shares) if self.looked_shares else None,
            self.drafted_tokens,
            self.accepted_tokens,
        )


def race_work(
    open_session: Callable[[], Session],
    plan: PromptPlan,
    dense: QuestConfig,
    quest: QuestConfig,
    sampling: SamplingConfig,
    new_text: Callable[[], TextStream],
) -> Callable[[Cancellation], Iterator[PrefillProgress | RaceToken | RaceFinished]]:
    """What the engine's thread does for a race.

    Args:
        open_session: makes a session of the race's own, which is closed at the end.
        plan: the prompt.
        dense, quest: what the steps of each side read; the second's attention is "quest" or "exact".
        sampling: the same for both.
        new_text: makes an empty text stream.
    """

    def work(cancellation: Cancellation) -> Iterator[PrefillProgress | RaceToken | RaceFinished]:
        session, forks = open_session(), []
        try:
            prefixes = kept_prefixes(plan.kept_ends)
            yield from session.prefill(plan.token_ids, cancellation, sampling.max_new_tokens, prefixes)
            if cancellation.requested:
                return
            for config in (dense, quest):
                warm_up(session, config, sampling, cancellation)
            forks += session.fork(), session.fork()
            # A step launched ahead of its turn would run in the other side's time.
            dense_steps, quest_steps = (
                fork.decode(config, sampling, cancellation, look_ahead=False)
                for fork, config in zip(forks, (dense, quest), strict=True)
            )
            yield from run_race(dense_steps, quest_steps, new_text, quest.token_budget, quest.attention)
        finally:
            for one in (*forks, session):
                one.close()

    return work


def warm_up(session: Session, config: QuestConfig, sampling: SamplingConfig, cancellation: Cancellation) -> None:
    """Take some turns on a fork that goes at once."""
    fork = session.fork()
    try:
        with closing(fork.decode(config, sampling, cancellation, look_ahead=False)) as steps:
            runner = _Runner("quest", steps, TextStream(lambda token_ids: ""))
            # The first token comes from the prefill.
            for _ in range(1 + WARM_UP_STEPS):
                if runner.finish_reason is None:
                    for _ in runner.take_turn():
                        pass
    finally:
        fork.close()


def looked_share(reads: StepReads) -> float:
    """The part of the pages in context that a step read, averaged over layers and kv heads."""
    layers, pages = reads.page_reads.shape
    return float(reads.page_reads.sum(dtype=np.int64)) / (layers * pages * reads.kv_heads)


def race_events(events: Iterator[Any], timer: PrefillTimer | None = None) -> Iterator[RaceEvent]:
    """Turn the work's prefill progress into events with the time left, by `timer`; pass the others on."""
    timer = timer or PrefillTimer()
    finished = False
    for event in events:
        if hasattr(event, "done_tokens"):
            remaining_s = timer.remaining_s(event.done_tokens, event.total_tokens, event.elapsed_s, event.reused_tokens)
            event = PrefillEvent(event, remaining_s)
        finished = isinstance(event, RaceFinished)
        yield event
    if not finished:
        nothing = RaceSide("", 0, None, None, None, "cancelled")
        yield RaceFinished(nothing, nothing, None, WARM_UP_STEPS, None, None)


def run_race(
    dense_steps: Iterator[DecodeStep],
    quest_steps: Iterator[DecodeStep],
    new_text: Callable[[], TextStream],
    token_budget: int,
    attention: RaceAttention = "quest",
) -> Iterator[RaceToken | RaceFinished]:
    """Decode both sides, always the one that has used less step time, until both are done.

    Args:
        dense_steps, quest_steps: decode generators of two forks; one that ends without a finish reason was cancelled.
        new_text: makes an empty text stream.
        token_budget: tokens that a step of Quest reads, or a draft.
        attention: of the second side.
    """
    dense, quest = _Runner("dense", dense_steps, new_text()), _Runner("quest", quest_steps, new_text())
    while running := [runner for runner in (dense, quest) if runner.finish_reason is None]:
        yield from min(running, key=lambda runner: runner.used_s).take_turn()
    yield _finished(dense, quest, token_budget, attention)


def _finished(dense: _Runner, quest: _Runner, token_budget: int, attention: RaceAttention) -> RaceFinished:
    results = dense.result(), quest.result()
    measured = common_turns(dense.turns, quest.turns)
    token = character = None
    if dense.token_ids != quest.token_ids:
        token = len(os.path.commonprefix([dense.token_ids, quest.token_ids]))
        character = len(os.path.commonprefix([results[0].answer, results[1].answer]))
    fits_budget = 0 < quest.context_tokens <= token_budget
    steps = min(len(dense.reached_s), len(quest.reached_s))
    lead_s = dense.reached_s[steps - 1] - quest.reached_s[steps - 1] if steps else None
    told = token, character, ratio_noise(*measured), fits_budget, lead_s, attention
    return RaceFinished(*results, speed_ratio(*measured), WARM_UP_STEPS, *told)
