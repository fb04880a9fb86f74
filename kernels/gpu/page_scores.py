"""Score KV pages from their summaries."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require, require_contiguous, require_summaries

BLOCK_PAGES = 32


@triton.jit
def _page_scores_kernel(
    weight_ptr, summary_ptr, summary_scale_ptr, page_table_ptr, context_ptr, score_ptr,
    logical_pages, kv_heads, head_dim,
    ROWS: tl.constexpr, VECTORS: tl.constexpr, INT8: tl.constexpr,
    PAGE_SIZE: tl.constexpr, BLOCK_PAGES: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One program scores BLOCK_PAGES pages for one kv head: for each of the head's rows it adds up the dot products
    with the pages' summary vectors, which stay in registers or the L1 cache from row to row.
    """
    head = tl.program_id(0)
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < head_dim
    pages = tl.program_id(1) * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
    visible = (pages < logical_pages) & (pages * PAGE_SIZE < tl.load(context_ptr))
    physical = tl.load(page_table_ptr + pages, visible, 0).to(tl.int64)
    summaries = (physical * kv_heads + head) * VECTORS
    mask = visible[:, None] & inside[None, :]
    for row in tl.static_range(ROWS):
        scores = tl.zeros([BLOCK_PAGES], tl.float32)
        for vector in tl.static_range(VECTORS):
            summary = tl.load(summary_ptr + ((summaries + vector) * head_dim)[:, None] + channels[None, :], mask, 0)
            weights = tl.load(weight_ptr + ((head * ROWS + row) * VECTORS + vector) * head_dim + channels, inside, 0.0)
            products = tl.sum(summary.to(tl.float32) * weights[None, :], 1)
            if INT8:
                products *= tl.load(summary_scale_ptr + summaries + vector, visible, 0.0)
            scores += products
        scores = tl.where(visible, scores, float("-inf"))
        tl.store(score_ptr + (head * ROWS + row) * logical_pages + pages, scores, pages < logical_pages)


def page_scores(
    query_weights: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary_scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    require_summaries(page_summaries, summary_scales, (None, None, None, None), FLOATING)
    _, kv_heads, vectors, head_dim = page_summaries.shape
    require(query_weights, "query_weights", (kv_heads, None, vectors, head_dim), (torch.float32,))
    require(page_table, "page_table", (None,), (torch.int32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(query_weights, "query_weights")
    rows, logical_pages = query_weights.shape[1], len(page_table)
    scores = torch.empty((kv_heads, rows, logical_pages), dtype=torch.float32, device=query_weights.device)
    _page_scores_kernel[(kv_heads, triton.cdiv(logical_pages, BLOCK_PAGES))](
        query_weights,
        page_summaries,
        page_summaries if summary_scales is None else summary_scales,
        page_table,
        context_tokens,
        scores,
        logical_pages,
        kv_heads,
        head_dim,
        ROWS=rows,
        VECTORS=vectors,
        INT8=summary_scales is not None,
        PAGE_SIZE=page_size,
        BLOCK_PAGES=BLOCK_PAGES,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
    )
    return scores
