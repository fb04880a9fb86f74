"""Score KV pages by the upper bound of their attention logits."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require, require_contiguous

BLOCK_PAGES = 32


@triton.jit
def _page_scores_kernel(
    query_ptr, bounds_ptr, page_table_ptr, context_ptr, score_ptr, logical_pages, kv_heads, head_dim,
    GROUP: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_PAGES: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One program scores BLOCK_PAGES pages for one kv head: two dot products of each page's bounds with two functions
    of the query, the group means of its positive and of its negative parts.
    """
    head = tl.program_id(0)
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < head_dim
    positive = tl.zeros([BLOCK_DIM], tl.float32)
    negative = tl.zeros([BLOCK_DIM], tl.float32)
    for member in tl.static_range(GROUP):
        query = tl.load(query_ptr + (head * GROUP + member) * head_dim + channels, inside, 0.0).to(tl.float32)
        positive += tl.maximum(query, 0.0)
        negative += tl.minimum(query, 0.0)
    positive = positive / GROUP
    negative = negative / GROUP
    pages = tl.program_id(1) * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
    visible = (pages < logical_pages) & (pages * PAGE_SIZE < tl.load(context_ptr))
    physical = tl.load(page_table_ptr + pages, visible, 0).to(tl.int64)
    rows = (bounds_ptr + (physical * kv_heads + head) * 2 * head_dim)[:, None] + channels[None, :]
    mask = visible[:, None] & inside[None, :]
    lowest = tl.load(rows, mask, 0.0).to(tl.float32)
    highest = tl.load(rows + head_dim, mask, 0.0).to(tl.float32)
    scores = tl.sum(highest * positive[None, :] + lowest * negative[None, :], 1)
    scores = tl.where(visible, scores, float("-inf"))
    tl.store(score_ptr + head * logical_pages + pages, scores, pages < logical_pages)


def page_scores(
    query: torch.Tensor,
    page_bounds: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    require(page_bounds, "page_bounds", (None, None, 2, None), FLOATING)
    kv_heads, head_dim = page_bounds.shape[1], page_bounds.shape[3]
    require(query, "query", (None, head_dim), FLOATING)
    require(page_table, "page_table", (None,), (torch.int32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(page_bounds, "page_bounds")
    query = query.contiguous()
    if query.shape[0] % kv_heads:
        raise ValueError(f"{query.shape[0]} query heads cannot share {kv_heads} kv heads evenly")
    logical_pages = len(page_table)
    scores = torch.empty((kv_heads, logical_pages), dtype=torch.float32, device=query.device)
    _page_scores_kernel[(kv_heads, triton.cdiv(logical_pages, BLOCK_PAGES))](
        query,
        page_bounds,
        page_table,
        context_tokens,
        scores,
        logical_pages,
        kv_heads,
        head_dim,
        GROUP=query.shape[0] // kv_heads,
        PAGE_SIZE=page_size,
        BLOCK_PAGES=BLOCK_PAGES,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
    )
    return scores
