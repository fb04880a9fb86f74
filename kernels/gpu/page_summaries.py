"""What stands for the keys of a page, and of a superpage up to the end of a page: made and stored vector by vector."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.reference import INT8_LEVELS, ROUNDING_MARGIN, SCALE_MARGIN, SUPERPAGE_PAGES

LEVELS, MARGIN, LARGER = tl.constexpr(INT8_LEVELS), tl.constexpr(ROUNDING_MARGIN), tl.constexpr(1 + SCALE_MARGIN)
PAGES = tl.constexpr(SUPERPAGE_PAGES)


@triton.jit
def summarise_keys(page_keys, filled, tokens, vector: tl.constexpr, SUMMARY: tl.constexpr):
    """One vector of the summary of the `filled` keys, so many `tokens`, of [PAGE_SIZE, BLOCK_DIM]."""
    if SUMMARY == "bounds":
        if vector == 0:
            return tl.min(tl.where(filled, page_keys, float("inf")), 0)
        else:
            return tl.max(tl.where(filled, page_keys, float("-inf")), 0)
    else:
        mean = tl.sum(tl.where(filled, page_keys, 0.0), 0) / tokens
        if vector == 0:
            return mean
        else:
            return tl.sum(tl.where(filled, tl.abs(page_keys - mean[None, :]), 0.0), 0) / tokens


@triton.jit
def load_earlier_summaries(
    logical, head, vector: tl.constexpr, summary_ptr, summary_scale_ptr, page_table_ptr, kv_heads, head_dim,
    VECTORS: tl.constexpr, INT8: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One vector of each page before `logical` in its superpage, float32 [PAGES, BLOCK_DIM]; zeros for the others."""
    place, columns = tl.arange(0, PAGES), tl.arange(0, BLOCK_DIM)
    there = place < logical % PAGES
    page = tl.load(page_table_ptr + logical // PAGES * PAGES + place, there, 0).to(tl.int64)
    rows = (page * kv_heads + head) * (2 * VECTORS) + vector
    present = there[:, None] & (columns < head_dim)[None, :]
    vectors = tl.load(summary_ptr + rows[:, None] * head_dim + columns[None, :], present, 0).to(tl.float32)
    if INT8:
        vectors *= tl.load(summary_scale_ptr + rows, there, 0.0)[:, None]
    return vectors


@triton.jit
def summarise_superpage(
    own, earlier, logical, tokens, vector: tl.constexpr, SUMMARY: tl.constexpr, PAGE_SIZE: tl.constexpr
):
    """One vector of the summary of a superpage up to the end of page `logical`, which holds so many `tokens`.

    Args:
        own: float32 [BLOCK_DIM], the same vector of the page itself.
        earlier: of the pages before it, as `load_earlier_summaries` returns them.
    """
    pages_before = logical % PAGES
    if SUMMARY == "bounds":
        there = (tl.arange(0, PAGES) < pages_before)[:, None]
        if vector == 0:
            return tl.minimum(own, tl.min(tl.where(there, earlier, float("inf")), 0))
        else:
            return tl.maximum(own, tl.max(tl.where(there, earlier, float("-inf")), 0))
    else:
        return (own * tokens + tl.sum(earlier, 0) * PAGE_SIZE) / (tokens + pages_before * PAGE_SIZE)


@triton.jit
def store_summary(
    summary, summary_ptr, summary_scale_ptr, row, head_dim, vector: tl.constexpr,
    SUMMARY: tl.constexpr, INT8: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Write one vector; returns what it stands for as it is kept, float32 [BLOCK_DIM]."""
    columns = tl.arange(0, BLOCK_DIM)
    present = columns < head_dim
    target = summary_ptr + row * head_dim + columns
    if INT8:
        scale = tl.max(tl.where(present, tl.abs(summary), 0.0), 0) / LEVELS * LARGER
        steps = summary / tl.maximum(scale, 1e-30)
        if SUMMARY != "bounds":
            steps = tl.floor(steps + 0.5)
        elif vector == 0:
            steps = tl.floor(steps - MARGIN)
        else:
            steps = tl.ceil(steps + MARGIN)
        steps = tl.minimum(tl.maximum(steps, -LEVELS), LEVELS)
        tl.store(target, steps.to(tl.int8), present)
        tl.store(summary_scale_ptr + row, scale)
        return steps * scale
    else:
        kept = summary.to(summary_ptr.dtype.element_ty)
        tl.store(target, kept, present)
        return kept.to(tl.float32)
