"""How long a race, or reading a text for it, will take: by what this program has measured since its start.

Nothing is guessed: before anything was measured, nothing is said. Knows nothing of prompts.
"""

from __future__ import annotations

from app.chat.reading.prefill_timer import PrefillTimer
from app.race.sweep import MOST_LED_TOKENS, TIMED_STEPS


class ExpectedTime:
    """Rates of this machine and model, as races measure them."""

    def __init__(self) -> None:
        self._timers: list[PrefillTimer] = []
        self._dense_s: float | None = None
        self._quest_s: float | None = None

    def new_timer(self) -> PrefillTimer:
        """A timer for a prefill, which is remembered."""
        timer = PrefillTimer()
        # The one before stays until this one has seen a chunk.
        self._timers = [*(one for one in self._timers if one.expected_s(0, 1) is not None), timer][-2:]
        return timer

    def note_timer(self, timer: PrefillTimer | None) -> None:
        """Learn from a prefill that somebody else has timed; what races have timed counts more."""
        if timer is not None and timer.expected_s(0, 1) is not None and self.reading_s(0, 1) is None:
            self._timers.insert(0, timer)

    def note_steps(self, dense_ms: float | None, quest_ms: float | None) -> None:
        """Learn how long a decode step takes; None is not known."""
        self._dense_s = self._dense_s if dense_ms is None else dense_ms / 1000
        self._quest_s = self._quest_s if quest_ms is None else quest_ms / 1000

    def note_answer(self, attention: str, tokens_per_s: float) -> None:
        """Learn from an answer, where no race has told yet."""
        if tokens_per_s > 0:
            if attention == "dense" and self._dense_s is None:
                self._dense_s = 1 / tokens_per_s
            if attention == "quest" and self._quest_s is None:
                self._quest_s = 1 / tokens_per_s

    def reading_s(self, done_tokens: int, total_tokens: int) -> float | None:
        """Seconds to read a prompt of which `done_tokens` are read; None if nobody can say."""
        if done_tokens >= total_tokens:
            return 0.0
        times = (timer.expected_s(done_tokens, total_tokens) for timer in reversed(self._timers))
        return next((time for time in times if time is not None), None)

    def race_s(self, answer_tokens: int) -> float | None:
        """Seconds for both sides to write so many tokens, one after the other on one device; None likewise."""
        steps = self._steps()
        return None if steps is None else answer_tokens * sum(steps)

    def sweep_s(self, budgets: int) -> float | None:
        """Seconds for a sweep over so many budgets, without the reading; None likewise."""
        steps = self._steps()
        if steps is None:
            return None
        dense_s, quest_s = steps
        return MOST_LED_TOKENS * dense_s + budgets * (MOST_LED_TOKENS * quest_s + TIMED_STEPS * (dense_s + quest_s))

    def _steps(self) -> tuple[float, float] | None:
        """Seconds of a dense step and of Quest's; where one is not known, the other stands in for it."""
        if self._dense_s is None and self._quest_s is None:
            return None
        return self._dense_s or self._quest_s, self._quest_s or self._dense_s
