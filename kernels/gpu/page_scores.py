"""Score KV pages from their summaries."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require, require_contiguous

BLOCK_PAGES = 32


@triton.jit
def _page_scores_kernel(
    weight_ptr, summary_ptr, page_table_ptr, context_ptr, score_ptr, logical_pages, kv_heads, head_dim,
    ROWS: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_PAGES: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One program scores BLOCK_PAGES pages for one kv head: loads their summaries once, and for each of the head's rows
    adds up two dot products.
    """
    head = tl.program_id(0)
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < head_dim
    pages = tl.program_id(1) * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
    visible = (pages < logical_pages) & (pages * PAGE_SIZE < tl.load(context_ptr))
    physical = tl.load(page_table_ptr + pages, visible, 0).to(tl.int64)
    vectors = (summary_ptr + (physical * kv_heads + head) * 2 * head_dim)[:, None] + channels[None, :]
    mask = visible[:, None] & inside[None, :]
    first = tl.load(vectors, mask, 0.0).to(tl.float32)
    second = tl.load(vectors + head_dim, mask, 0.0).to(tl.float32)
    for row in tl.static_range(ROWS):
        weights = weight_ptr + (head * ROWS + row) * 2 * head_dim + channels
        of_first = tl.load(weights, inside, 0.0)
        of_second = tl.load(weights + head_dim, inside, 0.0)
        scores = tl.sum(first * of_first[None, :] + second * of_second[None, :], 1)
        scores = tl.where(visible, scores, float("-inf"))
        tl.store(score_ptr + (head * ROWS + row) * logical_pages + pages, scores, pages < logical_pages)


def page_scores(
    query_weights: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    require(page_summaries, "page_summaries", (None, None, 2, None), FLOATING)
    kv_heads, head_dim = page_summaries.shape[1], page_summaries.shape[3]
    require(query_weights, "query_weights", (kv_heads, None, 2, head_dim), (torch.float32,))
    require(page_table, "page_table", (None,), (torch.int32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(page_summaries, "page_summaries")
    require_contiguous(query_weights, "query_weights")
    rows, logical_pages = query_weights.shape[1], len(page_table)
    scores = torch.empty((kv_heads, rows, logical_pages), dtype=torch.float32, device=query_weights.device)
    _page_scores_kernel[(kv_heads, triton.cdiv(logical_pages, BLOCK_PAGES))](
        query_weights,
        page_summaries,
        page_table,
        context_tokens,
        scores,
        logical_pages,
        kv_heads,
        head_dim,
        ROWS=rows,
        PAGE_SIZE=page_size,
        BLOCK_PAGES=BLOCK_PAGES,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
    )
    return scores
