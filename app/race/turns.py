"""What a side of a race does at one go, and how far a ratio of two speeds may be off by chance.

A turn is a decode step, or a round of speculative decoding, which gives several tokens at once. Knows nothing of text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Decode steps of each side before the start, and at its beginning that its figures leave out: kernels are compiled and
# buffers made on first use, and a fork copies the last page that it shares. Of speculative decoding the first two
# rounds: a dense step and a trial.
WARM_UP_STEPS = 2
# Of fewer turns nobody can say how much they spread.
LEAST_TURNS = 8
# How many standard errors the ratio must be away from 1. More than the usual two: steps that follow each other on a
# busy machine are slow together, and spread less than they would by chance.
_STANDARD_ERRORS = 3


@dataclass
class Turn:
    """One decode step, or one round of speculative decoding.

    Args:
        first_step: number of its first token.
        tokens: that it gave; fewer than the round had verified where the answer ended among them.
        seconds: of the device.
        kv_bytes: of the cache that it read.
    """

    first_step: int
    tokens: int
    seconds: float
    kv_bytes: int = 0

    @property
    def is_measured(self) -> bool:
        """Whether it began after the warm-up. A round counts as a whole, or not at all."""
        return self.first_step > WARM_UP_STEPS

    def within(self, first_step: int, end_step: int) -> Turn | None:
        """Its part from one step up to before another; None if it has none."""
        first, end = max(first_step, self.first_step), min(end_step, self.first_step + self.tokens)
        if first >= end:
            return None
        return Turn(first, end - first, self.seconds * (end - first) / self.tokens)


def common_turns(one: Sequence[Turn], other: Sequence[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The measured turns of two sides, as far as both made these steps.

    Where one answer is longer, its later steps had a longer context and no rival; and a side's warm-up may end with a
    round, some steps after the other's.
    """
    sides = [[turn for turn in turns if turn.is_measured] for turns in (one, other)]
    if not all(sides):
        return [], []
    first_step = max(turns[0].first_step for turns in sides)
    end_step = min(turns[-1].first_step + turns[-1].tokens for turns in sides)
    cut = [[part for turn in turns if (part := turn.within(first_step, end_step))] for turns in sides]
    return cut[0], cut[1]


def speed_ratio(dense: Sequence[Turn], quest: Sequence[Turn]) -> float | None:
    """Dense attention's seconds over the other's, of turns that give the same steps; None if there are none."""
    return _seconds(dense) / _seconds(quest) if dense and quest else None


def ratio_noise(dense: Sequence[Turn], quest: Sequence[Turn]) -> float | None:
    """The factor within which the ratio of two sides' seconds a token may be off by chance; None for too few turns.

    Tokens of one round share its time evenly, so that the spread over tokens would be too small: turns are counted, by
    how much each differs from what its tokens take in the mean. This is the standard error of a ratio that is estimated
    from clusters; with one token a turn it is the standard deviation over the root of their number. Those of the two
    sides, relative to their means and added in squares, give that of the ratio's logarithm; three of these are allowed
    for chance.
    """
    if min(len(dense), len(quest)) < LEAST_TURNS:
        return None
    return math.exp(_STANDARD_ERRORS * math.sqrt(_relative_variance(dense) + _relative_variance(quest)))


def _relative_variance(turns: Sequence[Turn]) -> float:
    """Of the seconds a token, over their square."""
    token_s = _seconds(turns) / sum(turn.tokens for turn in turns)
    squares = sum((turn.seconds - token_s * turn.tokens) ** 2 for turn in turns)
    return squares * len(turns) / (len(turns) - 1) / _seconds(turns) ** 2


def _seconds(turns: Sequence[Turn]) -> float:
    return sum(turn.seconds for turn in turns)
