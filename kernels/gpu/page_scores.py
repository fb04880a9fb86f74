"""Score KV pages from their summaries, straight from the query.

Both the functions of the query and their dot products with the summary vectors are made in one kernel, on the matrix
units: these stream the summaries at the speed of the memory, where products element by element reached half of it.
They multiply 16-bit numbers; so that no bits of the query are lost, it is split into a float16 and the float16 of what
that leaves, which take two of the 16 rows that the matrix units have anyway.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require, require_contiguous, require_summaries
from kernels.reference import check_summary

# Measured: 64 and 256 are each slower with one kind of summary.
BLOCK_PAGES = 128


@triton.jit
def _page_scores_kernel(
    query_ptr, summary_ptr, summary_scale_ptr, page_table_ptr, context_ptr, score_ptr,
    scale, logical_pages, kv_heads, head_dim,
    SUMMARY: tl.constexpr, VECTORS: tl.constexpr, INT8: tl.constexpr, SPLIT: tl.constexpr,
    GROUP: tl.constexpr, HALF: tl.constexpr,
    PAGE_SIZE: tl.constexpr, BLOCK_PAGES: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One program scores BLOCK_PAGES pages for one kv head.

    Row r of the functions belongs to query head r % HALF of the group; with SPLIT the second half of the rows has what
    rounding to float16 took from the first, and without it nothing.
    """
    head = tl.program_id(0)
    rows = tl.arange(0, 2 * HALF)
    member = rows % HALF
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < head_dim
    present = (member < GROUP)[:, None] & inside[None, :]
    query = tl.load(query_ptr + (head * GROUP + member)[:, None] * head_dim + channels[None, :], present, 0.0)
    query = query.to(tl.float32) * scale
    pages = tl.program_id(1) * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
    visible = (pages < logical_pages) & (pages * PAGE_SIZE < tl.load(context_ptr))
    physical = tl.load(page_table_ptr + pages, visible, 0).to(tl.int64)
    summaries = (physical * kv_heads + head) * VECTORS
    mask = visible[:, None] & inside[None, :]
    scores = tl.zeros([2 * HALF, BLOCK_PAGES], tl.float32)
    for vector in tl.static_range(VECTORS):
        if SUMMARY == "bounds":
            # Every member of the group is there twice, once in either half.
            if vector == 0:
                function = tl.sum(tl.minimum(query, 0.0), 0) / (2 * GROUP)
            else:
                function = tl.sum(tl.maximum(query, 0.0), 0) / (2 * GROUP)
            functions = tl.where((member == 0)[:, None], function[None, :], 0.0)
        elif vector == 0:
            functions = query
        else:
            functions = tl.abs(query)
        summary = tl.load(summary_ptr + ((summaries + vector) * head_dim)[:, None] + channels[None, :], mask, 0)
        if SPLIT:
            rounded = functions.to(tl.float16)
            rest = (functions - rounded.to(tl.float32)).to(tl.float16)
            functions = tl.where((rows < HALF)[:, None], rounded, rest)
            products = tl.dot(functions, tl.trans(summary.to(tl.float16)))
        else:
            functions = tl.where((rows < HALF)[:, None], functions, 0.0)
            products = tl.dot(functions, tl.trans(summary.to(tl.float32)), input_precision="ieee")
        if INT8:
            products *= tl.load(summary_scale_ptr + summaries + vector, visible, 0.0)[None, :]
        scores += products
    scores = tl.sum(tl.reshape(scores, [2, HALF, BLOCK_PAGES]), 0)
    scores = tl.where(visible[None, :], scores, float("-inf"))
    score_rows = 1 if SUMMARY == "bounds" else GROUP
    row = tl.arange(0, HALF)[:, None]
    target = (head * score_rows + row).to(tl.int64) * logical_pages + pages[None, :]
    tl.store(score_ptr + target, scores, (row < score_rows) & (pages < logical_pages)[None, :])


def page_scores(
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`; 16-bit summaries must be within float16's range, as keys are.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or for another summary.
    """
    vectors = check_summary(summary)
    require_summaries(page_summaries, summary_scales, (None, None, vectors, None), FLOATING)
    kv_heads, head_dim = page_summaries.shape[1], page_summaries.shape[3]
    require(query, "query", (None, head_dim), FLOATING)
    require(page_table, "page_table", (None,), (torch.int32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(query, "query")
    group, rest = divmod(query.shape[0], kv_heads)
    if rest:
        raise ValueError(f"{query.shape[0]} query heads do not share {kv_heads} kv heads evenly")
    rows, logical_pages = 1 if summary == "bounds" else group, len(page_table)
    scores = torch.empty((kv_heads, rows, logical_pages), dtype=torch.float32, device=query.device)
    _page_scores_kernel[(kv_heads, triton.cdiv(logical_pages, BLOCK_PAGES))](
        query,
        page_summaries,
        page_summaries if summary_scales is None else summary_scales,
        page_table,
        context_tokens,
        scores,
        scale,
        logical_pages,
        kv_heads,
        head_dim,
        SUMMARY=summary,
        VECTORS=vectors,
        INT8=summary_scales is not None,
        SPLIT=page_summaries.dtype != torch.float32,
        GROUP=group,
        # Two halves make the 16 rows that tl.dot wants at least.
        HALF=max(8, triton.next_power_of_2(group)),
        PAGE_SIZE=page_size,
        BLOCK_PAGES=BLOCK_PAGES,
        BLOCK_DIM=max(16, triton.next_power_of_2(head_dim)),
        num_warps=4,
    )
    return scores
