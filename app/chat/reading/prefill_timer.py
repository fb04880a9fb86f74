"""How long the rest of a prefill will take, and what another one would.

A chunk costs time per token, and more for every token before it because attention reads them all. Both rates are
fitted to the chunks seen so far; no rate is known before the first. What was taken over from elsewhere says nothing of
the time that computing takes, and does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

# Fewer tokens take a time that says more about how the work began than about how it goes on.
_LEAST_MEASURED_TOKENS = 256


@dataclass(frozen=True)
class PrefillRates:
    """What a prefill costs.

    Args:
        per_token_s: seconds for each token.
        per_attended_s: seconds for each token that a token attends to.
        measured_tokens: how far the prefill had come from which this is known.
    """

    per_token_s: float
    per_attended_s: float
    measured_tokens: int

    def seconds(self, tokens: int) -> float:
        """Of a whole prefill of so many tokens."""
        return self.per_token_s * tokens + self.per_attended_s * tokens**2 / 2


class PrefillTimer:
    """Estimates from (tokens done, seconds elapsed) pairs, in the order they happen."""

    def __init__(self) -> None:
        # Per chunk: tokens, tokens attended by them together, seconds.
        self._chunks: list[tuple[float, float, float]] = []
        self._last: tuple[int, float, int] | None = None

    def remaining_s(
        self, done_tokens: int, total_tokens: int, elapsed_s: float, reused_tokens: int = 0
    ) -> float | None:
        """Note a progress and return the seconds still to go; None until a chunk has been seen.

        Args:
            done_tokens, total_tokens: of the prompt.
            elapsed_s: since its beginning.
            reused_tokens: those of `done_tokens` that were not computed.
        """
        if self._last is not None and done_tokens > self._last[0]:
            before_tokens, before_s, before_reused = self._last
            if reused_tokens == before_reused:
                attended = (done_tokens**2 - before_tokens**2) / 2
                self._chunks.append((done_tokens - before_tokens, attended, elapsed_s - before_s))
        self._last = (done_tokens, elapsed_s, reused_tokens)
        return 0.0 if done_tokens >= total_tokens else self.expected_s(done_tokens, total_tokens)

    def expected_s(self, done_tokens: int, total_tokens: int) -> float | None:
        """Seconds from `done_tokens` to `total_tokens` of whatever prompt; None until a chunk has been seen."""
        if not self._chunks:
            return None
        per_token_s, per_attended_s = self._rates()
        left_attended = (total_tokens**2 - done_tokens**2) / 2
        return per_token_s * (total_tokens - done_tokens) + per_attended_s * left_attended

    def rates(self) -> PrefillRates | None:
        """What was measured; None while too little was computed."""
        computed_tokens = sum(tokens for tokens, _, _ in self._chunks)
        if self._last is None or computed_tokens < _LEAST_MEASURED_TOKENS:
            return None
        return PrefillRates(*self._rates(), self._last[0])

    def _rates(self) -> tuple[float, float]:
        """Seconds per token and per attended token: least squares, neither below zero."""
        tokens_squared = sum(tokens * tokens for tokens, _, _ in self._chunks)
        attended_squared = sum(attended * attended for _, attended, _ in self._chunks)
        mixed = sum(tokens * attended for tokens, attended, _ in self._chunks)
        tokens_s = sum(tokens * seconds for tokens, _, seconds in self._chunks)
        attended_s = sum(attended * seconds for _, attended, seconds in self._chunks)
        determinant = tokens_squared * attended_squared - mixed * mixed
        # One chunk, or equal ones, cannot tell the two rates apart.
        if len(self._chunks) > 1 and determinant > 1e-9 * tokens_squared * attended_squared:
            per_token_s = (tokens_s * attended_squared - attended_s * mixed) / determinant
            per_attended_s = (attended_s * tokens_squared - tokens_s * mixed) / determinant
            if per_token_s >= 0 and per_attended_s >= 0:
                return per_token_s, per_attended_s
            if per_token_s < 0:
                return 0.0, attended_s / attended_squared
        return tokens_s / tokens_squared, 0.0
