"""Select among many pages: several programs a kv head, and a radix select over three launches.

One multiprocessor would count for long. Each launch looks at eleven bits of the keys: all programs count how many keys
have each value of them, among those that share the threshold's bits above, and whichever program of a kv head ends last
finds the threshold's value. A fourth launch stores the pages in order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl

from kernels.gpu.dependent_launch import wait_for_previous_kernel
from kernels.gpu.page_ranking import (
    SHARE_PAGES,
    load_worth,
    order_keys,
    page_grid,
    place_chosen,
    plan_selection,
    worth_of,
)

# Of a program.
PART_PAGES, NUM_WARPS = 2048, 8
# The bits of a key that each launch looks at, from the highest: (how far they are shifted, how many).
DIGITS = ((21, 11), (10, 11), (0, 10))
BINS = 1 << 11
# What a kv head's programs tell each other beside how many keys have each digit: programs done, bits found, pages still
# wanted among those that share these bits.
STATES = tl.constexpr(3)


@triton.jit
def _narrow_kernel(
    score_ptr, highest_ptr, total_ptr, context_ptr, key_ptr, read_ptr, bin_ptr, state_ptr,
    logical_pages, blocks, budget_pages, sink_pages, recent_pages,
    ROWS: tl.constexpr, SHARES: tl.constexpr, PAGE_SIZE: tl.constexpr, PART_PAGES: tl.constexpr,
    BLOCKS: tl.constexpr, BINS: tl.constexpr,
    SHIFT: tl.constexpr, BITS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program counts the digits of its part of a head's keys; whichever ends last finds the threshold's digit.

    The first launch makes the keys. `state` and `bins` are zero before it.
    """
    wait_for_previous_kernel(DEPENDENT)
    head, part = tl.program_id(0), tl.program_id(1)
    total_pages, _, recent_from, _, wanted = plan_selection(
        context_ptr, logical_pages, budget_pages, sink_pages, recent_pages, PAGE_SIZE
    )
    pages = part * PART_PAGES + tl.arange(0, PART_PAGES)
    key_ptr += head.to(tl.int64) * logical_pages
    bin_ptr += head * BINS
    state_ptr += head * STATES
    found = tl.full([], 0, tl.uint32)
    if SHIFT + BITS == 32:
        worth = load_worth(
            score_ptr, highest_ptr, total_ptr, head, pages, pages < total_pages, logical_pages, blocks,
            ROWS, SHARES, BLOCKS,
        )  # fmt: skip
        # 0 for pages that are read anyway or lie beyond the context.
        keys = tl.where((pages >= sink_pages) & (pages < recent_from), order_keys(worth), tl.full([1], 0, tl.uint32))
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
    total_pages, count, recent_from, _, wanted = plan_selection(
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
    pages = first + page_grid(PART_PAGES)
    keys = tl.load(key_ptr + pages, pages < logical_pages, 0).to(tl.uint32, bitcast=True)
    places, chosen = place_chosen(
        keys, pages, threshold, ties - tied, taken, wanted, total_pages, count, sink_pages, recent_from, PART_PAGES
    )
    tl.store(page_id_ptr + places, pages, places >= 0)
    if SHARES:
        share = tl.sum(tl.where(chosen, worth_of(keys), 0.0))
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
        entries = tl.arange(0, BLOCK_BUDGET)
        tl.store(page_id_ptr + entries, -1, (entries >= count) & (entries < budget_pages))
        tl.store(page_count_ptr + head, count)


def select_among_many(
    ranking: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    context_tokens: torch.Tensor,
    result: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    plan: tuple[int, int, int],
    loading: dict[str, Any],
    how: dict[str, Any],
) -> None:
    """Select as `kernels.gpu.select_pages.select_from`, which prepares the arguments.

    Args:
        ranking: scores [kv_heads, rows, logical_pages], highest logits and totals of blocks.
        result: page ids, page counts and missed share, written.
        plan: budget, sink and recent pages.
        loading: constants of `load_worth`.
        how: the page size, and how to launch.
    """
    scores = ranking[0]
    kv_heads, _, logical_pages = scores.shape
    blocks = triton.cdiv(logical_pages, SHARE_PAGES)
    parts = triton.cdiv(logical_pages, PART_PAGES)
    keys = torch.empty((kv_heads, logical_pages), dtype=torch.int32, device=scores.device)
    read = torch.empty((2, kv_heads, parts), dtype=torch.float32, device=scores.device)
    bins, states = _exchange(kv_heads, scores.device)
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
            num_warps=NUM_WARPS,
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
        SHARES=loading["SHARES"],
        PART_PAGES=PART_PAGES,
        BLOCK_PARTS=triton.next_power_of_2(parts),
        BLOCK_BUDGET=triton.next_power_of_2(plan[0]),
        num_warps=NUM_WARPS,
        **how,
    )


@lru_cache
def _exchange(kv_heads: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Zeros in which the programs of a kv head count, and which they put back; launches of one stream share them."""
    bins = torch.zeros((kv_heads, BINS), dtype=torch.int32, device=device)
    return bins, torch.zeros((kv_heads, int(STATES)), dtype=torch.int32, device=device)
