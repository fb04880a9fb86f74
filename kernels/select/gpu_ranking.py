"""What pages are ranked by when some are to be selected, and where in the list the chosen ones are written.

Logits become softmax mass in two steps: each block of pages finds its highest logit and the sum of the exponentials
relative to it (`kernels.score.gpu` does so as it scores), and the selection makes one softmax of these. Knows nothing
of how the lowest score that gets in is found.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

# Pages of a block that sums up its own logits.
LOGIT_BLOCK_PAGES = 128
# Of softmax mass, in which a selection among many pages counts.
BUCKETS = 256
# Pages in a row of the grid in which a selection arranges them: as many as a thread loads at once.
ROW_PAGES = tl.constexpr(4)


class ScoredPages(NamedTuple):
    """Scores of pages and, if they are logits, the sums of their blocks.

    Args:
        scores: float32 [kv_heads, rows, row_length].
        highest, total: float32 [kv_heads, rows, blocks], as `sum_up_logits` gives them; None for scores that are no
            logits.
        counts: int32 [kv_heads, BUCKETS], zeros for `kernels.select.gpu_runs` to count in; None if it is not to.
    """

    scores: torch.Tensor
    highest: torch.Tensor | None
    total: torch.Tensor | None
    counts: torch.Tensor | None = None

    @property
    def pointers(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The first three of `Scores`; without sums, the scores are passed instead and not read."""
        return self[:3] if self.highest is not None else (self.scores, self.scores, self.scores)

    @property
    def blocks(self) -> int:
        """How many blocks have sums; 1 if none has."""
        return 1 if self.highest is None else self.highest.shape[2]


class Scores(NamedTuple):
    """Where `ScoredPages` are, and how many scores and blocks a row has."""

    score_ptr: tl.tensor
    highest_ptr: tl.tensor
    total_ptr: tl.tensor
    row_length: tl.tensor
    blocks: tl.tensor


class RankingShape(NamedTuple):
    """Constants of a kernel that ranks pages.

    Args:
        rows: of scores of each kv head.
        logits: whether these are logits, and pages ranked by their softmax mass.
        page_size: tokens in a page.
        block_pages: pages that a program has room for.
        blocks: blocks of logits that it has room for.
    """

    rows: int
    logits: bool
    page_size: int
    block_pages: int
    blocks: int


def plan_ranking(scored: ScoredPages, page_size: int) -> RankingShape:
    """The constants of a program that ranks all pages."""
    _, rows, logical_pages = scored.scores.shape
    block_pages = max(LOGIT_BLOCK_PAGES, triton.next_power_of_2(logical_pages))
    blocks = triton.next_power_of_2(scored.blocks)
    return RankingShape(rows, scored.highest is not None, page_size, block_pages, blocks)


class SelectionPlan(NamedTuple):
    """What is known of a selection before there is a score.

    Args:
        total_pages: of the sequence.
        selected_pages: that will be read.
        sink_pages: the first of them, which are always read.
        recent_from: the first of those that are always read at the end.
        ranked_pages: the others, which compete.
        wanted: of these.
    """

    total_pages: tl.tensor
    selected_pages: tl.tensor
    sink_pages: tl.tensor
    recent_from: tl.tensor
    ranked_pages: tl.tensor
    wanted: tl.tensor


@triton.jit
def sum_up_logits(logits, visible):
    """The highest of a block's logits and the sum of the exponentials relative to it, for each row of [rows, pages]."""
    highest = tl.max(tl.where(visible, logits, float("-inf")), 1)
    # A block beyond the context has no highest logit.
    above = logits - tl.where(highest == float("-inf"), 0.0, highest)[:, None]
    return highest, tl.sum(tl.where(visible, tl.exp(above), 0.0), 1)


@triton.jit
def load_importance(scores, head, indices, visible, SHAPE: tl.constexpr):
    """What pages of a head are ranked by: their one score, or their rows' mean softmax mass, 0 where not `visible`.

    Args:
        scores: as `Scores`.
        indices: the pages' indices in a row of scores.
        visible: which pages are in the sequence.
        SHAPE: a `RankingShape`.
    """
    ROWS: tl.constexpr = SHAPE.rows
    # Scores beyond the sequence are loaded and returned too, so that this need not wait for its length.
    score_ptr = scores.score_ptr + head.to(tl.int64) * ROWS * scores.row_length
    if SHAPE.logits:
        block = tl.arange(0, SHAPE.blocks)
        used = block < scores.blocks
        importance = indices * 0.0
        for row in tl.static_range(ROWS):
            index = (head * ROWS + row) * scores.blocks + block
            highs = tl.load(scores.highest_ptr + index, used, float("-inf"))
            totals = tl.load(scores.total_ptr + index, used, 0.0)
            highest = tl.max(highs, 0)
            factor = 1.0 / (tl.sum(totals * tl.exp(highs - highest), 0) * ROWS)
            logits = tl.load(score_ptr + row * scores.row_length + indices, indices < scores.row_length, float("-inf"))
            importance += tl.where(visible, tl.exp(logits - highest) * factor, 0.0)
        return importance
    else:
        return tl.load(score_ptr + indices, indices < scores.row_length, 0.0)


@triton.jit
def order_keys(scores):
    """uint32 keys, above 0, in the order of the scores."""
    # Adding 0.0 turns -0.0 into 0.0: equal scores must have equal bits.
    bits = (scores + 0.0).to(tl.uint32, bitcast=True)
    sign, all_bits = tl.full([], 0x80000000, tl.uint32), tl.full([], 0xFFFFFFFF, tl.uint32)
    # Negative floats order backwards by their bits, positive ones forwards.
    return tl.where((bits & sign) != 0, bits ^ all_bits, bits | sign)


@triton.jit
def scores_of(keys):
    """The scores of keys made by `order_keys`."""
    sign, all_bits = tl.full([], 0x80000000, tl.uint32), tl.full([], 0xFFFFFFFF, tl.uint32)
    return tl.where((keys & sign) != 0, keys ^ sign, keys ^ all_bits).to(tl.float32, bitcast=True)


@triton.jit
def plan_selection(length_ptr, logical_pages, budget, PAGE_SIZE: tl.constexpr):
    """The `SelectionPlan` for a `PageBudget` and a table of so many pages."""
    total_pages = tl.minimum(tl.cdiv(tl.load(length_ptr), PAGE_SIZE), logical_pages)
    selected_pages = tl.minimum(budget.pages, total_pages)
    recent_from = tl.maximum(total_pages - 1 - budget.recent_pages, 0)
    ranked_pages = tl.maximum(recent_from - budget.sink_pages, 0)
    wanted = selected_pages - (total_pages - ranked_pages)
    return SelectionPlan(total_pages, selected_pages, budget.sink_pages, recent_from, ranked_pages, wanted)


@triton.jit
def page_grid(PAGES: tl.constexpr):
    """The indices of PAGES pages in rows, [PAGES / ROW_PAGES, ROW_PAGES], as `running_count` takes them."""
    return tl.arange(0, PAGES // ROW_PAGES)[:, None] * ROW_PAGES + tl.arange(0, ROW_PAGES)[None, :]


@triton.jit
def running_count(flags):
    """How many of the flags are set up to each, int32, in the order of the rows.

    Counting along short rows, and then over the rows, measured faster than one long scan (`docs/kernels.md`).
    """
    flags = flags.to(tl.int32)
    in_row = tl.sum(flags, 1)
    return (tl.cumsum(in_row, 0) - in_row)[:, None] + tl.cumsum(flags, 1)


@triton.jit
def choose(ranks, threshold, ties, PAGES: tl.constexpr):
    """Which of PAGES ranks, as `page_grid` arranges them, are above the threshold, or among the first `ties` at it."""
    chosen = ranks >= threshold
    # Usually all at the threshold get in.
    if ties < PAGES:
        tied = ranks == threshold
        late = tied & (running_count(tied) > ties)
        chosen = chosen & (late == 0)
    return chosen


@triton.jit
def index_chosen(ranks, pages, threshold, ties, plan, PAGES: tl.constexpr):
    """The indices of pages in the list of those that are read: pages that are chosen, and those always read.

    Args:
        ranks: of the pages that compete; something lower than any of these for the others.
        ranks, pages: as `page_grid` arranges PAGES of them.
        threshold, ties: as `choose` takes them.
        plan: as `plan_selection` returns it.

    Returns:
        int32 indices, in the order of the pages, -1 for those not read; and which pages are chosen by their ranks.
    """
    chosen = choose(ranks, threshold, ties, PAGES) & (plan.wanted > 0)
    always = ((pages < plan.sink_pages) | (pages >= plan.recent_from)) & (pages < plan.total_pages)
    list_indices = running_count(chosen | always) - 1
    return tl.where((chosen | always) & (list_indices < plan.selected_pages), list_indices, -1), chosen


@triton.jit
def fill_up_list(page_id_ptr, first, end, BLOCK_BUDGET: tl.constexpr):
    """Write -1 to a list of up to BLOCK_BUDGET pages, from index `first` up to `end`."""
    list_indices = tl.arange(0, BLOCK_BUDGET)
    tl.store(page_id_ptr + list_indices, -1, (list_indices >= first) & (list_indices < end))
