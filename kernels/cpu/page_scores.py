"""Score KV pages from their summaries; Numba."""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import as_array, compiled, require_query, require_summaries, scales_array
from kernels.cpu.vectors import address_of, make_page_scores
from kernels.reference import check_summary

BOUNDS, SPREAD, MEAN = 0, 1, 2
_scores_1, _scores_2, _scores_3, _scores_4 = (make_page_scores(rows) for rows in (1, 2, 3, 4))
KINDS = {"bounds": BOUNDS, "spread": SPREAD, "mean": MEAN}


@compiled
def score_rows(kind, group):
    """Scores that a kv head's page gets."""
    return 1 if kind == BOUNDS else group


@compiled
def query_functions(query, kind, scale, functions):
    """What a kv head's summary vectors are dotted with.

    Args:
        query: float32 [group, head_dim].
        functions: [vectors, rows, head_dim], written.
    """
    group, head_dim = query.shape
    if kind == BOUNDS:
        weight = scale / np.float32(group)
        functions[:] = 0.0
        for member in range(group):
            for d in range(head_dim):
                functions[0, 0, d] += min(query[member, d], np.float32(0.0)) * weight
                functions[1, 0, d] += max(query[member, d], np.float32(0.0)) * weight
        return
    for member in range(group):
        for d in range(head_dim):
            functions[0, member, d] = query[member, d] * scale
            if kind == SPREAD:
                functions[1, member, d] = abs(query[member, d]) * scale


@compiled
def score_pages(functions, page_summaries, summary_scales, page_table, first, end, scores):
    """Write the scores of logical pages `first` to `end`.

    Args:
        functions: float32 [kv_heads, vectors, rows, head_dim], see `query_functions`.
        scores: [kv_heads, rows, logical_pages].
    """
    kv_heads, vectors, rows, head_dim = functions.shape
    page_bytes, head_bytes = page_summaries.strides[:2]
    scales = address_of(summary_scales) if summary_scales.size > 0 else 0
    for head in range(kv_heads):
        _score_head(
            page_summaries.dtype, address_of(page_summaries) + head * head_bytes, page_bytes,
            scales + head * vectors * 4 if scales else 0, kv_heads * vectors * 4, address_of(page_table), first, end,
            vectors, head_dim, address_of(functions) + head * vectors * rows * head_dim * 4, rows,
            address_of(scores) + head * rows * scores.shape[2] * 4, scores.shape[2],
        )  # fmt: skip


@compiled
def _score_head(
    dtype, summaries, page_bytes, scales, scale_bytes, table, first, end, vectors, dims, functions, rows, scores, stride
):
    row = 0
    while row < rows:
        left = rows - row
        queries, out = functions + row * dims * 4, scores + row * stride * 4
        if left >= 4:
            _scores_4(
                dtype, summaries, page_bytes, scales, scale_bytes, table, first, end, vectors, dims, queries, rows, out,
                stride,
            )  # fmt: skip
        elif left == 3:
            _scores_3(
                dtype, summaries, page_bytes, scales, scale_bytes, table, first, end, vectors, dims, queries, rows, out,
                stride,
            )  # fmt: skip
        elif left == 2:
            _scores_2(
                dtype, summaries, page_bytes, scales, scale_bytes, table, first, end, vectors, dims, queries, rows, out,
                stride,
            )  # fmt: skip
        else:
            _scores_1(
                dtype, summaries, page_bytes, scales, scale_bytes, table, first, end, vectors, dims, queries, rows, out,
                stride,
            )  # fmt: skip
        row += 4


@compiled
def _page_scores(query, kind, scale, page_summaries, summary_scales, page_table, pages, scores):
    kv_heads, rows, _ = scores.shape
    group = len(query) // kv_heads
    functions = np.empty((kv_heads, page_summaries.shape[2], rows, query.shape[1]), np.float32)
    for head in range(kv_heads):
        query_functions(query[head * group : (head + 1) * group], kind, scale, functions[head])
    score_pages(functions, page_summaries, summary_scales, page_table, 0, pages, scores)
    scores[:, :, pages:] = -np.inf


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
    """As `kernels.reference.naive_page_scores`.

    Raises:
        ValueError: for another dtype, device, layout or summary.
    """
    require_query(query)
    require_summaries(page_summaries, summary_scales, check_summary(summary))
    kind, kv_heads = KINDS[summary], page_summaries.shape[1]
    rows = 1 if kind == BOUNDS else len(query) // kv_heads
    scores = torch.empty(kv_heads, rows, len(page_table))
    _page_scores(
        query.float().contiguous().numpy(),
        kind,
        np.float32(scale),
        as_array(page_summaries),
        scales_array(summary_scales),
        page_table.numpy(),
        -(-int(context_tokens) // page_size),
        scores.numpy(),
    )
    return scores
