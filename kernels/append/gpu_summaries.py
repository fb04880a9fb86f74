"""The summary of a page's keys, made and stored vector by vector.

LAYOUT is the `CacheLayout` throughout, and `vector` says which of a summary's vectors is meant.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.contract import INT8_LEVELS, ROUNDING_MARGIN, SCALE_MARGIN

STEPS, MARGIN, LARGER = tl.constexpr(INT8_LEVELS), tl.constexpr(ROUNDING_MARGIN), tl.constexpr(1 + SCALE_MARGIN)


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
def store_summary(summary, summaries, row, vector: tl.constexpr, LAYOUT: tl.constexpr):
    """Write one vector, float32 [BLOCK_DIM], to index `row`."""
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
    else:
        tl.store(target, summary.to(summaries.vector_ptr.dtype.element_ty), present)
