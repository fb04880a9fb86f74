"""Choose the pages to read from their scores, without a sort.

The lowest score that still gets in lies between the lowest and the highest. Scores become unsigned integers of the same
order, and this range is cut in three, until a cut is reached by exactly the pages wanted, or until nothing is left to
cut, among equal scores; in three, because one sum counts for two cuts. Scores are loaded once and stay in the registers
of one program a kv head; those of very long contexts do not fit there and are gone over in blocks.

Logits become shares of attention first, in two steps: each block of pages finds its highest logit and the sum of the
exponentials above it (`kernels.gpu.page_scores` does so as it scores), and the selection makes one softmax of these.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import require, require_contiguous
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.reference import check_selection

# Pages of a block that sums up its own logits.
SHARE_PAGES = 128
# 32 scores for each of 1024 threads.
MAX_RESIDENT_PAGES = 32768
BLOCK_PAGES = 8192
# Scores of a thread: with fewer a round waits longer for its threads, with more it counts longer.
SCORES_PER_THREAD = 16


@triton.jit
def sum_up_logits(logits, visible):
    """The highest of a block's logits and the sum of exponentials above it, for each row of [rows, pages]."""
    highest = tl.max(tl.where(visible, logits, float("-inf")), 1)
    # A block beyond the context has no logit to be above.
    above = logits - tl.where(highest == float("-inf"), 0.0, highest)[:, None]
    return highest, tl.sum(tl.where(visible, tl.exp(above), 0.0), 1)


@triton.jit
def _sum_up_kernel(
    logit_ptr, context_ptr, highest_ptr, total_ptr, logical_pages,
    PAGE_SIZE: tl.constexpr, SHARE_PAGES: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program sums up SHARE_PAGES logits of one row."""
    wait_for_previous_kernel(DEPENDENT)
    row, block = tl.program_id(0), tl.program_id(1)
    pages = block * SHARE_PAGES + tl.arange(0, SHARE_PAGES)[None, :]
    visible = (pages < logical_pages) & (pages * PAGE_SIZE < tl.load(context_ptr))
    logits = tl.load(logit_ptr + row.to(tl.int64) * logical_pages + pages, visible, float("-inf"))
    highest, total = sum_up_logits(logits, visible)
    entry = row * tl.num_programs(1) + block + tl.arange(0, 1)
    tl.store(highest_ptr + entry, highest)
    tl.store(total_ptr + entry, total)


@triton.jit
def _load_worth(
    score_ptr, highest_ptr, total_ptr, pages, total_pages, loaded_pages, logical_pages, blocks,
    ROWS: tl.constexpr, SHARES: tl.constexpr, BLOCKS: tl.constexpr, SHARE_PAGES: tl.constexpr,
):  # fmt: skip
    """What pages are ranked by: their one score, or the mean of their rows' shares; 0 beyond the context.

    Scores are loaded past the L1 cache, which need not know what other multiprocessors wrote.
    """
    if SHARES:
        block = tl.arange(0, BLOCKS)
        used = block < tl.cdiv(total_pages, SHARE_PAGES)
        worth = pages * 0.0
        for row in tl.static_range(ROWS):
            highs = tl.load(highest_ptr + row * blocks + block, used, float("-inf"), cache_modifier=".cg")
            totals = tl.load(total_ptr + row * blocks + block, used, 0.0, cache_modifier=".cg")
            highest = tl.max(highs, 0)
            factor = 1.0 / (tl.sum(totals * tl.exp(highs - highest), 0) * ROWS)
            logits = tl.load(
                score_ptr + row * logical_pages + pages, pages < loaded_pages, float("-inf"), cache_modifier=".cg"
            )
            worth += tl.where(pages < total_pages, tl.exp(logits - highest) * factor, 0.0)
        return worth
    else:
        return tl.load(score_ptr + pages, pages < loaded_pages, 0.0, cache_modifier=".cg")


@triton.jit
def _ordered_keys(worth, pages, sink_pages, recent_from):
    """uint32 keys in the order of the scores, above 0; 0 for pages that are read anyway or lie beyond the context."""
    # Adding 0.0 turns -0.0 into 0.0: equal scores must have equal bits.
    bits = (worth + 0.0).to(tl.uint32, bitcast=True)
    sign, all_bits = tl.full([1], 0x80000000, tl.uint32), tl.full([1], 0xFFFFFFFF, tl.uint32)
    # Negative floats order backwards by their bits, positive ones forwards.
    keys = tl.where((bits & sign) != 0, bits ^ all_bits, bits | sign)
    return tl.where((pages >= sink_pages) & (pages < recent_from), keys, tl.full([1], 0, tl.uint32))


@triton.jit
def _worth_of(keys):
    """The shares, which are positive, that `_ordered_keys` made keys of."""
    return (keys & tl.full([1], 0x7FFFFFFF, tl.uint32)).to(tl.float32, bitcast=True)


@triton.jit
def _count_reaching(keys, low, high):
    """How many of fewer than 65536 keys reach each of two cuts."""
    both = tl.sum((keys >= low).to(tl.int32) + ((keys >= high).to(tl.int32) << 16), 0)
    return both & 0xFFFF, (both >> 16) & 0xFFFF


@triton.jit
def select_for_head(
    head, score_ptr, highest_ptr, total_ptr, page_id_ptr, page_count_ptr, missed_ptr, worth_ptr,
    total_pages, logical_pages, blocks, budget_pages, sink_pages, recent_pages,
    ROWS: tl.constexpr, SHARES: tl.constexpr, RESIDENT: tl.constexpr,
    BLOCK_PAGES: tl.constexpr, BLOCKS: tl.constexpr, SHARE_PAGES: tl.constexpr, BLOCK_BUDGET: tl.constexpr,
):  # fmt: skip
    """Select the pages of one kv head, with all threads of a program."""
    score_ptr += tl.cast(head, tl.int64) * ROWS * logical_pages
    worth_ptr += tl.cast(head, tl.int64) * logical_pages
    page_id_ptr += head * budget_pages
    highest_ptr += head * ROWS * blocks
    total_ptr += head * ROWS * blocks
    # Whole runs of 16 bytes are loaded; what lies in them beyond the context counts as nothing.
    loaded_pages = tl.minimum(tl.cdiv(total_pages, 4) * 4, logical_pages)
    count = tl.minimum(budget_pages, total_pages)
    recent_from = tl.maximum(total_pages - 1 - recent_pages, 0)
    ranked_pages = tl.maximum(recent_from - sink_pages, 0)
    # Pages to choose beside those that are read anyway.
    wanted = count - (total_pages - ranked_pages)
    block = tl.arange(0, BLOCK_PAGES)
    no_key = tl.full([1], 0xFFFFFFFF, tl.uint32)
    if RESIDENT:
        worth = _load_worth(
            score_ptr, highest_ptr, total_ptr, block, total_pages, loaded_pages, logical_pages, blocks,
            ROWS, SHARES, BLOCKS, SHARE_PAGES,
        )  # fmt: skip
        keys = _ordered_keys(worth, block, sink_pages, recent_from)
        # Keys alone need registers from here on: they hold the worth of all pages but those that are read anyway.
        always_read = tl.sum(tl.where(keys == 0, worth, 0.0), 0)
        highest_key = tl.max(keys, 0)
        lowest_key = tl.min(tl.where(keys > 0, keys, no_key), 0)
    else:
        highest_key = tl.full([], 0, tl.uint32)
        lowest_key = tl.full([], 0xFFFFFFFF, tl.uint32)
        always_read = 0.0
        for first in range(0, total_pages, BLOCK_PAGES):
            pages = first + block
            some = _load_worth(
                score_ptr, highest_ptr, total_ptr, pages, total_pages, loaded_pages, logical_pages, blocks,
                ROWS, SHARES, BLOCKS, SHARE_PAGES,
            )  # fmt: skip
            some_keys = _ordered_keys(some, pages, sink_pages, recent_from)
            always_read += tl.sum(tl.where(some_keys == 0, some, 0.0), 0)
            highest_key = tl.maximum(highest_key, tl.max(some_keys, 0))
            lowest_key = tl.minimum(lowest_key, tl.min(tl.where(some_keys > 0, some_keys, no_key), 0))
            if SHARES:
                tl.store(worth_ptr + pages, some, pages < loaded_pages)
        tl.debug_barrier()

    # At least `wanted` keys reach the threshold, and fewer reach what lies `width` above it.
    threshold, width = lowest_key, highest_key - lowest_key + 1
    reaching = ranked_pages
    while (width > 1) & (reaching != wanted):
        third = width // 3 + 1
        low, high = threshold + third, threshold + tl.minimum(2 * third, width - 1)
        if RESIDENT:
            reach_low, reach_high = _count_reaching(keys, low, high)
        else:
            reach_low, reach_high = 0, 0
            for first in range(0, total_pages, BLOCK_PAGES):
                pages = first + block
                others = tl.load(worth_ptr + pages, pages < loaded_pages, 0.0)
                others = _ordered_keys(others, pages, sink_pages, recent_from)
                more_low, more_high = _count_reaching(others, low, high)
                reach_low += more_low
                reach_high += more_high
        if reach_high >= wanted:
            width -= high - threshold
            threshold, reaching = high, reach_high
        elif reach_low >= wanted:
            width = high - low
            threshold, reaching = low, reach_low
        else:
            width = third

    # More reach the threshold than are wanted only if equal scores do: of these the earlier pages get in.
    surplus = reaching - wanted
    ties_left = 0
    # One block holds everything that is resident; its keys are at hand.
    listed_pages = BLOCK_PAGES if RESIDENT else total_pages
    if surplus > 0:
        tied_pages = 0
        for first in range(0, listed_pages, BLOCK_PAGES):
            pages = first + block
            if not RESIDENT:
                worth = tl.load(worth_ptr + pages, pages < loaded_pages, 0.0)
                keys = _ordered_keys(worth, pages, sink_pages, recent_from)
            tied_pages += tl.sum(((keys == threshold) & (keys > 0)).to(tl.int32), 0)
        ties_left = tied_pages - surplus
    taken = 0
    read = always_read
    for first in range(0, listed_pages, BLOCK_PAGES):
        pages = first + block
        if not RESIDENT:
            worth = tl.load(worth_ptr + pages, pages < loaded_pages, 0.0)
            keys = _ordered_keys(worth, pages, sink_pages, recent_from)
        chosen = (keys >= threshold) & (keys > 0)
        if surplus > 0:
            tied = (keys == threshold) & (keys > 0)
            late = tied & (tl.cumsum(tied.to(tl.int32), 0) > ties_left)
            ties_left -= tl.sum(tied.to(tl.int32), 0)
            chosen = chosen & (late == 0)
        chosen = chosen & (wanted > 0)
        if SHARES:
            read += tl.sum(tl.where(chosen, _worth_of(keys), 0.0), 0)
        chosen = chosen | (((pages < sink_pages) | (pages >= recent_from)) & (pages < total_pages))
        places = taken + tl.cumsum(chosen.to(tl.int32), 0) - 1
        tl.store(page_id_ptr + places, pages, chosen)
        if not RESIDENT:
            taken += tl.sum(chosen.to(tl.int32), 0)
    places = tl.arange(0, BLOCK_BUDGET)
    tl.store(page_id_ptr + places, -1, (places >= count) & (places < budget_pages))
    tl.store(page_count_ptr + head, count)
    if SHARES:
        tl.store(missed_ptr + head, 1.0 - read)


@triton.jit
def _select_pages_kernel(
    score_ptr, highest_ptr, total_ptr, context_ptr, page_id_ptr, page_count_ptr, missed_ptr, worth_ptr,
    logical_pages, blocks, budget_pages, sink_pages, recent_pages,
    ROWS: tl.constexpr, SHARES: tl.constexpr, RESIDENT: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_PAGES: tl.constexpr, BLOCKS: tl.constexpr, SHARE_PAGES: tl.constexpr, BLOCK_BUDGET: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program selects for one kv head."""
    wait_for_previous_kernel(DEPENDENT)
    total_pages = tl.minimum(tl.cdiv(tl.load(context_ptr), PAGE_SIZE), logical_pages)
    select_for_head(
        tl.program_id(0), score_ptr, highest_ptr, total_ptr, page_id_ptr, page_count_ptr, missed_ptr, worth_ptr,
        total_pages, logical_pages, blocks, budget_pages, sink_pages, recent_pages,
        ROWS, SHARES, RESIDENT, BLOCK_PAGES, BLOCKS, SHARE_PAGES, BLOCK_BUDGET,
    )  # fmt: skip


def select_pages(
    scores: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    logits: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, several rows are no logits, or a tensor is not on
            a GPU or of a matching shape and dtype.
    """
    require(scores, "scores", (None, None, None), (torch.float32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(scores, "scores")
    check_selection(scores, budget_pages, sink_pages, recent_pages, logits)
    if not logits:
        return select_from(scores, None, None, context_tokens, page_size, budget_pages, sink_pages, recent_pages)
    kv_heads, rows, logical_pages = scores.shape
    blocks = triton.cdiv(logical_pages, SHARE_PAGES)
    highest, total = torch.empty((2, kv_heads, rows, blocks), dtype=torch.float32, device=scores.device)
    dependent = launches_dependently(scores.device)
    _sum_up_kernel[(kv_heads * rows, blocks)](
        scores,
        context_tokens,
        highest,
        total,
        logical_pages,
        PAGE_SIZE=page_size,
        SHARE_PAGES=SHARE_PAGES,
        DEPENDENT=dependent,
        num_warps=1,
        launch_pdl=dependent,
    )
    return select_from(scores, highest, total, context_tokens, page_size, budget_pages, sink_pages, recent_pages)


def select_from(
    scores: torch.Tensor,
    highest: torch.Tensor | None,
    total: torch.Tensor | None,
    context_tokens: torch.Tensor,
    page_size: int,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Select by one score a page, or by the shares of logits.

    Args:
        scores: float32 [kv_heads, rows, logical_pages]; logits if `highest` is given.
        highest, total: float32 [kv_heads, rows, blocks of SHARE_PAGES], as `sum_up_logits` gives them.
    """
    kv_heads, rows, logical_pages = scores.shape
    shares, device = highest is not None, scores.device
    page_ids = torch.empty((kv_heads, budget_pages), dtype=torch.int32, device=device)
    page_counts = torch.empty(kv_heads, dtype=torch.int32, device=device)
    missed_share = torch.empty(kv_heads, dtype=torch.float32, device=device) if shares else None
    resident = logical_pages <= MAX_RESIDENT_PAGES
    block_pages = max(SHARE_PAGES, triton.next_power_of_2(logical_pages)) if resident else BLOCK_PAGES
    blocks = triton.cdiv(logical_pages, SHARE_PAGES)
    # The shares of more pages than registers hold.
    spilled = shares and not resident
    worth = torch.empty((kv_heads, logical_pages), device=device) if spilled else scores
    dependent = launches_dependently(device)
    _select_pages_kernel[(kv_heads,)](
        scores,
        highest if shares else scores,
        total if shares else scores,
        context_tokens,
        page_ids,
        page_counts,
        missed_share if shares else scores,
        worth,
        logical_pages,
        blocks,
        budget_pages,
        sink_pages,
        recent_pages,
        ROWS=rows,
        SHARES=shares,
        RESIDENT=resident,
        PAGE_SIZE=page_size,
        BLOCK_PAGES=block_pages,
        BLOCKS=triton.next_power_of_2(blocks),
        SHARE_PAGES=SHARE_PAGES,
        BLOCK_BUDGET=triton.next_power_of_2(budget_pages),
        DEPENDENT=dependent,
        num_warps=min(max(block_pages // (32 * SCORES_PER_THREAD), 4), 32),
        launch_pdl=dependent,
    )
    return page_ids, page_counts, missed_share
