"""Dense attention against Quest: the same question, two forks of one session, one engine job.

The fork that has used less step time goes next, so both stream at their true relative speed although they share the
device. A race leaves the conversation as it was; the question it prefilled is merely the session's cache. Knows
nothing of how its events are shown.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from app.chat.answer import DocumentReading, FinishReason, ModelLoading, PrefillEvent, Queued
from app.chat.answer_run import kept_prefixes, read_step
from app.chat.prefill_timer import PrefillTimer
from app.chat.prompt.plan import PromptPlan
from app.chat.text_stream import TextStream

if TYPE_CHECKING:
    from quest_core.config import QuestConfig, SamplingConfig
    from quest_core.engine import Cancellation
    from quest_core.session import Session
    from quest_core.session_events import DecodeStep, PrefillProgress

Side = Literal["dense", "quest"]
SIDES: tuple[Side, ...] = ("dense", "quest")
# Decode steps of each side that its figures leave out: kernels are compiled and buffers made on first use.
WARM_UP_STEPS = 2
# Of fewer steps nobody can say how much they spread.
LEAST_STEPS = 8
# How many standard errors the ratio must be away from 1. More than the usual two: steps that follow each other on a
# busy machine are slow together, and spread less than they would by chance.
_STANDARD_ERRORS = 3


@dataclass(frozen=True)
class RacePrefill(PrefillEvent):
    """The shared prefill, as in `PrefillEvent`."""


@dataclass(frozen=True)
class RaceToken:
    """One token more on one side.

    Args:
        side: whose.
        text_delta: new text; `answer` is all of it so far.
        step: 0 for the first token, which comes from the shared prefill.
        step_s: seconds this step took.
        tokens_per_s, ms_per_token, kv_bytes_per_token: means of this side's steps after warm-up; None before.
    """

    side: Side
    text_delta: str
    answer: str
    step: int
    step_s: float
    tokens_per_s: float | None
    ms_per_token: float | None
    kv_bytes_per_token: float | None


@dataclass(frozen=True)
class RaceSide:
    """One side's result; figures as in `RaceToken`."""

    answer: str
    decode_tokens: int
    tokens_per_s: float | None
    ms_per_token: float | None
    kv_bytes_per_token: float | None
    finish_reason: FinishReason


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
    """

    dense: RaceSide
    quest: RaceSide
    speed_ratio: float | None
    warm_up_steps: int
    first_difference: int | None
    first_difference_char: int | None
    noise: float | None = None
    fits_budget: bool = False

    @property
    def faster(self) -> Side | None:
        """The faster side; None inside the noise, and where both did the same work."""
        if self.speed_ratio is None or self.noise is None or self.fits_budget:
            return None
        if 1 / self.noise <= self.speed_ratio <= self.noise:
            return None
        return "quest" if self.speed_ratio > 1 else "dense"


RaceEvent = ModelLoading | DocumentReading | Queued | RacePrefill | RaceToken | RaceFinished


@dataclass
class _Runner:
    """One side on its way."""

    side: Side
    steps: Iterator[DecodeStep]
    text: TextStream
    token_ids: list[int] = field(default_factory=list)
    used_s: float = 0.0
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
        self.context_tokens = max(self.context_tokens, step.context_tokens)
        if step.step > WARM_UP_STEPS:
            self.measured_step_s.append(step.step_s)
            self.measured_bytes += step.kv_bytes_read
        if step.finish_reason != "stop":
            self.token_ids.append(step.token_id)
        read = read_step(step, self.text)
        self.finish_reason = read.finish_reason
        return RaceToken(self.side, read.text_delta, read.answer, step.step, step.step_s, *self.figures())

    def figures(self) -> tuple[float | None, float | None, float | None]:
        """tokens_per_s, ms_per_token and kv_bytes_per_token after warm-up."""
        steps, seconds = len(self.measured_step_s), sum(self.measured_step_s)
        if not seconds:
            return None, None, None
        return steps / seconds, 1000.0 * seconds / steps, self.measured_bytes / steps

    def result(self) -> RaceSide:
        self.text.finish()
        return RaceSide(self.text.text, len(self.token_ids), *self.figures(), self.finish_reason or "cancelled")


def race_work(
    open_session: Callable[[], Session],
    plan: PromptPlan,
    dense: QuestConfig,
    quest: QuestConfig,
    sampling: SamplingConfig,
    new_text: Callable[[], TextStream],
) -> Callable[[Cancellation], Iterator[PrefillProgress | RaceToken | RaceFinished]]:
    """What the engine's thread does for a race."""

    def work(cancellation: Cancellation) -> Iterator[PrefillProgress | RaceToken | RaceFinished]:
        session = open_session()
        prefixes = kept_prefixes(plan.kept_ends)
        yield from session.prefill(plan.token_ids, cancellation, sampling.max_new_tokens, prefixes)
        if cancellation.requested:
            return
        forks = session.fork(), session.fork()
        try:
            # A step launched ahead of its turn would run in the other side's time.
            dense_steps, quest_steps = (
                fork.decode(config, sampling, cancellation, look_ahead=False)
                for fork, config in zip(forks, (dense, quest), strict=True)
            )
            yield from run_race(dense_steps, quest_steps, new_text, quest.token_budget)
        finally:
            for fork in forks:
                fork.close()

    return work


def race_events(events: Iterator[Any]) -> Iterator[RaceEvent]:
    """Turn the work's prefill progress into events with the time left; pass the others on."""
    timer = PrefillTimer()
    finished = False
    for event in events:
        if hasattr(event, "done_tokens"):
            remaining_s = timer.remaining_s(event.done_tokens, event.total_tokens, event.elapsed_s, event.reused_tokens)
            event = RacePrefill.of(event, remaining_s)
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
    return RaceFinished(*results, speed_ratio, WARM_UP_STEPS, token, character, noise, fits_budget)
