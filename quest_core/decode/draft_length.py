"""How many tokens a round of speculative decoding drafts, by what drafts cost and how many of them are accepted.

A round drafts some tokens, and one dense pass over them verifies all. One more is drafted while the tokens it is
expected to bring are more than the answer's usual rate brings in the time that it takes: the rule that makes tokens
over time largest. Where even the first is not worth its time, a round is a plain dense step. Where a round's length
must be known before it starts, it is the one that makes the tokens expected over the time expected largest. How many
drafts are accepted is the answer's own figure; what rounds cost may be known from earlier answers. Knows nothing of
models or caches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

MOST_DRAFTS = 7
# Drafted in rounds that only find out what drafts cost and how many are accepted, in turn. With the token before them
# they are two rows, which a pass may have nearly for nothing, and four, as many as the CPU's kernels multiply at once.
TRIAL_DRAFTS = (1, 3)
# Dense steps between two such rounds, where drafting does not pay: few enough that a change is noticed within an
# answer, and enough that a round in vain is below one step in fifty.
STEPS_BETWEEN_TRIALS = 64
# Times as many where drafts would not pay even if all were accepted, unless what they cost was measured badly.
UNPROMISING = 16
# Weight of the newest round in a running mean, and the most that one round may be taken for, over the mean.
NEWEST_WEIGHT, MOST_OVER_MEAN = 0.2, 2.0
# Draft probabilities between which acceptance is counted apart, and what is assumed of each before anything was seen.
CONFIDENCE_EDGES = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
ASSUMED_DRAFTS = 4.0
ASSUMED_ACCEPTANCE = 0.85
# What was seen so many drafts ago counts half.
HALF_LIFE_DRAFTS = 100


@dataclass
class RunningMean:
    """Of times in seconds, the newest weighing most."""

    value: float | None = None

    def add(self, sample: float) -> None:
        if self.value is None:
            self.value = sample
        else:
            # The first may have been an outlier, which must not stay the mean for long.
            self.value += NEWEST_WEIGHT * (min(sample, MOST_OVER_MEAN * self.value) - self.value)


class Acceptance:
    """The fraction of drafts that are accepted, from an assumption on.

    Args:
        assumed: before any was seen.
    """

    def __init__(self, assumed: float) -> None:
        self._accepted, self._drafted = assumed * ASSUMED_DRAFTS, ASSUMED_DRAFTS

    @property
    def fraction(self) -> float:
        return self._accepted / self._drafted

    def count(self, accepted: bool) -> None:
        keep = 0.5 ** (1 / HALF_LIFE_DRAFTS)
        self._accepted = self._accepted * keep + accepted
        self._drafted = self._drafted * keep + 1


@dataclass(frozen=True)
class FinishedRound:
    """What a round took and brought.

    Args:
        confidences: of each draft, the draft's own probability of its likeliest token; none where they are not known.
        accepted: how many of the first drafts were.
        draft_s: seconds that each draft took.
        verify_s: seconds of the dense pass.
    """

    confidences: Sequence[float]
    accepted: int
    draft_s: Sequence[float]
    verify_s: float


class RoundCosts:
    """What the parts of rounds take, in seconds, as far as they have run.

    Attributes:
        dense_s: of a dense step; None before the first.
        first_s: of a round's first draft, which selects; None before the first.
        trials: rounds so far that were to find these out.
        steps_without_drafts: dense steps since the last round with drafts.
    """

    def __init__(self) -> None:
        self.trials = self.steps_without_drafts = 0
        self._first_s, self._next_s = RunningMean(), RunningMean()
        self._pass_s = {1: RunningMean()}  # by the tokens of a pass

    @property
    def dense_s(self) -> float | None:
        return self._pass_s[1].value

    @property
    def first_s(self) -> float | None:
        return self._first_s.value

    @property
    def known(self) -> bool:
        """Whether every kind of trial has been made."""
        return self.trials >= len(TRIAL_DRAFTS)

    @property
    def next_s(self) -> float:
        """Of a draft after the first of its round, as expected."""
        return self._first_s.value if self._next_s.value is None else self._next_s.value

    def pass_s(self, tokens: int) -> float:
        """Of a pass over so many tokens: what such passes took, or a line through the nearest others."""
        if tokens in self._pass_s:
            return self._pass_s[tokens].value
        known = sorted(self._pass_s)
        above = next((other for other in known if other > tokens), known[-1])
        below = max(other for other in known if other < above)
        least_s, most_s = self._pass_s[below].value, self._pass_s[above].value
        return least_s + max(0.0, most_s - least_s) * (tokens - below) / (above - below)

    def tokens_per_s(self, drafts: int, acceptance: float) -> float:
        """Of a round of so many drafts, of which as large a share is accepted as long as those before it are."""
        seconds = self.pass_s(1 + drafts)
        if drafts:
            seconds += self.first_s + (drafts - 1) * self.next_s
        return sum(acceptance**drafted for drafted in range(drafts + 1)) / seconds

    def may_pay(self, choices: Iterable[int]) -> bool:
        """Whether a round of one of these numbers of drafts would beat dense steps if all were accepted."""
        dense_s = self.dense_s
        return dense_s is None or any(self.tokens_per_s(drafts, 1.0) * dense_s > 1.0 for drafts in choices)

    def add(self, draft_s: Sequence[float], verify_s: float) -> None:
        """Count a round in."""
        self.steps_without_drafts = 0 if draft_s else self.steps_without_drafts + 1
        self._pass_s.setdefault(1 + len(draft_s), RunningMean()).add(verify_s)
        for number, seconds in enumerate(draft_s):
            (self._next_s if number else self._first_s).add(seconds)


class DraftLength:
    """Decides for one answer, draft by draft or round by round.

    Args:
        costs: of rounds like this answer's; None if nothing is known of them.
    """

    def __init__(self, costs: RoundCosts | None = None) -> None:
        self._costs = costs or RoundCosts()
        self._round_s, self._round_tokens = RunningMean(), RunningMean()
        self._any = Acceptance(ASSUMED_ACCEPTANCE)
        self._by_confidence = [Acceptance(sum(edges) / 2) for edges in pairwise(CONFIDENCE_EDGES)]

    def wants_another(self, confidences: Sequence[float]) -> bool:
        """Whether to draft one more in this round.

        Args:
            confidences: of the drafts so far.
        """
        costs = self._costs
        if len(confidences) == MOST_DRAFTS or costs.dense_s is None:
            return False
        if self._tries(range(1, MOST_DRAFTS + 1)):
            return len(confidences) < self._trial_drafts
        token_s = 1 / self._tokens_per_s()
        reached = math.prod(self._of(confidence).fraction for confidence in confidences)
        gained_s = 0.0
        # The first draft may be worth its time only by those that follow.
        for drafted in range(len(confidences), MOST_DRAFTS):
            reached *= self._any.fraction
            draft_s = costs.next_s if drafted else costs.first_s
            row_s = costs.pass_s(drafted + 2) - costs.pass_s(drafted + 1)
            gained_s += reached * token_s - draft_s - row_s
            if gained_s > 0.0:
                return True
        return False

    def drafts_ahead(self, choices: Sequence[int]) -> int:
        """How many to draft in the round that is about to start, where that cannot be told draft by draft.

        Args:
            choices: numbers to choose from, ascending, beside none.
        """
        if not choices or self._costs.dense_s is None:
            return 0
        if self._tries(choices):
            return max((drafts for drafts in choices if drafts <= self._trial_drafts), default=choices[0])
        return max((0, *choices), key=lambda drafts: self._costs.tokens_per_s(drafts, self._any.fraction))

    def _tries(self, choices: Iterable[int]) -> bool:
        """Whether the next round with drafts is a trial: of what is not known, or of what may have become better."""
        costs = self._costs
        if not costs.known:
            return True
        most_steps = STEPS_BETWEEN_TRIALS * (1 if costs.may_pay(choices) else UNPROMISING)
        return costs.steps_without_drafts > most_steps

    @property
    def _trial_drafts(self) -> int:
        return TRIAL_DRAFTS[self._costs.trials % len(TRIAL_DRAFTS)]

    def _tokens_per_s(self) -> float:
        """The answer's rate, or that of dense steps, if that is higher."""
        dense = 1 / self._costs.dense_s
        return dense if self._round_s.value is None else max(dense, self._round_tokens.value / self._round_s.value)

    def finish(self, finished: FinishedRound) -> None:
        """Learn from a round."""
        drafted = len(finished.draft_s)
        if not drafted:
            self._costs.add((), finished.verify_s)
            return
        self._costs.trials += self._tries((drafted,))
        self._costs.add(finished.draft_s, finished.verify_s)
        self._round_s.add(sum(finished.draft_s) + finished.verify_s)
        self._round_tokens.add(finished.accepted + 1)
        # Whether drafts after the first refused one would have been right is not known.
        for index in range(min(finished.accepted + 1, drafted)):
            self._any.count(index < finished.accepted)
            if finished.confidences:
                self._of(finished.confidences[index]).count(index < finished.accepted)

    def _of(self, confidence: float) -> Acceptance:
        upper = next(index for index, edge in enumerate(CONFIDENCE_EDGES[1:]) if confidence <= edge or edge == 1.0)
        return self._by_confidence[upper]
