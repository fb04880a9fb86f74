"""Select among many pages: several programs a kv head, and a radix select over three launches.

One multiprocessor would take long to count. Each launch is a radix pass over eleven bits of the keys: of the keys whose
higher bits equal the threshold's, all programs count how many have each value of these bits, and the last program of a
kv head finds the threshold's value. A fourth launch stores the pages in order.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels.contract import PageBudget, SelectedPages
from kernels.gpu_tools.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.select.gpu_ranking import (
    RankingShape,
    ScoredPages,
    Scores,
    fill_up_list,
    index_chosen,
    load_importance,
    order_keys,
    page_grid,
    plan_selection,
    scores_of,
)

# Of a program.
PART_PAGES, NUM_WARPS = 2048, 8
# The bits of a key that each launch looks at, from the highest: (how far they are shifted, how many).
DIGITS = ((21, 11), (10, 11), (0, 10))
BINS = 1 << 11
# What a kv head's programs tell each other beside how many keys have each digit: programs done, bits found, pages still
# wanted among those with these bits.
STATES = tl.constexpr(3)


@triton.jit
def _radix_pass_kernel(
    score_ptr,
    highest_ptr,
    total_ptr,
    length_ptr,
    key_ptr,
    read_ptr,
    bin_ptr,
    state_ptr,
    logical_pages,
    blocks,
    budget_pages,
    sink_pages,
    recent_pages,
    SHAPE: tl.constexpr,
    BINS: tl.constexpr,
    SHIFT: tl.constexpr,
    BITS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program counts the digits of its part of a head's keys; whichever ends last finds the threshold's digit.

    The first launch makes the keys. `state` and `bins` are zero before it.
    """
    scores = Scores(score_ptr, highest_ptr, total_ptr, logical_pages, blocks)
    budget = PageBudget(budget_pages, sink_pages, recent_pages)
    wait_for_previous_kernel(DEPENDENT)
    head, part = tl.program_id(0), tl.program_id(1)
    plan = plan_selection(length_ptr, logical_pages, budget, SHAPE.page_size)
    wanted = plan.wanted
    pages = part * SHAPE.block_pages + tl.arange(0, SHAPE.block_pages)
    key_ptr += head.to(tl.int64) * logical_pages
    bin_ptr += head * BINS
    state_ptr += head * STATES
    found = tl.full([], 0, tl.uint32)
    if SHIFT + BITS == 32:
        importance = load_importance(scores, head, pages, pages < plan.total_pages, SHAPE)
        # 0 for pages that are always read or lie beyond the sequence.
        ranked = (pages >= plan.sink_pages) & (pages < plan.recent_from)
        keys = tl.where(ranked, order_keys(importance), tl.full([1], 0, tl.uint32))
        tl.store(key_ptr + pages, keys.to(tl.int32, bitcast=True), pages < logical_pages)
        tl.store(read_ptr + head * tl.num_programs(1) + part, tl.sum(tl.where(keys == 0, importance, 0.0), 0))
        counted = keys > 0
    else:
        keys = tl.load(key_ptr + pages, pages < logical_pages, 0).to(tl.uint32, bitcast=True)
        found = tl.load(state_ptr + 1).to(tl.uint32, bitcast=True)
        wanted = tl.load(state_ptr + 2)
        counted = (keys > 0) & ((keys >> (SHIFT + BITS)) == (found >> (SHIFT + BITS)))
    digits = ((keys >> SHIFT) & ((1 << BITS) - 1)).to(tl.int32)
    tl.atomic_add(bin_ptr + digits, 1, counted, sem="relaxed", scope="gpu")
    # All threads have counted before one of them counts this program as done; then what others counted can be read.
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
    length_ptr,
    key_ptr,
    read_ptr,
    state_ptr,
    page_id_ptr,
    page_count_ptr,
    missed_mass_ptr,
    logical_pages,
    budget_pages,
    sink_pages,
    recent_pages,
    SHAPE: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    BLOCK_BUDGET: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program stores the chosen pages of its part of a head, after those of the parts before it."""
    PART_PAGES: tl.constexpr = SHAPE.block_pages
    budget = PageBudget(budget_pages, sink_pages, recent_pages)
    wait_for_previous_kernel(DEPENDENT)
    head, part = tl.program_id(0), tl.program_id(1)
    plan = plan_selection(length_ptr, logical_pages, budget, SHAPE.page_size)
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
    taken = tl.minimum(first, plan.sink_pages) + tl.maximum(
        tl.minimum(first, plan.total_pages) - tl.maximum(plan.recent_from, plan.sink_pages), 0
    )
    if plan.wanted > 0:
        taken += above + tl.minimum(tied, ties)
    pages = first + page_grid(PART_PAGES)
    keys = tl.load(key_ptr + pages, pages < logical_pages, 0).to(tl.uint32, bitcast=True)
    list_indices, chosen = index_chosen(keys, pages, threshold, ties - tied, taken, plan, PART_PAGES)
    tl.store(page_id_ptr + list_indices, pages, list_indices >= 0)
    if SHAPE.logits:
        mass = tl.sum(tl.where(chosen, scores_of(keys), 0.0))
        parts = tl.num_programs(1)
        read = tl.load(read_ptr + head * parts + part) + mass
        tl.store(read_ptr + (tl.num_programs(0) + head) * parts + part, read)
        tl.debug_barrier()
        if tl.atomic_add(state_ptr + head * STATES, 1, sem="acq_rel", scope="gpu") == parts - 1:
            # In an order that is always the same.
            other = tl.arange(0, BLOCK_PARTS)
            reads = tl.load(
                read_ptr + (tl.num_programs(0) + head) * parts + other, other < parts, 0.0, cache_modifier=".cg"
            )
            tl.store(missed_mass_ptr + head, 1.0 - tl.sum(reads, 0))
            tl.store(state_ptr + head * STATES, 0)
    if part == 0:
        fill_up_list(page_id_ptr, plan.selected_pages, budget_pages, BLOCK_BUDGET)
        tl.store(page_count_ptr + head, plan.selected_pages)


def select_among_many(
    scored: ScoredPages,
    length_tokens: torch.Tensor,
    budget: PageBudget,
    selected: SelectedPages,
    shape: RankingShape,
) -> None:
    """Select as `kernels.select.gpu.select_from`, which prepares the arguments.

    Args:
        scored: all of the pages.
        selected: written.
    """
    scores, device = scored.scores, scored.scores.device
    kv_heads, _, logical_pages = scores.shape
    parts = triton.cdiv(logical_pages, PART_PAGES)
    keys = torch.empty((kv_heads, logical_pages), dtype=torch.int32, device=device)
    read = torch.empty((2, kv_heads, parts), dtype=torch.float32, device=device)
    bins, states = _exchange(kv_heads, device)
    dependent = launches_dependently(device)
    launch = {
        "SHAPE": shape._replace(block_pages=PART_PAGES),
        "DEPENDENT": dependent,
        "num_warps": NUM_WARPS,
        "launch_pdl": dependent,
    }
    for shift, bits in DIGITS:
        _radix_pass_kernel[(kv_heads, parts)](
            *scored.pointers,
            length_tokens,
            keys,
            read[0],
            bins,
            states,
            logical_pages,
            scored.blocks,
            *budget,
            BINS=BINS,
            SHIFT=shift,
            BITS=bits,
            **launch,
        )
    _collect_kernel[(kv_heads, parts)](
        length_tokens,
        keys,
        read,
        states,
        *selected[:2],
        scores if selected.missed_mass is None else selected.missed_mass,
        logical_pages,
        *budget,
        BLOCK_PARTS=triton.next_power_of_2(parts),
        BLOCK_BUDGET=triton.next_power_of_2(budget.pages),
        **launch,
    )


@lru_cache
def _exchange(kv_heads: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Zeros in which the programs of a kv head count, and which they reset; launches of one stream share them."""
    bins = torch.zeros((kv_heads, BINS), dtype=torch.int32, device=device)
    return bins, torch.zeros((kv_heads, int(STATES)), dtype=torch.int32, device=device)
