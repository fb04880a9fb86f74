"""Score KV pages from their summaries; Numba."""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import as_array, compiled, require_summaries
from kernels.cpu.decode_attention import page_dots
from kernels.cpu.vectors import address_of
from kernels.reference import check_summary

BOUNDS, SPREAD, MEAN = 0, 1, 2
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
def score_pages(functions, page_summaries, summary_scales, page_table, first, end, cell, scores):
    """Write the scores of logical pages `first` to `end`.

    Args:
        functions: float32 [kv_heads, vectors, rows, head_dim], see `query_functions`.
        cell: float32 [vectors * rows] to work in.
        scores: [kv_heads, rows, logical_pages].
    """
    kv_heads, vectors, rows, head_dim = functions.shape
    page_bytes, head_bytes, vector_bytes = page_summaries.strides[:3]
    summaries, function_rows, products = address_of(page_summaries), address_of(functions), address_of(cell)
    function_bytes = 4 * rows * head_dim
    for logical in range(first, end):
        page = page_table[logical]
        for head in range(kv_heads):
            for v in range(vectors):
                page_dots(
                    page_summaries.dtype, summaries + page * page_bytes + head * head_bytes + v * vector_bytes, 1,
                    head_dim, function_rows + (head * vectors + v) * function_bytes, rows, 1, products + 4 * v * rows,
                )  # fmt: skip
            for row in range(rows):
                score = np.float32(0.0)
                for v in range(vectors):
                    # Numba compiles only the branch that the type of `summary_scales` leaves.
                    if summary_scales is None:
                        score += cell[v * rows + row]
                    else:
                        score += cell[v * rows + row] * summary_scales[page, head, v]
                scores[head, row, logical] = score


@compiled
def _page_scores(query, kind, scale, page_summaries, summary_scales, page_table, pages, scores):
    kv_heads, rows, _ = scores.shape
    group = len(query) // kv_heads
    functions = np.empty((kv_heads, page_summaries.shape[2], rows, query.shape[1]), np.float32)
    for head in range(kv_heads):
        query_functions(query[head * group : (head + 1) * group], kind, scale, functions[head])
    score_pages(
        functions, page_summaries, summary_scales, page_table, 0, pages, np.empty(rows * page_summaries.shape[2], np.float32), scores
    )
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
    require_summaries(page_summaries, summary_scales, check_summary(summary))
    kind, kv_heads = KINDS[summary], page_summaries.shape[1]
    rows = 1 if kind == BOUNDS else len(query) // kv_heads
    scores = torch.empty(kv_heads, rows, len(page_table))
    _page_scores(
        query.float().contiguous().numpy(),
        kind,
        np.float32(scale),
        as_array(page_summaries),
        None if summary_scales is None else summary_scales.numpy(),
        page_table.numpy(),
        -(-int(context_tokens) // page_size),
        scores.numpy(),
    )
    return scores
