"""What an answer looked at, in a reader's terms: how many tokens of how many, and how much of each document page.

Made beside an answer, step by step, for whoever watches; the figures of the engine go through unchanged. Knows nothing
of how pages are selected.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from app.chat.answers.reads.page_heat import SelectedTokens, UsualLevels, placed_pages
from app.chat.prompt.plan import PromptPlan

if TYPE_CHECKING:
    from app.chat.answers.reads.answer_reads import AnswerReads
    from quest_core.decode.read_trace import StepReads
    from quest_core.session_events import DecodeStep

# A page's heat is a byte: 0 is not known, 128 the page's usual level, and each 24 more twice as much.
_USUAL_LEVEL = 128
_LEVELS_A_DOUBLING = 24
# Steps come faster than anybody looks; of a long context the sums over all pages take milliseconds.
_HEAT_EVERY_S = 0.1
# Before, a single step decides.
_LEAST_STEPS = 3
# Of fewer pages none is the one in the middle.
_LEAST_PAGES = 3


def attended_tokens(reads: StepReads | None, context_tokens: int, page_size: int) -> float:
    """Tokens whose keys and values a step read, averaged over layers and kv heads; page summaries do not count.

    Args:
        reads: of the step; None reads all of the context.
        context_tokens: of the step.
        page_size: tokens of a KV page. The last page may hold fewer: it counts as full, so that a step within its
            budget reads just its budget.
    """
    if reads is None:
        return float(context_tokens)
    layers = len(reads.page_reads)
    pages_read = int(reads.page_reads.sum(dtype=np.int64)) / (layers * reads.kv_heads)
    return min(float(context_tokens), pages_read * page_size)


@dataclass
class _Mean:
    """A running mean; None before the first value."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class LiveReading:
    """Adds up what the steps of one answer read.

    Args:
        plan: its prompt.
        attention: as asked for.
        page_size: tokens of a KV page.
    """

    def __init__(self, plan: PromptPlan, attention: str, page_size: int) -> None:
        self._attention = attention
        self._mode = plan.mode
        self._page_size = page_size
        self._pages = placed_pages(plan)
        self._documents_end = max((end for page in self._pages for _, end in page.token_ranges), default=0)
        self._selected = SelectedTokens(self._pages, page_size)
        self._usual: UsualLevels | None = None
        self._heat: str | None = None
        self._heat_at = -math.inf
        self._drafted = self._accepted = 0
        self._attended, self._missed, self._bytes, self._share = _Mean(), _Mean(), _Mean(), _Mean()
        self._context_tokens: int | None = None
        self._read_all = True  # so far

    def take_usual(self, usual: UsualLevels) -> None:
        """Take up what the document pages' usual levels are; without them they have no heat."""
        self._usual = usual

    def of_prefill(self, reused_tokens: int) -> dict[str, Any]:
        """For the telemetry of reading the prompt: `already_read`, whether all of the documents was in the cache."""
        return {"already_read": 0 < self._documents_end <= reused_tokens, "attention": self._attention}

    def of_step(self, step: DecodeStep) -> dict[str, Any]:
        """For the telemetry of a step, which it takes up.

        `attended_tokens` as the function tells it, `mean_missed_share` over the steps so far, `kv_bytes_read` with the
        pages' summaries, `attention`, the prompt's `mode`, and the `heat` of the document pages in the order of
        `placed_pages`, as `heat_levels` makes it. `drafted_tokens` and `accepted_tokens` are of all steps so far.

        None in step 0, whose token comes from the prefill, and what is not known.
        """
        attended = None
        # Without a trace nothing is known of what Quest read. With "exact" every token is verified against all.
        if step.step > 0 and (step.reads is not None or self._attention not in ("auto", "quest")):
            attended = attended_tokens(step.reads, step.context_tokens, self._page_size)
            self._context_tokens = step.context_tokens
            self._read_all &= attended >= step.context_tokens
            self._bytes.add(step.kv_bytes_read)
            self._share.add(step.kv_bytes_read / step.kv_bytes_dense if step.kv_bytes_dense else None)
            self._missed.add(step.reads.missed_mass if step.reads else None)
        if step.reads is not None:
            self._selected.add(step.reads)
            self._refresh_heat()
        self._attended.add(attended)
        self._drafted += step.drafted
        self._accepted += step.accepted
        return {
            **self.drafts,
            "attention": self._attention,
            "mode": self._mode,
            "attended_tokens": attended,
            "mean_missed_share": self._missed.value,
            "kv_bytes_read": step.kv_bytes_read if step.step > 0 else None,
            "heat": self._heat,
        }

    @property
    def drafts(self) -> dict[str, int]:
        """How many tokens were drafted so far, and how many of them accepted; see `DecodeStep`."""
        return {"drafted_tokens": self._drafted, "accepted_tokens": self._accepted}

    @property
    def read_all(self) -> bool:
        """Whether some steps are known to have read anything, and each of them everything."""
        return self._context_tokens is not None and self._read_all

    @property
    def attended_tokens(self) -> float | None:
        """For the report: the mean over the steps, or all of the context at the end where that was read."""
        return self._context_tokens if self.read_all else self._attended.value

    def _refresh_heat(self) -> None:
        now = time.monotonic()
        if self._usual is None or self._selected.steps < _LEAST_STEPS or now < self._heat_at + _HEAT_EVERY_S:
            return
        self._heat = heat_levels(self._selected.factors(self._usual)) or None
        self._heat_at = now

    def at_end(self, reads: AnswerReads | None) -> dict[str, Any]:
        """For the telemetry of the end: the same as means over all steps, `attended_tokens` as in the report, with the
        `read_share` of the cache's bytes and the `context_tokens` of the last step.

        Args:
            reads: where the answer's tokens attended, which tells more than what was selected; `heat_of` says
                "attention" then, else "selection".
        """
        heat, heat_of = self._heat, "selection"
        if reads is not None:
            scores = reads.scores()
            keys = [(page.document.document_id, page.page_index) for page in self._pages]
            heat, heat_of = heat_levels([scores.get(key) for key in keys]), "attention"
        return {
            **self.drafts,
            "attention": self._attention,
            "mode": self._mode,
            "attended_tokens": self.attended_tokens,
            "context_tokens": self._context_tokens,
            "mean_missed_share": self._missed.value,
            "kv_bytes_read": self._bytes.value,
            "read_share": self._share.value,
            "heat": heat,
            "heat_of": heat_of,
        }


def heat_levels(factors: Sequence[float | None]) -> str:
    """How many times as much as usual each page was looked at, as a byte each, in base64.

    The page in the middle counts as usual: an answer that attends more to the conversation than a neutral text does has
    still looked at some pages more than at others.

    Args:
        factors: 1.0 is usual; None is not known.
    """
    known = [factor for factor in factors if factor is not None]
    middle = median(known) if len(known) >= _LEAST_PAGES else 1.0
    levels = bytes(0 if factor is None else _level(factor / (middle or 1.0)) for factor in factors)
    return base64.b64encode(levels).decode("ascii")


def _level(factor: float) -> int:
    if factor <= 0:
        return 1
    return min(255, max(1, round(_USUAL_LEVEL + _LEVELS_A_DOUBLING * math.log2(factor))))
