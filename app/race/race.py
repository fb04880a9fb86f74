"""Dense attention against Quest: the same question, two forks of one session, one engine job.

The fork that has used less step time goes next, so both stream at their true relative speed although they share the
device. Before the start both sides take some steps on forks of their own that go at once: what is compiled or allocated
on first use costs neither of them time. Knows nothing of how its events are shown.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from app.chat.answers.answer import DocumentReading, FinishReason, ModelLoading, PrefillEvent, Queued
from app.chat.answers.answer_run import kept_prefixes, read_step
from app.chat.answers.text_stream import TextStream
from app.chat.prompt.plan import PromptPlan
from app.chat.reading.prefill_timer import PrefillTimer

if TYPE_CHECKING:
    from quest_core.config import QuestConfig, SamplingConfig
    from quest_core.engine import Cancellation
    from quest_core.read_trace import StepReads
    from quest_core.session import Session
    from quest_core.session_events import DecodeStep, PrefillProgress

Side = Literal["dense", "quest"]
# Decode steps of each side before the start, and at its beginning that its figures leave out: kernels are compiled and
# buffers made on first use, and a fork copies the last page that it shares.
WARM_UP_STEPS = 2
# Of fewer steps nobody can say how much they spread.
LEAST_STEPS = 8
# How many standard errors the ratio must be away from 1. More than the usual two: steps that follow each other on a
# busy machine are slow together, and spread less than they would by chance.
_STANDARD_ERRORS = 3


@dataclass(frozen=True)
class RaceToken:
    """One token more on one side.

    Args:
        side: whose.
        text_delta: new text; `answer` is all of it so far.
        step: 0 for the first token, which comes from the shared prefill.
        step_s: seconds this step took.
        tokens_per_s, ms_per_token, kv_bytes_per_token: means of this side's steps after warm-up; None before.
        at_s: seconds of the device that this side has used up to here.
        reads: the pages that the step read; None if it read all, and for the first token.
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


@dataclass(frozen=True)
class RaceSide:
    """One side's result; figures as in `RaceToken`.

    Args:
        steps: tokens that it drew, the stop token included.
        finished_s: seconds of the device that it used.
        looked_share: part of the pages in context that its steps read, from 0 to 1; None if it made none.
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


@dataclass(frozen=True)
class RaceFinished:
    """Both sides are done, or the race was cancelled.

    Args:
        dense, quest: the sides.
        speed_ratio: dense's step time over Quest's in the steps both made after warm-up; None if there are none.
        noise: factor within which `speed_ratio` may lie off by chance, from the spread of these steps' times; see
            `ratio_noise`. None where they are too few to tell.
        fits_budget: the text never had more tokens than Quest's budget, so that both sides read all of it.
        warm_up_steps: how many decode steps of each side were left out, besides the first token.
        first_difference: index of the first token that differs; None if the answers are the same.
        first_difference_char: where the texts part; None likewise.
        lead_s: by how much less of the device's time Quest had used when both had made as many steps as the side with
            fewer; below zero where dense attention had. None if one has made none.
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

    @property
    def stopped(self) -> bool:
        """Whether a side was stopped before its end."""
        return "cancelled" in (self.dense.finish_reason, self.quest.finish_reason)

    @property
    def faster(self) -> Side | None:
        """The faster side; None inside the noise, and where both did the same work."""
        if self.speed_ratio is None or self.noise is None or self.fits_budget:
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
    measured_step_s: list[float] = field(default_factory=list)
    measured_bytes: int = 0
    context_tokens: int = 0
    finish_reason: FinishReason | None = None

    def advance(self) -> RaceToken | None:
        """Run one step; None if there is nothing to show for it."""
        step = next(self.steps, None)
        if step is None:
            self.finish_reason = "cancelled"
            return None
        self.used_s += step.step_s
        self.reached_s.append(self.used_s)
        if step.step:
            self.looked_shares.append(1.0 if step.reads is None else looked_share(step.reads))
        self.context_tokens = max(self.context_tokens, step.context_tokens)
        if step.step > WARM_UP_STEPS:
            self.measured_step_s.append(step.step_s)
            self.measured_bytes += step.kv_bytes_read
        if step.finish_reason != "stop":
            self.token_ids.append(step.token_id)
        read = read_step(step, self.text)
        self.finish_reason = read.finish_reason
        told = self.side, read.text_delta, read.answer, step.step, step.step_s
        return RaceToken(*told, *self.figures(), self.used_s, step.reads)

    def figures(self) -> tuple[float | None, float | None, float | None]:
        """tokens_per_s, ms_per_token and kv_bytes_per_token after warm-up."""
        steps, seconds = len(self.measured_step_s), sum(self.measured_step_s)
        if not seconds:
            return None, None, None
        return steps / seconds, 1000.0 * seconds / steps, self.measured_bytes / steps

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
        dense, quest: what the steps of each side read.
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
            yield from run_race(dense_steps, quest_steps, new_text, quest.token_budget)
        finally:
            for one in (*forks, session):
                one.close()

    return work


def warm_up(session: Session, config: QuestConfig, sampling: SamplingConfig, cancellation: Cancellation) -> None:
    """Make some steps on a fork that goes at once."""
    fork = session.fork()
    try:
        few = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, WARM_UP_STEPS + 1))
        for _ in fork.decode(config, few, cancellation, look_ahead=False):
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
) -> Iterator[RaceToken | RaceFinished]:
    """Decode both sides, always the one that has used less step time, until both are done.

    Args:
        dense_steps, quest_steps: decode generators of two forks; one that ends without a finish reason was cancelled.
        new_text: makes an empty text stream.
        token_budget: tokens that a step of Quest reads.
    """
    dense, quest = _Runner("dense", dense_steps, new_text()), _Runner("quest", quest_steps, new_text())
    while running := [runner for runner in (dense, quest) if runner.finish_reason is None]:
        if (token := min(running, key=lambda runner: runner.used_s).advance()) is not None:
            yield token
    yield _finished(dense, quest, token_budget)


def ratio_noise(dense_step_s: list[float], quest_step_s: list[float]) -> float | None:
    """The factor within which the ratio of two sums of step times may be off by chance; None for too few steps.

    The standard error of a mean of n steps is their standard deviation over the root of n. Those of the two means,
    relative to them and added in squares, give that of the ratio's logarithm; three of these are allowed for chance.
    """
    if min(len(dense_step_s), len(quest_step_s)) < LEAST_STEPS:
        return None
    squares = sum(
        (statistics.stdev(steps) / statistics.fmean(steps)) ** 2 / len(steps) for steps in (dense_step_s, quest_step_s)
    )
    return math.exp(_STANDARD_ERRORS * math.sqrt(squares))


def _finished(dense: _Runner, quest: _Runner, token_budget: int) -> RaceFinished:
    results = dense.result(), quest.result()
    # Over the same steps of both: where one answer is longer, its later steps had a longer context and no rival.
    common = min(len(dense.measured_step_s), len(quest.measured_step_s))
    dense_step_s, quest_step_s = dense.measured_step_s[:common], quest.measured_step_s[:common]
    speed_ratio = sum(dense_step_s) / sum(quest_step_s) if common else None
    token = character = None
    if dense.token_ids != quest.token_ids:
        token = len(os.path.commonprefix([dense.token_ids, quest.token_ids]))
        character = len(os.path.commonprefix([results[0].answer, results[1].answer]))
    noise = ratio_noise(dense_step_s, quest_step_s)
    fits_budget = 0 < quest.context_tokens <= token_budget
    steps = min(len(dense.reached_s), len(quest.reached_s))
    lead_s = dense.reached_s[steps - 1] - quest.reached_s[steps - 1] if steps else None
    return RaceFinished(*results, speed_ratio, WARM_UP_STEPS, token, character, noise, fits_budget, lead_s)
