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
        self._step_s: dict[str, float] = {}  # seconds a token, by attention

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

    def note_step(self, attention: str, token_ms: float | None) -> None:
        """Learn how long a token takes in a race; None is not known."""
        if token_ms is not None:
            self._step_s[attention] = token_ms / 1000

    def note_answer(self, attention: str, tokens_per_s: float) -> None:
        """Learn from an answer, where no race has told yet."""
        if tokens_per_s > 0:
            self._step_s.setdefault(attention, 1 / tokens_per_s)

    def reading_s(self, done_tokens: int, total_tokens: int) -> float | None:
        """Seconds to read a prompt of which `done_tokens` are read; None if nobody can say."""
        if done_tokens >= total_tokens:
            return 0.0
        times = (timer.expected_s(done_tokens, total_tokens) for timer in reversed(self._timers))
        return next((time for time in times if time is not None), None)

    def race_s(self, attention: str, answer_tokens: int) -> float | None:
        """Seconds for dense attention and another to write so many tokens, one after the other; None likewise."""
        steps = self._steps(attention)
        return None if steps is None else answer_tokens * sum(steps)

    def sweep_s(self, budgets: int) -> float | None:
        """Seconds for a sweep over so many budgets, without the reading; None likewise."""
        steps = self._steps("quest")
        if steps is None:
            return None
        dense_s, quest_s = steps
        return MOST_LED_TOKENS * dense_s + budgets * (MOST_LED_TOKENS * quest_s + TIMED_STEPS * (dense_s + quest_s))

    def _steps(self, attention: str) -> tuple[float, float] | None:
        """Seconds of a dense token and of another attention's; where one is not known, a known one stands in for it."""
        known = [self._step_s[name] for name in ("dense", attention, "quest", "exact") if name in self._step_s]
        if not known:
            return None
        return self._step_s.get("dense", known[0]), self._step_s.get(attention, known[0])
