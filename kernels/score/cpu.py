"""Score KV pages from their summaries; Numba."""

from __future__ import annotations

import numpy as np
import torch

from kernels.contract import LayerCache, SequenceView
from kernels.cpu_tools.arrays import BOUNDS, cache_arrays, sequence_arrays
from kernels.cpu_tools.checks import require_cache, require_query
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.page_loops import QueryVectors, SummaryRun, make_page_scores
from kernels.cpu_tools.vectors import address_of

_scores_1, _scores_2, _scores_3, _scores_4 = (make_page_scores(rows) for rows in (1, 2, 3, 4))


@compiled
def score_rows(kind, group):
    """Scores that a kv head's page gets."""
    return 1 if kind == BOUNDS else group


@compiled
def make_query_vectors(query, kind, scale, query_vectors):
    """What a kv head's summary vectors are multiplied with.

    Args:
        query: float32 [group, head_dim].
        query_vectors: [vectors, rows, head_dim], written.
    """
    group, head_dim = query.shape
    if kind == BOUNDS:
        weight = scale / np.float32(group)
        query_vectors[:] = 0.0
        for member in range(group):
            for d in range(head_dim):
                query_vectors[0, 0, d] += min(query[member, d], np.float32(0.0)) * weight
                query_vectors[1, 0, d] += max(query[member, d], np.float32(0.0)) * weight
        return
    for member in range(group):
        for d in range(head_dim):
            query_vectors[0, member, d] = query[member, d] * scale


@compiled
def score_pages(query_vectors, cache, page_table, first, end, scores):
    """Write the scores of logical pages `first` to `end` of a layer.

    Args:
        query_vectors: float32 [kv_heads, vectors, rows, head_dim], see `make_query_vectors`.
        scores: [kv_heads, rows, logical_pages].
    """
    kv_heads, vectors, rows, head_dim = query_vectors.shape
    page_bytes, head_bytes = cache.summaries.strides[:2]
    summaries, table = address_of(cache.summaries), address_of(page_table)
    has_scales, scales = cache.summary_scales.size > 0, address_of(cache.summary_scales)
    queries, out, stride = address_of(query_vectors), address_of(scores), scores.shape[2]
    for head in range(kv_heads):
        _score_head(
            cache.summaries.dtype,
            SummaryRun(
                summaries + head * head_bytes,
                page_bytes,
                scales + head * vectors * 4 if has_scales else 0,
                kv_heads * vectors * 4,
                table,
                first,
                end,
            ),
            QueryVectors(queries + head * vectors * rows * head_dim * 4, vectors, rows, head_dim),
            out + head * rows * stride * 4,
            stride,
        )


@compiled
def _score_head(dtype, run, queries, scores, stride):
    """As `make_page_scores`, for all rows."""
    address, vectors, rows, dims = queries
    for row in range(0, rows, 4):
        later, out = QueryVectors(address + row * dims * 4, vectors, rows, dims), scores + row * stride * 4
        left = rows - row
        if left >= 4:
            _scores_4(dtype, run, later, out, stride)
        elif left == 3:
            _scores_3(dtype, run, later, out, stride)
        elif left == 2:
            _scores_2(dtype, run, later, out, stride)
        else:
            _scores_1(dtype, run, later, out, stride)


@compiled
def _page_scores(query, cache, sequence, scale, scores):
    kv_heads, rows, _ = scores.shape
    group = len(query) // kv_heads
    page_size = cache.key_pages.shape[2]
    pages = (sequence.length_tokens + page_size - 1) // page_size
    query_vectors = np.empty((kv_heads, cache.summaries.shape[2], rows, query.shape[1]), np.float32)
    for head in range(kv_heads):
        make_query_vectors(query[head * group : (head + 1) * group], cache.kind, scale, query_vectors[head])
    score_pages(query_vectors, cache, sequence.page_table, 0, pages, scores)
    scores[:, :, pages:] = -np.inf


def page_scores(query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`.

    Raises:
        ValueError: for another dtype, device or layout.
    """
    require_query(query)
    require_cache(cache)
    arrays, kv_heads = cache_arrays(cache), cache.layout.kv_heads
    rows = score_rows.py_func(arrays.kind, len(query) // kv_heads)
    scores = torch.empty(kv_heads, rows, sequence.logical_pages)
    _page_scores(
        query.float().contiguous().numpy(), arrays, sequence_arrays(sequence), np.float32(scale), scores.numpy()
    )
    return scores
