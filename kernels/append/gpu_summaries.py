"""Summaries of the keys of a page, and of a superpage up to the end of a page: made and stored vector by vector.

LAYOUT is the `CacheLayout` throughout, and `vector` says which of a summary's vectors is meant.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.contract import INT8_LEVELS, ROUNDING_MARGIN, SCALE_MARGIN
from kernels.select.coarse_to_fine import SUPERPAGE_PAGES

STEPS, MARGIN, LARGER = tl.constexpr(INT8_LEVELS), tl.constexpr(ROUNDING_MARGIN), tl.constexpr(1 + SCALE_MARGIN)
PAGES = tl.constexpr(SUPERPAGE_PAGES)


@triton.jit
def summarise_keys(page_keys, filled, tokens, vector: tl.constexpr, LAYOUT: tl.constexpr):
    """One vector of the summary of the keys of a page, [page_size, BLOCK_DIM]: of the `filled` ones, `tokens` many."""
    if LAYOUT.summary.is_bounds:
        if vector == 0:
            return tl.min(tl.where(filled, page_keys, float("inf")), 0)
        else:
            return tl.max(tl.where(filled, page_keys, float("-inf")), 0)
    else:
        return tl.sum(tl.where(filled, page_keys, 0.0), 0) / tokens


@triton.jit
def load_earlier_summaries(logical, head, vector: tl.constexpr, summaries, LAYOUT: tl.constexpr):
    """One vector of each page before `logical` in its superpage, float32 [PAGES, BLOCK_DIM]; zeros for the others."""
    BLOCK_DIM: tl.constexpr = triton.next_power_of_2(LAYOUT.head_dim)
    member, columns = tl.arange(0, PAGES), tl.arange(0, BLOCK_DIM)
    there = member < logical % PAGES
    page = tl.load(summaries.table_ptr + logical // PAGES * PAGES + member, there, 0).to(tl.int64)
    rows = (page * LAYOUT.kv_heads + head) * (2 * LAYOUT.summary.vectors) + vector
    present = there[:, None] & (columns < LAYOUT.head_dim)[None, :]
    addresses = summaries.vector_ptr + rows[:, None] * LAYOUT.head_dim + columns[None, :]
    vectors = tl.load(addresses, present, 0).to(tl.float32)
    if LAYOUT.has_int8_summaries:
        vectors *= tl.load(summaries.scale_ptr + rows, there, 0.0)[:, None]
    return vectors


@triton.jit
def summarise_superpage(own, earlier, logical, tokens, vector: tl.constexpr, LAYOUT: tl.constexpr):
    """One vector of the summary of a superpage up to the end of page `logical`, which holds `tokens` tokens.

    Args:
        own: float32 [BLOCK_DIM], the same vector of the page itself.
        earlier: of the pages before it, as `load_earlier_summaries` returns them.
    """
    pages_before = logical % PAGES
    if LAYOUT.summary.is_bounds:
        there = (tl.arange(0, PAGES) < pages_before)[:, None]
        if vector == 0:
            return tl.minimum(own, tl.min(tl.where(there, earlier, float("inf")), 0))
        else:
            return tl.maximum(own, tl.max(tl.where(there, earlier, float("-inf")), 0))
    else:
        tokens_before = pages_before * LAYOUT.page_size
        return (own * tokens + tl.sum(earlier, 0) * LAYOUT.page_size) / (tokens + tokens_before)


@triton.jit
def store_summary(summary, summaries, row, vector: tl.constexpr, LAYOUT: tl.constexpr):
    """Write one vector to index `row`; returns it as it is kept, float32 [BLOCK_DIM]."""
    BLOCK_DIM: tl.constexpr = triton.next_power_of_2(LAYOUT.head_dim)
    columns = tl.arange(0, BLOCK_DIM)
    present = columns < LAYOUT.head_dim
    target = summaries.vector_ptr + row * LAYOUT.head_dim + columns
    if LAYOUT.has_int8_summaries:
        scale = tl.max(tl.where(present, tl.abs(summary), 0.0), 0) / STEPS * LARGER
        steps = summary / tl.maximum(scale, 1e-30)
        if LAYOUT.summary.is_bounds:
            if vector == 0:
                steps = tl.floor(steps - MARGIN)
            else:
                steps = tl.ceil(steps + MARGIN)
        else:
            steps = tl.floor(steps + 0.5)
        steps = tl.minimum(tl.maximum(steps, -STEPS), STEPS)
        tl.store(target, steps.to(tl.int8), present)
        tl.store(summaries.scale_ptr + row, scale)
        return steps * scale
    else:
        kept = summary.to(summaries.vector_ptr.dtype.element_ty)
        tl.store(target, kept, present)
        return kept.to(tl.float32)
