"""Attention of one token over KV pages, selected or all; Numba, over float32, bfloat16 or float16 pages.

The pages are cut into parts of a fixed size, each with its own softmax, and the parts are merged in order: what comes
out does not depend on who computes which part. A kv head's pages are read once for all query heads of its group, and
asked for a few pages ahead: selected ones lie anywhere, where the processor does not foresee them.
"""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import as_array, compiled, require_pages
from kernels.cpu.exponentials import exponentiate
from kernels.cpu.vectors import make_page_dots, make_weighted_sums, prefetch

PART_TOKENS = 256
PAGES_AHEAD, LINE_BYTES = 4, 64

_dots_1, _dots_2, _dots_3, _dots_4 = (make_page_dots(rows) for rows in (1, 2, 3, 4))
_sums_1, _sums_2, _sums_3, _sums_4 = (make_weighted_sums(rows) for rows in (1, 2, 3, 4))


@compiled
def page_dots(store, vector, queries, dims, rows, out):
    """As `make_page_dots`, with any number of `rows`."""
    while rows >= 4:
        _dots_4(store, vector, queries, dims, out)
        queries += 16 * dims
        out += 16
        rows -= 4
    if rows == 3:
        _dots_3(store, vector, queries, dims, out)
    elif rows == 2:
        _dots_2(store, vector, queries, dims, out)
    elif rows == 1:
        _dots_1(store, vector, queries, dims, out)


@compiled
def _weighted_sums(store, vectors, count, dims, weights, stride, rows, sums):
    while rows >= 4:
        _sums_4(store, vectors, count, dims, weights, stride, sums)
        weights += 16 * stride
        sums += 16 * dims
        rows -= 4
    if rows == 3:
        _sums_3(store, vectors, count, dims, weights, stride, sums)
    elif rows == 2:
        _sums_2(store, vectors, count, dims, weights, stride, sums)
    elif rows == 1:
        _sums_1(store, vectors, count, dims, weights, stride, sums)


@compiled
def _page_address(store, page_table, page_ids, index, head):
    """Of a kv head's vectors in the page at `index` of the list; an empty list is that of all pages."""
    logical = page_ids[index] if len(page_ids) > 0 else index
    return store.ctypes.data + (np.int64(page_table[logical]) * store.shape[1] + head) * store.strides[1]


@compiled
def _prefetch_page(store, page_table, page_ids, index, end, head):
    if index < end:
        address = _page_address(store, page_table, page_ids, index, head)
        for offset in range(0, store.strides[1], LINE_BYTES):
            prefetch(address + offset)


@compiled
def attend_part(
    query, key_pages, value_pages, page_table, page_ids, first, end, head, context_tokens, scale, logits, cell, maxima,
    totals, attended,
):  # fmt: skip
    """Attend with a group's queries to one part of a kv head's pages.

    Args:
        query: float32 [group, head_dim].
        page_ids: int32, the list of logical pages; empty for all.
        first, end: the part of the list.
        logits: float32 [group, PART_TOKENS] to work in; `cell` float32 [group].
        maxima, totals: [group], written: the largest logit, and the sum of the exponentials over it.
        attended: [group, head_dim], written: the values weighted by these exponentials.
    """
    group, head_dim = query.shape
    page_size = key_pages.shape[2]
    vector_bytes = key_pages.strides[2]
    tokens = 0
    for index in range(first, end):
        _prefetch_page(key_pages, page_table, page_ids, index + PAGES_AHEAD, end, head)
        logical = page_ids[index] if len(page_ids) > 0 else index
        keys = _page_address(key_pages, page_table, page_ids, index, head)
        for slot in range(min(page_size, context_tokens - logical * page_size)):
            page_dots(
                key_pages, keys + slot * vector_bytes, query.ctypes.data, head_dim, group, cell.ctypes.data
            )
            for member in range(group):
                logits[member, tokens] = cell[member] * scale
            tokens += 1
    for member in range(group):
        highest = np.float32(-np.inf)
        for token in range(tokens):
            highest = max(highest, logits[member, token])
        maxima[member] = highest
        totals[member] = exponentiate(logits[member, :tokens], highest, logits[member, :tokens])
    attended[:] = 0.0
    token = 0
    for index in range(first, end):
        _prefetch_page(value_pages, page_table, page_ids, index + PAGES_AHEAD, end, head)
        logical = page_ids[index] if len(page_ids) > 0 else index
        values = _page_address(value_pages, page_table, page_ids, index, head)
        count = min(page_size, context_tokens - logical * page_size)
        _weighted_sums(
            value_pages, values, count, head_dim, logits.ctypes.data + token * 4, logits.shape[1], group,
            attended.ctypes.data,
        )  # fmt: skip
        token += count


@compiled
def merge_parts(maxima, totals, parts, attended):
    """Merge what `attend_part` wrote of one query: maxima and totals [parts], parts [parts, head_dim]."""
    highest = np.float32(-np.inf)
    for part in range(len(maxima)):
        highest = max(highest, maxima[part])
    attended[:] = 0.0
    total = np.float32(0.0)
    for part in range(len(maxima)):
        weight = np.exp(maxima[part] - highest)
        total += weight * totals[part]
        for d in range(len(attended)):
            attended[d] += weight * parts[part, d]
    inverse = np.float32(1.0) / total
    for d in range(len(attended)):
        attended[d] *= inverse


@compiled
def _attend(query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale, attended):
    kv_heads, page_size, head_dim = key_pages.shape[1:]
    group = query.shape[0] // kv_heads
    part_pages = PART_TOKENS // page_size
    logits, cell = np.empty((group, PART_TOKENS), np.float32), np.empty(group, np.float32)
    for head in range(kv_heads):
        parts = (page_counts[head] + part_pages - 1) // part_pages
        maxima, totals = np.empty((2, parts, group), np.float32)
        sums = np.empty((parts, group, head_dim), np.float32)
        for part in range(parts):
            attend_part(
                query[head * group : (head + 1) * group], key_pages, value_pages, page_table, page_ids[head],
                part * part_pages, min((part + 1) * part_pages, page_counts[head]), head, context_tokens, scale,
                logits, cell, maxima[part], totals[part], sums[part],
            )  # fmt: skip
        for member in range(group):
            merge_parts(maxima[:, member], totals[:, member], sums[:, member], attended[head * group + member])


def sparse_decode_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    page_ids: torch.Tensor,
    page_counts: torch.Tensor,
    context_tokens: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """As `kernels.reference.naive_sparse_decode_attention`.

    Raises:
        ValueError: for another dtype, device or layout, or pages of more tokens than a part.
    """
    require_pages(key_pages=key_pages, value_pages=value_pages)
    if key_pages.shape[2] > PART_TOKENS:
        raise ValueError(f"a page must not have more than {PART_TOKENS} tokens, got {key_pages.shape[2]}")
    attended = torch.empty(query.shape, dtype=torch.float32)
    _attend(
        query.float().contiguous().numpy(),
        as_array(key_pages),
        as_array(value_pages),
        page_table.numpy(),
        page_ids.numpy(),
        page_counts.numpy(),
        int(context_tokens),
        np.float32(scale),
        attended.numpy(),
    )
    return attended.to(query.dtype)


def dense_decode_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """As `kernels.reference.naive_dense_decode_attention`; raises as `sparse_decode_attention`."""
    kv_heads, page_size = key_pages.shape[1:3]
    page_ids = torch.empty((kv_heads, 0), dtype=torch.int32)  # all
    page_counts = torch.full((kv_heads,), -(-int(context_tokens) // page_size), dtype=torch.int32)
    return sparse_decode_attention(
        query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale
    )
