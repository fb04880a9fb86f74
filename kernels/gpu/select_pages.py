"""Choose the pages to read from their scores, without a sort.

Scores become unsigned integers of the same order; wanted is the lowest that still gets in. Few pages stay in the
registers of one program a kv head: the range from the lowest to the highest is cut in three, until a cut is reached by
exactly the pages wanted, or until nothing is left to cut, among equal scores; in three, because one sum counts for two
cuts. Among many pages one multiprocessor would count for long. There several share them, and find the score in three
launches, eleven bits at a time, by counting how many scores have each value of these bits (a radix select).

Logits become shares of attention first, in two steps: each block of pages finds its highest logit and the sum of the
exponentials above it (`kernels.gpu.page_scores` does so as it scores), and the selection makes one softmax of these.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import require, require_contiguous
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.reference import check_selection

# Pages of a block that sums up its own logits.
SHARE_PAGES = 128
# Up to here one program selects.
FEW_PAGES = 8192
# Scores of a thread: with fewer a round waits longer for its threads, with more it counts longer.
SCORES_PER_THREAD = 16
# Above, each program has this many pages.
PART_PAGES, PART_WARPS = 2048, 8
# The bits of a key that each launch looks at, from the highest: (how far they are shifted, how many).
DIGITS = ((21, 11), (10, 11), (0, 10))
BINS = 1 << 11
# What a kv head's programs tell each other beside how many keys have each digit: programs done, bits found, pages still
# wanted among those that share these bits.
STATES = tl.constexpr(3)


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
    score_ptr, highest_ptr, total_ptr, head, pages, total_pages, logical_pages, blocks,
    ROWS: tl.constexpr, SHARES: tl.constexpr, BLOCKS: tl.constexpr, SHARE_PAGES: tl.constexpr,
):  # fmt: skip
    """What pages of a head are ranked by: their one score, or the mean of their rows' shares, 0 beyond the context."""
    # Whole runs of 16 bytes are loaded.
    loaded_pages = tl.minimum(tl.cdiv(total_pages, 4) * 4, logical_pages)
    score_ptr += head.to(tl.int64) * ROWS * logical_pages
    if SHARES:
        block = tl.arange(0, BLOCKS)
        used = block < tl.cdiv(total_pages, SHARE_PAGES)
        worth = pages * 0.0
        for row in tl.static_range(ROWS):
            entry = (head * ROWS + row) * blocks + block
            highs = tl.load(highest_ptr + entry, used, float("-inf"))
            totals = tl.load(total_ptr + entry, used, 0.0)
            highest = tl.max(highs, 0)
            factor = 1.0 / (tl.sum(totals * tl.exp(highs - highest), 0) * ROWS)
            logits = tl.load(score_ptr + row * logical_pages + pages, pages < loaded_pages, float("-inf"))
            worth += tl.where(pages < total_pages, tl.exp(logits - highest) * factor, 0.0)
        return worth
    else:
        return tl.load(score_ptr + pages, pages < loaded_pages, 0.0)


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
def _plan(context_ptr, logical_pages, budget_pages, sink_pages, recent_pages, PAGE_SIZE: tl.constexpr):
    """Pages of the context, pages to read, the first always read at the end, pages ranked, and wanted of these."""
    total_pages = tl.minimum(tl.cdiv(tl.load(context_ptr), PAGE_SIZE), logical_pages)
    count = tl.minimum(budget_pages, total_pages)
    recent_from = tl.maximum(total_pages - 1 - recent_pages, 0)
    ranked_pages = tl.maximum(recent_from - sink_pages, 0)
    return total_pages, count, recent_from, ranked_pages, count - (total_pages - ranked_pages)


@triton.jit
def _store_chosen(
    keys, pages, threshold, ties, taken, wanted, total_pages, count, sink_pages, recent_from, page_id_ptr
):
    """Store, in order from `taken` on, the pages above the threshold, the first `ties` at it, and those always read.

    Returns:
        which pages are chosen by their keys.
    """
    chosen = (keys >= threshold) & (keys > 0) & (wanted > 0)
    # Mostly all that are tied get in.
    if ties < keys.shape[0]:
        tied = keys == threshold
        late = tied & (tl.cumsum(tied.to(tl.int32), 0) > ties)
        chosen = chosen & (late == 0)
    always = ((pages < sink_pages) | (pages >= recent_from)) & (pages < total_pages)
    places = taken + tl.cumsum((chosen | always).to(tl.int32), 0) - 1
    tl.store(page_id_ptr + places, pages, (chosen | always) & (places < count))
    return chosen


@triton.jit
def _select_few_kernel(
    score_ptr, highest_ptr, total_ptr, context_ptr, page_id_ptr, page_count_ptr, missed_ptr,
    logical_pages, blocks, budget_pages, sink_pages, recent_pages,
    ROWS: tl.constexpr, SHARES: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_PAGES: tl.constexpr,
    BLOCKS: tl.constexpr, SHARE_PAGES: tl.constexpr, BLOCK_BUDGET: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program selects for one kv head, from keys in registers."""
    wait_for_previous_kernel(DEPENDENT)
    head = tl.program_id(0)
    total_pages, count, recent_from, ranked_pages, wanted = _plan(
        context_ptr, logical_pages, budget_pages, sink_pages, recent_pages, PAGE_SIZE
    )
    pages = tl.arange(0, BLOCK_PAGES)
    worth = _load_worth(
        score_ptr, highest_ptr, total_ptr, head, pages, total_pages, logical_pages, blocks,
        ROWS, SHARES, BLOCKS, SHARE_PAGES,
    )  # fmt: skip
    keys = _ordered_keys(worth, pages, sink_pages, recent_from)
    # Keys alone need registers from here on: they hold the worth of all pages but those that are read anyway.
    read = tl.sum(tl.where(keys == 0, worth, 0.0), 0)
    highest_key = tl.max(keys, 0)
    lowest_key = tl.min(tl.where(keys > 0, keys, tl.full([1], 0xFFFFFFFF, tl.uint32)), 0)

    # At least `wanted` keys reach the threshold, and fewer reach what lies `width` above it.
    threshold, width = lowest_key, highest_key - lowest_key + 1
    reaching = ranked_pages
    while (width > 1) & (reaching != wanted):
        third = width // 3 + 1
        low, high = threshold + third, threshold + tl.minimum(2 * third, width - 1)
        reach_low, reach_high = _count_reaching(keys, low, high)
        if reach_high >= wanted:
            width -= high - threshold
            threshold, reaching = high, reach_high
        elif reach_low >= wanted:
            width = high - low
            threshold, reaching = low, reach_low
        else:
            width = third
    # More reach the threshold than are wanted only if equal scores do: of these the earlier pages get in.
    ties = BLOCK_PAGES
    if reaching > wanted:
        ties = wanted - tl.sum((keys > threshold).to(tl.int32), 0)
    page_id_ptr += head * budget_pages
    chosen = _store_chosen(
        keys, pages, threshold, ties, 0, wanted, total_pages, count, sink_pages, recent_from, page_id_ptr
    )
    places = tl.arange(0, BLOCK_BUDGET)
    tl.store(page_id_ptr + places, -1, (places >= count) & (places < budget_pages))
    tl.store(page_count_ptr + head, count)
    if SHARES:
        tl.store(missed_ptr + head, 1.0 - read - tl.sum(tl.where(chosen, _worth_of(keys), 0.0), 0))


@triton.jit
def _narrow_kernel(
    score_ptr, highest_ptr, total_ptr, context_ptr, key_ptr, read_ptr, bin_ptr, state_ptr,
    logical_pages, blocks, budget_pages, sink_pages, recent_pages,
    ROWS: tl.constexpr, SHARES: tl.constexpr, PAGE_SIZE: tl.constexpr, PART_PAGES: tl.constexpr,
    BLOCKS: tl.constexpr, SHARE_PAGES: tl.constexpr, BINS: tl.constexpr,
    SHIFT: tl.constexpr, BITS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program counts the digits of its part of a head's keys; whichever ends last finds the threshold's digit.

    The first launch makes the keys. `state` and `bins` are zero before it.
    """
    wait_for_previous_kernel(DEPENDENT)
    head, part = tl.program_id(0), tl.program_id(1)
    total_pages, _, recent_from, _, wanted = _plan(
        context_ptr, logical_pages, budget_pages, sink_pages, recent_pages, PAGE_SIZE
    )
    pages = part * PART_PAGES + tl.arange(0, PART_PAGES)
    key_ptr += head.to(tl.int64) * logical_pages
    bin_ptr += head * BINS
    state_ptr += head * STATES
    found = tl.full([], 0, tl.uint32)
    if SHIFT + BITS == 32:
        worth = _load_worth(
            score_ptr, highest_ptr, total_ptr, head, pages, total_pages, logical_pages, blocks,
            ROWS, SHARES, BLOCKS, SHARE_PAGES,
        )  # fmt: skip
        keys = _ordered_keys(worth, pages, sink_pages, recent_from)
        tl.store(key_ptr + pages, keys.to(tl.int32, bitcast=True), pages < logical_pages)
        tl.store(read_ptr + head * tl.num_programs(1) + part, tl.sum(tl.where(keys == 0, worth, 0.0), 0))
        counted = keys > 0
    else:
        keys = tl.load(key_ptr + pages, pages < logical_pages, 0).to(tl.uint32, bitcast=True)
        found = tl.load(state_ptr + 1).to(tl.uint32, bitcast=True)
        wanted = tl.load(state_ptr + 2)
        counted = (keys > 0) & ((keys >> (SHIFT + BITS)) == (found >> (SHIFT + BITS)))
    digits = ((keys >> SHIFT) & ((1 << BITS) - 1)).to(tl.int32)
    tl.atomic_add(bin_ptr + digits, 1, counted, sem="relaxed", scope="gpu")
    # All threads have counted before one of them counts this program in, and what others counted is seen once it is.
    tl.debug_barrier()
    finished = tl.atomic_add(state_ptr, 1, sem="acq_rel", scope="gpu")
    if finished == tl.num_programs(1) - 1:
        bins = tl.arange(0, BINS)
        counts = tl.load(bin_ptr + bins, cache_modifier=".cg")
        reaching = tl.cumsum(counts, 0, reverse=True)
        digit = tl.maximum(tl.max(tl.where(reaching >= wanted, bins, -1), 0), 0)
        above = tl.sum(tl.where(bins > digit, counts, 0), 0)
        tl.store(bin_ptr + bins, 0)
        tl.store(state_ptr, 0)
        tl.store(state_ptr + 1, (found | (digit.to(tl.uint32) << SHIFT)).to(tl.int32, bitcast=True))
        tl.store(state_ptr + 2, wanted - above)


@triton.jit
def _collect_kernel(
    context_ptr, key_ptr, read_ptr, state_ptr, page_id_ptr, page_count_ptr, missed_ptr,
    logical_pages, budget_pages, sink_pages, recent_pages,
    SHARES: tl.constexpr, PAGE_SIZE: tl.constexpr, PART_PAGES: tl.constexpr, BLOCK_PARTS: tl.constexpr,
    BLOCK_BUDGET: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program stores the chosen pages of its part of a head, after those of the parts before it."""
    wait_for_previous_kernel(DEPENDENT)
    head, part = tl.program_id(0), tl.program_id(1)
    total_pages, count, recent_from, _, wanted = _plan(
        context_ptr, logical_pages, budget_pages, sink_pages, recent_pages, PAGE_SIZE
    )
    key_ptr += head.to(tl.int64) * logical_pages
    page_id_ptr += head * budget_pages
    threshold = tl.load(state_ptr + head * STATES + 1).to(tl.uint32, bitcast=True)
    ties = tl.load(state_ptr + head * STATES + 2)
    above, tied = 0, 0
    for earlier in range(0, part):
        pages = earlier * PART_PAGES + tl.arange(0, PART_PAGES)
        keys = tl.load(key_ptr + pages).to(tl.uint32, bitcast=True)
        above += tl.sum((keys > threshold).to(tl.int32), 0)
        tied += tl.sum(((keys == threshold) & (keys > 0)).to(tl.int32), 0)
    first = part * PART_PAGES
    taken = tl.minimum(first, sink_pages) + tl.maximum(
        tl.minimum(first, total_pages) - tl.maximum(recent_from, sink_pages), 0
    )
    if wanted > 0:
        taken += above + tl.minimum(tied, ties)
    pages = first + tl.arange(0, PART_PAGES)
    keys = tl.load(key_ptr + pages, pages < logical_pages, 0).to(tl.uint32, bitcast=True)
    chosen = _store_chosen(
        keys, pages, threshold, ties - tied, taken, wanted, total_pages, count, sink_pages, recent_from, page_id_ptr
    )
    if SHARES:
        share = tl.sum(tl.where(chosen, _worth_of(keys), 0.0), 0)
        parts = tl.num_programs(1)
        read = tl.load(read_ptr + head * parts + part) + share
        tl.store(read_ptr + (tl.num_programs(0) + head) * parts + part, read)
        tl.debug_barrier()
        if tl.atomic_add(state_ptr + head * STATES, 1, sem="acq_rel", scope="gpu") == parts - 1:
            # In an order that is always the same.
            other = tl.arange(0, BLOCK_PARTS)
            reads = tl.load(
                read_ptr + (tl.num_programs(0) + head) * parts + other, other < parts, 0.0, cache_modifier=".cg"
            )
            tl.store(missed_ptr + head, 1.0 - tl.sum(reads, 0))
            tl.store(state_ptr + head * STATES, 0)
    if part == 0:
        places = tl.arange(0, BLOCK_BUDGET)
        tl.store(page_id_ptr + places, -1, (places >= count) & (places < budget_pages))
        tl.store(page_count_ptr + head, count)


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
    blocks = triton.cdiv(logical_pages, SHARE_PAGES)
    ranking = (scores, highest if shares else scores, total if shares else scores)
    result = (page_ids, page_counts, missed_share if shares else scores)
    plan = (budget_pages, sink_pages, recent_pages)
    dependent = launches_dependently(device)
    how = {"PAGE_SIZE": page_size, "DEPENDENT": dependent, "launch_pdl": dependent}
    loading = {"ROWS": rows, "SHARES": shares, "BLOCKS": triton.next_power_of_2(blocks), "SHARE_PAGES": SHARE_PAGES}
    block_budget = triton.next_power_of_2(budget_pages)
    if logical_pages <= FEW_PAGES:
        block_pages = max(SHARE_PAGES, triton.next_power_of_2(logical_pages))
        _select_few_kernel[(kv_heads,)](
            *ranking,
            context_tokens,
            *result,
            logical_pages,
            blocks,
            *plan,
            BLOCK_PAGES=block_pages,
            BLOCK_BUDGET=block_budget,
            num_warps=max(block_pages // (32 * SCORES_PER_THREAD), 4),
            **loading,
            **how,
        )
        return page_ids, page_counts, missed_share
    parts = triton.cdiv(logical_pages, PART_PAGES)
    keys = torch.empty((kv_heads, logical_pages), dtype=torch.int32, device=device)
    read = torch.empty((2, kv_heads, parts), dtype=torch.float32, device=device)
    bins, states = _exchange(kv_heads, device)
    for shift, bits in DIGITS:
        _narrow_kernel[(kv_heads, parts)](
            *ranking,
            context_tokens,
            keys,
            read[0],
            bins,
            states,
            logical_pages,
            blocks,
            *plan,
            PART_PAGES=PART_PAGES,
            BINS=BINS,
            SHIFT=shift,
            BITS=bits,
            num_warps=PART_WARPS,
            **loading,
            **how,
        )
    _collect_kernel[(kv_heads, parts)](
        context_tokens,
        keys,
        read,
        states,
        *result,
        logical_pages,
        *plan,
        SHARES=shares,
        PART_PAGES=PART_PAGES,
        BLOCK_PARTS=triton.next_power_of_2(parts),
        BLOCK_BUDGET=block_budget,
        num_warps=PART_WARPS,
        **how,
    )
    return page_ids, page_counts, missed_share


@lru_cache
def _exchange(kv_heads: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Zeros in which the programs of a kv head count, and which they put back; launches of one stream share them."""
    bins = torch.zeros((kv_heads, BINS), dtype=torch.int32, device=device)
    return bins, torch.zeros((kv_heads, int(STATES)), dtype=torch.int32, device=device)
