"""Choose the pages to read from their scores, without a sort.

The lowest score that still gets in is found two bits at a time: scores become unsigned integers of the same order, and
for each of three candidates of the next two bits it is counted how many scores reach it (a radix select), in one sum.
It ends as soon as a candidate is reached by exactly the pages wanted. Up to MAX_RESIDENT_PAGES pages the scores are
loaded once and stay in registers; more are gone over in blocks, logits as the shares that were made of them once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import require, require_contiguous
from kernels.reference import check_selection

# 32 scores for each of 256 threads. With 32768 and 1024 threads the counts spilled, and a selection took 165 us.
MAX_RESIDENT_PAGES = 8192
PAGES_PER_WARP = 1024
BLOCK_PAGES, BLOCK_WARPS = 8192, 16


@triton.jit
def _highest_and_total(score_ptr, total_pages, BLOCK_PAGES: tl.constexpr):
    """A row's greatest logit, and the sum of its exponentials above it."""
    block = tl.arange(0, BLOCK_PAGES)
    highest = tl.full([BLOCK_PAGES], float("-inf"), tl.float32)
    for first in range(0, total_pages, BLOCK_PAGES):
        pages = first + block
        highest = tl.maximum(highest, tl.load(score_ptr + pages, pages < total_pages, float("-inf")))
    row_highest = tl.max(highest, 0)
    total = tl.zeros([BLOCK_PAGES], tl.float32)
    for first in range(0, total_pages, BLOCK_PAGES):
        pages = first + block
        total += tl.exp(tl.load(score_ptr + pages, pages < total_pages, float("-inf")) - row_highest)
    return row_highest, tl.sum(total, 0)


@triton.jit
def _worth(
    score_ptr, highest_ptr, total_ptr, pages, total_pages, logical_pages, ROWS: tl.constexpr, LOGITS: tl.constexpr
):
    """What pages are ranked by: their one score, or the sum of the rows' shares; 0 beyond the context."""
    if LOGITS:
        worth = pages * 0.0
        for row in tl.static_range(ROWS):
            logits = tl.load(score_ptr + row * logical_pages + pages, pages < total_pages, float("-inf"))
            worth += tl.exp(logits - tl.load(highest_ptr + row)) / tl.load(total_ptr + row)
        return worth
    return tl.load(score_ptr + pages, pages < total_pages, 0.0)


@triton.jit
def _ordered_keys(worth, pages, total_pages, sink_pages, recent_from):
    """uint32 keys in the order of the scores, above 0; 0 for pages that are read anyway or lie beyond the context."""
    # Adding 0.0 turns -0.0 into 0.0: equal scores must have equal bits.
    bits = (worth + 0.0).to(tl.uint32, bitcast=True)
    sign, highest = tl.full([1], 0x80000000, tl.uint32), tl.full([1], 0xFFFFFFFF, tl.uint32)
    # Negative floats order backwards by their bits, positive ones forwards.
    keys = tl.where((bits & sign) != 0, bits ^ highest, bits | sign)
    ranked = (pages >= sink_pages) & (pages < recent_from)
    return tl.where(ranked & (pages < total_pages), keys, tl.full([1], 0, tl.uint32))


@triton.jit
def _count_reaching(keys, low, middle, high):
    """How many keys reach each of three candidates, in the three 21-bit fields of an int64."""
    ones = (keys >= low).to(tl.int64) + ((keys >= middle).to(tl.int64) << 21) + ((keys >= high).to(tl.int64) << 42)
    return tl.sum(ones, 0)


@triton.jit
def _select_pages_kernel(
    score_ptr, context_ptr, page_id_ptr, page_count_ptr, missed_ptr, highest_ptr, total_ptr, worth_ptr,
    logical_pages, budget_pages, sink_pages, recent_pages,
    ROWS: tl.constexpr, LOGITS: tl.constexpr, RESIDENT: tl.constexpr,
    PAGE_SIZE: tl.constexpr, BLOCK_PAGES: tl.constexpr, BLOCK_BUDGET: tl.constexpr,
):  # fmt: skip
    """One program selects for one kv head."""
    head = tl.program_id(0)
    score_ptr += head.to(tl.int64) * ROWS * logical_pages
    page_id_ptr += head * budget_pages
    highest_ptr += head * ROWS
    total_ptr += head * ROWS
    total_pages = tl.minimum(tl.cdiv(tl.load(context_ptr), PAGE_SIZE), logical_pages)
    count = tl.minimum(budget_pages, total_pages)
    recent_from = tl.maximum(total_pages - 1 - recent_pages, 0)
    ranked_pages = tl.maximum(recent_from - sink_pages, 0)
    # Pages to choose beside those that are read anyway.
    wanted = count - (total_pages - ranked_pages)
    block = tl.arange(0, BLOCK_PAGES)
    if LOGITS:
        for row in tl.static_range(ROWS):
            row_highest, row_total = _highest_and_total(score_ptr + row * logical_pages, total_pages, BLOCK_PAGES)
            tl.store(highest_ptr + row, row_highest)
            tl.store(total_ptr + row, row_total)
        tl.debug_barrier()
    if RESIDENT:
        worth = _worth(score_ptr, highest_ptr, total_ptr, block, total_pages, logical_pages, ROWS, LOGITS)
        keys = _ordered_keys(worth, block, total_pages, sink_pages, recent_from)
    elif LOGITS:
        worth_ptr += head.to(tl.int64) * logical_pages
        for first in range(0, total_pages, BLOCK_PAGES):
            pages = first + block
            shares = _worth(score_ptr, highest_ptr, total_ptr, pages, total_pages, logical_pages, ROWS, LOGITS)
            tl.store(worth_ptr + pages, shares, pages < total_pages)
        tl.debug_barrier()
    else:
        worth_ptr = score_ptr

    threshold = tl.full([1], 0, tl.uint32)
    reaching = ranked_pages
    shift = 30
    while (shift >= 0) & (reaching != wanted):
        low = threshold | (tl.full([1], 1, tl.uint32) << shift)
        middle = threshold | (tl.full([1], 2, tl.uint32) << shift)
        high = threshold | (tl.full([1], 3, tl.uint32) << shift)
        if RESIDENT:
            counts = _count_reaching(keys, low, middle, high)
        else:
            counts = tl.full([], 0, tl.int64)
            for first in range(0, total_pages, BLOCK_PAGES):
                pages = first + block
                others = tl.load(worth_ptr + pages, pages < total_pages, 0.0)
                others = _ordered_keys(others, pages, total_pages, sink_pages, recent_from)
                counts += _count_reaching(others, low, middle, high)
        reach_low = (counts & 0x1FFFFF).to(tl.int32)
        reach_middle = ((counts >> 21) & 0x1FFFFF).to(tl.int32)
        reach_high = (counts >> 42).to(tl.int32)
        threshold = tl.where(reach_low >= wanted, low, threshold)
        reaching = tl.where(reach_low >= wanted, reach_low, reaching)
        threshold = tl.where(reach_middle >= wanted, middle, threshold)
        reaching = tl.where(reach_middle >= wanted, reach_middle, reaching)
        threshold = tl.where(reach_high >= wanted, high, threshold)
        reaching = tl.where(reach_high >= wanted, reach_high, reaching)
        shift -= 2

    # More reach the threshold than are wanted only if equal scores do: of these the earlier pages get in.
    surplus = reaching - wanted
    ties_left = 0
    if surplus > 0:
        tied_pages = 0
        for first in range(0, total_pages, BLOCK_PAGES):
            pages = first + block
            if not RESIDENT:
                worth = tl.load(worth_ptr + pages, pages < total_pages, 0.0)
                keys = _ordered_keys(worth, pages, total_pages, sink_pages, recent_from)
            tied_pages += tl.sum(((keys == threshold) & (keys > 0)).to(tl.int32), 0)
        ties_left = tied_pages - surplus
    taken = 0
    read = 0.0
    for first in range(0, total_pages, BLOCK_PAGES):
        pages = first + block
        if not RESIDENT:
            worth = tl.load(worth_ptr + pages, pages < total_pages, 0.0)
            keys = _ordered_keys(worth, pages, total_pages, sink_pages, recent_from)
        chosen = (keys >= threshold) & (keys > 0)
        if surplus > 0:
            tied = (keys == threshold) & (keys > 0)
            late = tied & (tl.cumsum(tied.to(tl.int32), 0) > ties_left)
            ties_left -= tl.sum(tied.to(tl.int32), 0)
            chosen = chosen & (late == 0)
        chosen = chosen & (wanted > 0)
        chosen = chosen | (((pages < sink_pages) | (pages >= recent_from)) & (pages < total_pages))
        places = taken + tl.cumsum(chosen.to(tl.int32), 0) - 1
        tl.store(page_id_ptr + places, pages, chosen)
        taken += tl.sum(chosen.to(tl.int32), 0)
        if LOGITS:
            read += tl.sum(tl.where(chosen, worth, 0.0), 0)
    places = tl.arange(0, BLOCK_BUDGET)
    tl.store(page_id_ptr + places, -1, (places >= count) & (places < budget_pages))
    tl.store(page_count_ptr + head, count)
    if LOGITS:
        tl.store(missed_ptr + head, 1.0 - read / ROWS)


def select_pages(
    scores: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    logits: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_select_pages`, for up to 2 million pages.

    Raises:
        ValueError: if the budget is smaller than what is always read, several rows are no logits, or a tensor is not on
            a GPU or of a matching shape and dtype.
    """
    require(scores, "scores", (None, None, None), (torch.float32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(scores, "scores")
    check_selection(scores, budget_pages, sink_pages, recent_pages, logits)
    kv_heads, rows, logical_pages = scores.shape
    page_ids = torch.empty((kv_heads, budget_pages), dtype=torch.int32, device=scores.device)
    page_counts = torch.empty(kv_heads, dtype=torch.int32, device=scores.device)
    missed_share, highest, total = torch.empty((3, kv_heads * rows), dtype=torch.float32, device=scores.device)
    resident = logical_pages <= MAX_RESIDENT_PAGES
    block_pages = max(32, triton.next_power_of_2(logical_pages)) if resident else BLOCK_PAGES
    # The shares of more pages than registers hold; otherwise nothing is written there.
    worth = torch.empty((kv_heads, logical_pages), device=scores.device) if logits and not resident else scores
    _select_pages_kernel[(kv_heads,)](
        scores,
        context_tokens,
        page_ids,
        page_counts,
        missed_share,
        highest,
        total,
        worth,
        logical_pages,
        budget_pages,
        sink_pages,
        recent_pages,
        ROWS=rows,
        LOGITS=logits,
        RESIDENT=resident,
        PAGE_SIZE=page_size,
        BLOCK_PAGES=block_pages,
        BLOCK_BUDGET=triton.next_power_of_2(budget_pages),
        num_warps=max(block_pages // PAGES_PER_WARP, 4) if resident else BLOCK_WARPS,
    )
    return page_ids, page_counts, missed_share[:kv_heads] if logits else None
