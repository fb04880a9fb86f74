"""What the parts of a round of speculative decoding take on a GPU, and what they would give with real acceptance.

A random model's drafts are nearly all refused, which changes no time: a round of so many drafts takes as long whatever
comes of them. How many tokens it brings is therefore computed, from the share of drafts that a real model accepted.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decode.draft_length import DraftLength, FinishedRound
from quest_core.decode.round_graphs import ROW_COUNTS
from quest_core.decode.sampling import Sampler
from quest_core.decode.static_speculation import StaticSpeculativeSteps
from quest_core.engine import Engine
from quest_core.session import Session

# Of the drafts that the embedded model made at a budget of 1,024 after 16,000 tokens (docs/evaluation.md, "Exact on the
# CPU"); of larger models it is not known.
ACCEPTED_BY_EMBEDDED_AT_16K = 80 / 89
# The first capture the graphs.
WARM_UP_ROUNDS = 2


class FixedRounds(DraftLength):
    """Rounds of as many drafts, if there is room for them; what they took.

    Args:
        drafts: of each round.
    """

    def __init__(self, drafts: int) -> None:
        super().__init__()
        self.finished: list[FinishedRound] = []
        self._drafts = drafts

    def drafts_ahead(self, choices: Sequence[int]) -> int:
        """See `DraftLength.drafts_ahead`."""
        return self._drafts if self._drafts in choices else 0

    def finish(self, finished: FinishedRound) -> None:
        """See `DraftLength.finish`."""
        self.finished.append(finished)


@dataclass
class RoundTimes:
    """Seconds on the device.

    Args:
        first_s: of first drafts, which select.
        next_s: of the drafts after them.
        verify_s: of verifications, by the rows that they verify.
    """

    first_s: list[float] = field(default_factory=list)
    next_s: list[float] = field(default_factory=list)
    verify_s: dict[int, list[float]] = field(default_factory=dict)

    def add(self, finished: FinishedRound) -> None:
        """Count a round in."""
        self.first_s += finished.draft_s[:1]
        self.next_s += finished.draft_s[1:]
        self.verify_s.setdefault(1 + len(finished.draft_s), []).append(finished.verify_s)

    def columns(self, acceptance: float) -> dict[str, Any]:
        """Medians in milliseconds, and the tokens a second computed from them at an `acceptance` of each draft."""
        first_ms, next_ms = (1e3 * statistics.median(each) if each else None for each in (self.first_s, self.next_s))
        verify_ms = {rows: 1e3 * statistics.median(each) for rows, each in sorted(self.verify_s.items())}
        computed = {}
        for rows, ms in verify_ms.items():
            draft_ms = first_ms + (rows - 2) * (next_ms or 0.0) if rows > 1 else 0.0
            tokens = sum(acceptance**drafted for drafted in range(rows))
            computed[f"{rows - 1}_drafts"] = tokens / (draft_ms + ms) * 1e3
        return {
            "first_draft_ms": first_ms,
            "next_draft_ms": next_ms,
            "verify_ms": {f"{rows}_rows": ms for rows, ms in verify_ms.items()},
            "assumed_acceptance": acceptance,
            "computed_tokens_per_s": computed,
        }


def time_rounds(engine: Engine, session: Session, quest: QuestConfig, rounds: int) -> RoundTimes | None:
    """Run `rounds` rounds of each length after what the session holds, which stays as it is.

    Args:
        engine: of the session; called on its thread.
        quest: what drafts read.

    Returns:
        None where the engine runs no rounds of captured steps.
    """
    variant, times = engine.rope_variants[-1], RoundTimes()
    if variant.rounds is None:
        return None
    for rows in ROW_COUNTS:
        for number in range(WARM_UP_ROUNDS + rounds):
            cache, length = session.cache.fork(), FixedRounds(rows - 1)
            sampler = Sampler(SamplingConfig(), engine.model_config.vocab_size, engine.device)
            steps = StaticSpeculativeSteps(
                variant.rounds, variant.decoder, cache, quest, sampler, engine.context_tokens, length
            )
            steps.begin(session.logits)
            steps.finish()
            cache.truncate(0)
            # Without room for the drafts a round has none, and another length.
            if number >= WARM_UP_ROUNDS and len(length.finished[0].draft_s) == rows - 1:
                times.add(length.finished[0])
    return times
