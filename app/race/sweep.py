"""Speed against agreement with dense attention, over budgets, on one prompt that is read once.

Dense attention answers first. Then, for each budget, Quest is led along that answer token by token, which tells how
often its likeliest token would have been the same; and both run side by side as in a race, which tells how fast it is
beside dense attention in the same seconds. Every run is a fork of one session. Knows nothing of how points are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.chat.answers.answer_work import kept_prefixes
from app.chat.answers.text_stream import TextStream
from app.chat.prompt.plan import PromptPlan
from app.race.race import RaceFinished, looked_share, run_race, warm_up

if TYPE_CHECKING:
    from quest_core.config import QuestConfig, SamplingConfig
    from quest_core.engine import Cancellation
    from quest_core.session import Session
    from quest_core.session_events import PrefillProgress

# Of dense attention's answer. A shorter one goes on behind its end: of fewer steps no share is worth drawing.
MOST_LED_TOKENS, LEAST_LED_TOKENS = 96, 32
# Of both sides for each budget, warm-up included.
TIMED_STEPS = 40


@dataclass(frozen=True)
class SweepAnswer:
    """What dense attention has answered so far: `tokens` of it, and its text."""

    tokens: int
    answer: str


@dataclass(frozen=True)
class SweepPoint:
    """One budget.

    Args:
        token_budget: tokens that a step looks at.
        steps: of the answer, without its first token, which both have from the same reading.
        agreed: how many of these had dense attention's token as the likeliest.
        speed_ratio, noise: as in `app.race.race.RaceFinished`.
        dense_tokens_per_s, quest_tokens_per_s: of the same run.
        looked_share: part of the pages in context that a step read, from 0 to 1.
        fits_budget: whether there was nothing to leave out.
    """

    token_budget: int
    steps: int
    agreed: int
    speed_ratio: float | None
    noise: float | None
    dense_tokens_per_s: float | None
    quest_tokens_per_s: float | None
    looked_share: float
    fits_budget: bool


@dataclass(frozen=True)
class SweepFinished:
    """Nothing more will come; `complete` if all budgets were measured."""

    complete: bool


def sweep_work(
    open_session: Callable[[], Session],
    plan: PromptPlan,
    dense: QuestConfig,
    quests: Sequence[QuestConfig],
    sampling: SamplingConfig,
    new_text: Callable[[], TextStream],
) -> Callable[[Cancellation], Iterator[PrefillProgress | SweepAnswer | SweepPoint]]:
    """What the engine's thread does for a sweep.

    Args:
        open_session: makes a session of its own, which is closed at the end.
        plan: the prompt.
        dense: what dense steps read.
        quests: what Quest's steps read, by budget.
        sampling: its stop tokens are the model's; drawing is greedy and as long as is needed here, whatever it says.
        new_text: makes an empty text stream.
    """
    endless = replace(sampling, temperature=0.0, stop_token_ids=())
    led = replace(endless, max_new_tokens=MOST_LED_TOKENS)
    timed = replace(endless, max_new_tokens=TIMED_STEPS)

    def work(cancellation: Cancellation) -> Iterator[PrefillProgress | SweepAnswer | SweepPoint]:
        session = open_session()
        try:
            yield from session.prefill(plan.token_ids, cancellation, MOST_LED_TOKENS, kept_prefixes(plan.kept_ends))
            if cancellation.requested:
                return
            for config in (dense, *quests):
                warm_up(session, config, led, cancellation)
            answer: list[int] = []
            yield from _dense_answer(session, dense, led, sampling.stop_token_ids, new_text(), cancellation, answer)
            for config in quests:
                agreed, steps, share = _agreement(session, config, answer, cancellation)
                if cancellation.requested:
                    return
                race = _timed(session, dense, config, timed, cancellation)
                if cancellation.requested or race is None:
                    return
                yield SweepPoint(
                    config.token_budget,
                    steps,
                    agreed,
                    race.speed_ratio,
                    race.noise,
                    race.dense.tokens_per_s,
                    race.quest.tokens_per_s,
                    share,
                    race.fits_budget,
                )
        finally:
            session.close()

    return work


def _dense_answer(
    session: Session,
    dense: QuestConfig,
    sampling: SamplingConfig,
    stop_token_ids: Sequence[int],
    text: TextStream,
    cancellation: Cancellation,
    answer: list[int],
) -> Iterator[SweepAnswer]:
    """Draw the answer that Quest is led along, into `answer`."""
    fork = session.fork()
    try:
        for step in fork.decode(dense, sampling, cancellation, look_ahead=False):
            if step.token_id in stop_token_ids and len(answer) >= LEAST_LED_TOKENS:
                return
            answer.append(step.token_id)
            text.push(step.token_id)
            yield SweepAnswer(len(answer), text.text)
    finally:
        fork.close()


def _agreement(
    session: Session, config: QuestConfig, answer: list[int], cancellation: Cancellation
) -> tuple[int, int, float]:
    """How many of the answer's tokens after the first were the likeliest, of how many; and the share that was read."""
    fork, agreed, steps, shares = session.fork(), 0, 0, []
    try:
        for number, scored in enumerate(fork.score(answer, config, cancellation)):
            if number:
                steps, agreed = steps + 1, agreed + scored.is_likeliest
            if scored.reads is not None:
                shares.append(looked_share(scored.reads))
    finally:
        fork.close()
    return agreed, steps, sum(shares) / len(shares) if shares else 1.0


def _timed(
    session: Session, dense: QuestConfig, quest: QuestConfig, sampling: SamplingConfig, cancellation: Cancellation
) -> RaceFinished | None:
    forks = session.fork(), session.fork()
    try:
        sides = (
            fork.decode(config, sampling, cancellation, look_ahead=False)
            for fork, config in zip(forks, (dense, quest), strict=True)
        )
        events = run_race(*sides, lambda: TextStream(lambda token_ids: ""), quest.token_budget)
        return next((event for event in events if isinstance(event, RaceFinished)), None)
    finally:
        for fork in forks:
            fork.close()
