"""One contestant of `bench cpu`: how it decodes, and the row that comes of it.

Each decoding runs steps after a prefill, returns the seconds of those after the warm-up, and leaves the prefill's cache
as it was. Knows nothing of who else takes part.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.measure.benchmarks.decode import WARM_UP_STEPS, decode_fork
from app.measure.benchmarks.instruments.process_memory import MemoryAccount
from app.measure.benchmarks.rivals.llamacpp_rival import LlamaCppModel
from quest_core.config import QuestConfig
from quest_core.session import Session


@dataclass
class DraftCount:
    """Tokens that speculative decoding drafted, and how many of them were accepted."""

    drafted: int = 0
    accepted: int = 0

    @property
    def accepted_share(self) -> float | None:
        return self.accepted / self.drafted if self.drafted else None


@dataclass
class Contender:
    """A row in the making.

    Args:
        engine, attention, dtype, token_budget: of the row.
        memory: what it has taken so far.
        prefill_s: of the whole context.
        decode: runs that many steps, gives the seconds of those after the warm-up, and leaves the cache as it was.
        drafts: what its steps drafted; None if they draft nothing.
    """

    engine: str
    attention: str
    dtype: str
    token_budget: int | None
    memory: MemoryAccount
    prefill_s: float
    decode: Callable[[int], list[float]]
    drafts: DraftCount | None = None
    times: list[float] = field(default_factory=list)

    def row(self, context: int) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "attention": self.attention,
            "dtype": self.dtype,
            "context_tokens": context,
            "token_budget": self.token_budget,
            "prefill_tokens_per_s": context / self.prefill_s,
            "decode_tokens_per_s": 1 / statistics.median(self.times),
            "peak_memory_bytes": self.memory.peak_bytes,
            "accepted_share": self.drafts and self.drafts.accepted_share,
        }


def decode_ours(session: Session, quest: QuestConfig, steps: int) -> list[float]:
    """Of a fork."""
    return [step.step_s for step in decode_fork(session, quest, steps)]


def decode_exact(session: Session, quest: QuestConfig, drafts: DraftCount, steps: int) -> list[float]:
    """Of a fork, with speculative decoding: its tokens come some at a time, so that each gets their mean."""
    decoded = decode_fork(session, quest, steps)
    drafts.drafted += sum(step.drafted for step in decoded)
    drafts.accepted += sum(step.accepted for step in decoded)
    return [statistics.fmean(step.step_s for step in decoded)] * len(decoded)


def decode_llamacpp(llama: LlamaCppModel, steps: int) -> list[float]:
    return llama.time_decode_steps(WARM_UP_STEPS + steps)[WARM_UP_STEPS:]
