"""Choose the pages to read from their scores, without a sort.

The lowest score that still gets in is found bit by bit: scores become unsigned integers of the same order, and each of
their 32 bits is decided by counting how many scores reach it (a radix select). Then the pages are collected in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import require, require_contiguous

MAX_BLOCK_PAGES = 4096


@triton.jit
def _ordered_keys(score_ptr, pages, total_pages, sink_pages, recent_from):
    """uint32 keys in the order of the scores: pages that are always read the highest, pages beyond the context 0."""
    scores = tl.load(score_ptr + pages, pages < total_pages, float("-inf"))
    # Adding 0.0 turns -0.0 into 0.0: equal scores must have equal bits.
    bits = (scores + 0.0).to(tl.uint32, bitcast=True)
    sign, highest = tl.full([1], 0x80000000, tl.uint32), tl.full([1], 0xFFFFFFFF, tl.uint32)
    # Negative floats order backwards by their bits, positive ones forwards.
    keys = tl.where((bits & sign) != 0, bits ^ highest, bits | sign)
    always_read = (pages < sink_pages) | (pages >= recent_from)
    keys = tl.where(always_read, highest, keys)
    return tl.where(pages < total_pages, keys, tl.full([1], 0, tl.uint32))


@triton.jit
def _select_pages_kernel(
    score_ptr, context_ptr, page_id_ptr, page_count_ptr, logical_pages, budget_pages, sink_pages, recent_pages,
    PAGE_SIZE: tl.constexpr, BLOCK_PAGES: tl.constexpr, BLOCK_BUDGET: tl.constexpr,
):  # fmt: skip
    """One program selects for one kv head, going over its scores in blocks."""
    head = tl.program_id(0)
    score_ptr += head * logical_pages
    page_id_ptr += head * budget_pages
    total_pages = tl.minimum(tl.cdiv(tl.load(context_ptr), PAGE_SIZE), logical_pages)
    count = tl.minimum(budget_pages, total_pages)
    recent_from = total_pages - 1 - recent_pages
    block = tl.arange(0, BLOCK_PAGES)
    threshold = tl.full([1], 0, tl.uint32)
    for bit in range(32):
        candidate = threshold | (tl.full([1], 0x80000000, tl.uint32) >> bit)
        reaching = 0
        for first in range(0, total_pages, BLOCK_PAGES):
            keys = _ordered_keys(score_ptr, first + block, total_pages, sink_pages, recent_from)
            reaching += tl.sum((keys >= candidate).to(tl.int32), 0)
        threshold = tl.where(reaching >= count, candidate, threshold)
    above = 0
    for first in range(0, total_pages, BLOCK_PAGES):
        keys = _ordered_keys(score_ptr, first + block, total_pages, sink_pages, recent_from)
        above += tl.sum((keys > threshold).to(tl.int32), 0)
    ties_left = count - above  # of equal scores at the threshold the earlier pages get in
    taken = 0
    for first in range(0, total_pages, BLOCK_PAGES):
        pages = first + block
        keys = _ordered_keys(score_ptr, pages, total_pages, sink_pages, recent_from)
        tied = (keys == threshold) & (pages < total_pages)
        within = tied & (tl.cumsum(tied.to(tl.int32), 0) <= ties_left)
        chosen = (keys > threshold) | within
        places = taken + tl.cumsum(chosen.to(tl.int32), 0) - 1
        tl.store(page_id_ptr + places, pages, chosen)
        ties_left -= tl.sum(within.to(tl.int32), 0)
        taken += tl.sum(chosen.to(tl.int32), 0)
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `kernels.reference.naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or a tensor is not on a GPU or of a matching
            shape and dtype.
    """
    require(scores, "scores", (None, None), (torch.float32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(scores, "scores")
    if budget_pages < 1 + sink_pages + recent_pages:
        raise ValueError(f"budget_pages {budget_pages} is less than the pages that are always read")
    kv_heads, logical_pages = scores.shape
    page_ids = torch.empty((kv_heads, budget_pages), dtype=torch.int32, device=scores.device)
    page_counts = torch.empty(kv_heads, dtype=torch.int32, device=scores.device)
    block_pages = min(MAX_BLOCK_PAGES, max(32, triton.next_power_of_2(logical_pages)))
    _select_pages_kernel[(kv_heads,)](
        scores,
        context_tokens,
        page_ids,
        page_counts,
        logical_pages,
        budget_pages,
        sink_pages,
        recent_pages,
        PAGE_SIZE=page_size,
        BLOCK_PAGES=block_pages,
        BLOCK_BUDGET=triton.next_power_of_2(budget_pages),
        num_warps=min(max(block_pages // 128, 1), 16),
    )
    return page_ids, page_counts
