"""Attention of one token over KV pages, selected or all; Numba, over float32, bfloat16 or float16 pages.

The pages are cut into parts of a fixed size, each with its own softmax, and the parts are merged in order: what comes
out does not depend on who computes which part. A kv head's pages are read once for all query heads of its group, and
asked for a few pages ahead: selected ones lie anywhere, where the processor does not foresee them.
"""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import as_array, compiled, refuse_kv_scales, require_pages, require_query
from kernels.cpu.exponentials import exponentiate
from kernels.cpu.vectors import address_of, largest_of, make_page_dots, make_weighted_sums, prefetch
from kernels.reference import KvScales

PART_TOKENS = 256
PAGES_AHEAD, LINE_BYTES = 4, 64

_dots_1, _dots_2, _dots_3, _dots_4 = (make_page_dots(rows) for rows in (1, 2, 3, 4))
_sums_1, _sums_2, _sums_3, _sums_4 = (make_weighted_sums(rows) for rows in (1, 2, 3, 4))


@compiled
def page_dots(dtype, vectors, count, dims, queries, rows, stride, products):
    """As `make_page_dots`, with any number of `rows`."""
    while rows >= 4:
        _dots_4(dtype, vectors, count, dims, queries, stride, products)
        queries += 16 * dims
        products += 16 * stride
        rows -= 4
    if rows == 3:
        _dots_3(dtype, vectors, count, dims, queries, stride, products)
    elif rows == 2:
        _dots_2(dtype, vectors, count, dims, queries, stride, products)
    elif rows == 1:
        _dots_1(dtype, vectors, count, dims, queries, stride, products)


@compiled
def _weighted_sums(dtype, vectors, count, dims, weights, stride, rows, sums):
    while rows >= 4:
        _sums_4(dtype, vectors, count, dims, weights, stride, sums)
        weights += 16 * stride
        sums += 16 * dims
        rows -= 4
    if rows == 3:
        _sums_3(dtype, vectors, count, dims, weights, stride, sums)
    elif rows == 2:
        _sums_2(dtype, vectors, count, dims, weights, stride, sums)
    elif rows == 1:
        _sums_1(dtype, vectors, count, dims, weights, stride, sums)


@compiled
def _prefetch_lines(address, length_bytes):
    for offset in range(0, length_bytes, LINE_BYTES):
        prefetch(address + offset)


@compiled
def attend_part(
    query, key_pages, value_pages, page_table, page_ids, first, end, head, context_tokens, scale, logits, maxima,
    totals, attended,
):  # fmt: skip
    """Attend with a group's queries to one part of a kv head's pages.

    Args:
        query: float32 [group, head_dim].
        page_ids: int32, the list of logical pages; empty for all.
        first, end: the part of the list.
        logits: float32 [group, PART_TOKENS] to work in.
        maxima, totals: [group], written: the largest logit, and the sum of the exponentials over it.
        attended: [group, head_dim], written: the values weighted by these exponentials.
    """
    group, head_dim = query.shape
    page_size = key_pages.shape[2]
    page_bytes, head_bytes = key_pages.strides[:2]
    listed = len(page_ids) > 0
    keys, values = address_of(key_pages) + head * head_bytes, address_of(value_pages) + head * head_bytes
    query_address, logits_address, attended_address = address_of(query), address_of(logits), address_of(attended)
    tokens = 0
    for index in range(first, end):
        ahead = index + PAGES_AHEAD
        if ahead < end:
            _prefetch_lines(keys + page_table[page_ids[ahead] if listed else ahead] * page_bytes, head_bytes)
        logical = page_ids[index] if listed else index
        count = min(page_size, context_tokens - logical * page_size)
        page_dots(
            key_pages.dtype, keys + page_table[logical] * page_bytes, count, head_dim, query_address, group,
            logits.shape[1], logits_address + tokens * 4,
        )  # fmt: skip
        tokens += count
    for member in range(group):
        for token in range(tokens):
            logits[member, token] *= scale
        highest = largest_of(logits_address + member * logits.shape[1] * 4, tokens)
        maxima[member] = highest
        totals[member] = exponentiate(logits[member, :tokens], highest, logits[member, :tokens])
    attended[:] = 0.0
    token = 0
    for index in range(first, end):
        ahead = index + PAGES_AHEAD
        if ahead < end:
            _prefetch_lines(values + page_table[page_ids[ahead] if listed else ahead] * page_bytes, head_bytes)
        logical = page_ids[index] if listed else index
        count = min(page_size, context_tokens - logical * page_size)
        _weighted_sums(
            value_pages.dtype, values + page_table[logical] * page_bytes, count, head_dim, logits_address + token * 4,
            logits.shape[1], group, attended_address,
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
    logits = np.empty((group, PART_TOKENS), np.float32)
    for head in range(kv_heads):
        parts = (page_counts[head] + part_pages - 1) // part_pages
        maxima, totals = np.empty((2, parts, group), np.float32)
        sums = np.empty((parts, group, head_dim), np.float32)
        for part in range(parts):
            attend_part(
                query[head * group : (head + 1) * group], key_pages, value_pages, page_table, page_ids[head],
                part * part_pages, min((part + 1) * part_pages, page_counts[head]), head, context_tokens, scale,
                logits, maxima[part], totals[part], sums[part],
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
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_sparse_decode_attention`.

    Raises:
        ValueError: for another dtype, device or layout, 8-bit pages, or pages of more tokens than a part.
    """
    refuse_kv_scales(kv_scales)
    require_query(query)
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
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_dense_decode_attention`; raises as `sparse_decode_attention`."""
    kv_heads, page_size = key_pages.shape[1:3]
    page_ids = torch.empty((kv_heads, 0), dtype=torch.int32)  # all
    page_counts = torch.full((kv_heads,), -(-int(context_tokens) // page_size), dtype=torch.int32)
    return sparse_decode_attention(
        query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale, kv_scales
    )
