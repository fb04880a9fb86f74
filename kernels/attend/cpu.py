"""Attention of the last tokens over KV pages, selected or all; Numba, over float32, bfloat16 or float16 pages.

The pages are cut into splits of a fixed size, each with its own softmax, and these partial softmaxes are merged in
order, so that the result does not depend on which thread computes which. A kv head's pages are read once for all query
heads of its group, and for all tokens that attend to every page: what a token gets does not depend on how many others
there are, to the bit. Pages are prefetched a few ahead, since the processor cannot foresee where selected ones are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView
from kernels.cpu_tools.arrays import cache_arrays, sequence_arrays
from kernels.cpu_tools.checks import require_cache, require_query
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.emitted import AHEAD_BYTES, LINE_BYTES
from kernels.cpu_tools.exponentials import exponentiate
from kernels.cpu_tools.page_loops import make_page_dots, make_weighted_sums
from kernels.cpu_tools.tiles import (
    TILE_LANES,
    PageRun,
    make_tile_dots,
    make_tile_sums,
)
from kernels.cpu_tools.vectors import address_of, largest_of, load_integer, prefetch_lines
from kernels.select.cpu import choose_pages

SPLIT_TOKENS = 256

# Of a page that is not full, or whose vectors no tile fits.
_page_dots, _weighted_sums = make_page_dots(1), make_weighted_sums(1)
_tile_dots_1, _tile_dots_2, _tile_dots_3, _tile_dots_4, _tile_dots_6 = (make_tile_dots(n) for n in (1, 2, 3, 4, 6))
_tile_sums_1, _tile_sums_2, _tile_sums_3, _tile_sums_4, _tile_sums_6 = (make_tile_sums(n) for n in (1, 2, 3, 4, 6))


@compiled
def _tile_queries(queries):
    """How many of so many queries the next tile takes."""
    if queries >= 6 and queries != 7 and queries != 8:
        return 6
    return min(queries, 4) if queries != 5 else 3


@compiled
def _tile_dots(queries, dtype, run, inputs, dims, stride, products):
    """As `make_tile_dots`, with a number of queries that `_tile_queries` gives."""
    if queries == 6:
        _tile_dots_6(dtype, run, inputs, dims, stride, products)
    elif queries == 4:
        _tile_dots_4(dtype, run, inputs, dims, stride, products)
    elif queries == 3:
        _tile_dots_3(dtype, run, inputs, dims, stride, products)
    elif queries == 2:
        _tile_dots_2(dtype, run, inputs, dims, stride, products)
    else:
        _tile_dots_1(dtype, run, inputs, dims, stride, products)


@compiled
def _tile_sums(queries, dtype, run, dims, weights, stride, sums):
    """As `make_tile_sums`, with a number of queries that `_tile_queries` gives."""
    if queries == 6:
        _tile_sums_6(dtype, run, dims, weights, stride, sums)
    elif queries == 4:
        _tile_sums_4(dtype, run, dims, weights, stride, sums)
    elif queries == 3:
        _tile_sums_3(dtype, run, dims, weights, stride, sums)
    elif queries == 2:
        _tile_sums_2(dtype, run, dims, weights, stride, sums)
    else:
        _tile_sums_1(dtype, run, dims, weights, stride, sums)


@compiled
def _prefetch_first(run):
    """Prefetch what a loop over a `PageRun` does not."""
    for index in range(min(run.ahead, run.count)):
        page = run.vectors + load_integer(run.pages, index) * run.page_bytes
        prefetch_lines(page, run.lines * LINE_BYTES)


class Split(NamedTuple):
    """The pages of one kv head that are attended together.

    Args:
        page_ids: int32, the list of logical pages; empty for all.
        first, end: of that list.
        head: the kv head.
    """

    page_ids: np.ndarray
    first: int
    end: int
    head: int


class PartialSoftmax(NamedTuple):
    """Partial softmaxes: attention of one kv head's group over some splits.

    Args:
        maxima: float32 [..., group], the largest logit.
        totals: float32 [..., group], the sum of the exponentials over it.
        attended: float32 [..., group, head_dim], the values weighted by these exponentials.
    """

    maxima: np.ndarray
    totals: np.ndarray
    attended: np.ndarray


@compiled
def attend_split(query, rows, cache, sequence, split, scale, logits, partial):
    """Attend with a group's queries of the sequence's last tokens to one split of a layer's pages.

    Args:
        query: float32 [rows * group, head_dim]; each token's do not see the tokens after it.
        rows: how many tokens; one, if pages are listed.
        cache: `CacheArrays` of the layer; `sequence` with its length as an integer, the rows included.
        split: a `Split` of at most SPLIT_TOKENS tokens.
        logits: float32 [rows * group, SPLIT_TOKENS] to work in.
        partial: a `PartialSoftmax` of this split for all queries, written; of those that see nothing of it, one that
            adds nothing.
    """
    members, head_dim = query.shape
    group = members // rows
    key_pages, value_pages, page_table = cache.key_pages, cache.value_pages, sequence.page_table
    page_ids, first, end, head = split
    maxima, totals, attended = partial
    page_size = key_pages.shape[2]
    page_bytes, head_bytes = key_pages.strides[:2]
    keys, values = address_of(key_pages) + head * head_bytes, address_of(value_pages) + head * head_bytes
    query_address, logits_address, attended_address = address_of(query), address_of(logits), address_of(attended)
    stride, listed = logits.shape[1], len(page_ids) > 0
    physical, counts = np.empty(end - first, np.int32), np.empty(end - first, np.int32)
    tokens = tiled = 0
    for index in range(end - first):
        logical = page_ids[first + index] if listed else first + index
        physical[index] = page_table[logical]
        counts[index] = min(page_size, sequence.length_tokens - logical * page_size)
        tokens += counts[index]
        # Full pages are multiplied in tiles, up to one that is not.
        if tiled == index and counts[index] == page_size and head_dim % TILE_LANES == 0:
            tiled += 1
    pages, ahead, lines = address_of(physical), max(1, AHEAD_BYTES // head_bytes), head_bytes // LINE_BYTES
    run = PageRun(keys, page_bytes, pages, tiled, page_size, ahead, lines)
    _prefetch_first(run)
    member = 0
    while member < members:
        tile = _tile_queries(members - member)
        inputs, out = query_address + member * head_dim * 4, logits_address + member * stride * 4
        _tile_dots(tile, key_pages.dtype, run, inputs, head_dim, stride, out)
        member += tile
        run = PageRun(keys, page_bytes, pages, tiled, page_size, ahead, 0)
    token = tiled * page_size
    for index in range(tiled, end - first):
        for member in range(members):
            inputs, out = query_address + member * head_dim * 4, logits_address + (member * stride + token) * 4
            page = keys + physical[index] * page_bytes
            _page_dots(key_pages.dtype, page, counts[index], head_dim, inputs, stride, out)
        token += counts[index]
    run = PageRun(values, page_bytes, pages, tiled, page_size, ahead, lines)
    _prefetch_first(run)
    for member in range(members):
        hidden = rows - 1 - member // group
        visible = tokens
        if hidden > 0:
            visible = max(0, min(tokens, sequence.length_tokens - hidden - first * page_size))
        for token in range(visible):
            logits[member, token] *= scale
        highest = largest_of(logits_address + member * stride * 4, visible)
        maxima[member] = highest
        totals[member] = exponentiate(logits[member, :visible], highest, logits[member, :visible])
        for token in range(visible, tokens):
            logits[member, token] = 0.0
    attended[:] = 0.0
    member = 0
    while member < members:
        tile = _tile_queries(members - member)
        weights, sums = logits_address + member * stride * 4, attended_address + member * head_dim * 4
        _tile_sums(tile, value_pages.dtype, run, head_dim, weights, stride, sums)
        member += tile
        run = PageRun(values, page_bytes, pages, tiled, page_size, ahead, 0)
    token = tiled * page_size
    for index in range(tiled, end - first):
        for member in range(members):
            weights, sums = logits_address + (member * stride + token) * 4, attended_address + member * head_dim * 4
            page = values + physical[index] * page_bytes
            _weighted_sums(value_pages.dtype, page, counts[index], head_dim, weights, stride, sums)
        token += counts[index]


@compiled
def merge_splits(partials, splits, member, attended):
    """Merge what `attend_split` wrote of one query of a group.

    Args:
        partials: a `PartialSoftmax` of one kv head, [splits, ...]; the first `splits` are merged.
        attended: float32 [head_dim], written.
    """
    maxima, totals = partials.maxima[:splits, member], partials.totals[:splits, member]
    parts = partials.attended[:splits, member]
    highest = np.float32(-np.inf)
    for split in range(splits):
        highest = max(highest, maxima[split])
    attended[:] = 0.0
    total = np.float32(0.0)
    for split in range(splits):
        weight = np.exp(maxima[split] - highest)
        total += weight * totals[split]
        for d in range(len(attended)):
            attended[d] += weight * parts[split, d]
    inverse = np.float32(1.0) / total
    for d in range(len(attended)):
        attended[d] *= inverse


@compiled
def _attend(query, cache, sequence, page_ids, page_counts, scale, attended):
    kv_heads, page_size, head_dim = cache.key_pages.shape[1:]
    group = query.shape[0] // kv_heads
    split_pages = SPLIT_TOKENS // page_size
    logits = np.empty((group, SPLIT_TOKENS), np.float32)
    for head in range(kv_heads):
        count = page_counts[head]
        splits = (count + split_pages - 1) // split_pages
        partials = PartialSoftmax(
            np.empty((splits, group), np.float32),
            np.empty((splits, group), np.float32),
            np.empty((splits, group, head_dim), np.float32),
        )
        for index in range(splits):
            split = Split(page_ids[head], index * split_pages, min((index + 1) * split_pages, count), head)
            partial = PartialSoftmax(partials.maxima[index], partials.totals[index], partials.attended[index])
            queries = query[head * group : (head + 1) * group]
            attend_split(queries, 1, cache, sequence, split, scale, logits, partial)
        for member in range(group):
            merge_splits(partials, splits, member, attended[head * group + member])


def sparse_decode_attention(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, selected: SelectedPages, scale: float
) -> torch.Tensor:
    """As `kernels.reference.naive_sparse_decode_attention`.

    Raises:
        ValueError: for another dtype, device or layout, 8-bit pages, or pages of more tokens than a split.
    """
    require_query(query)
    require_cache(cache)
    require_splits(cache)
    attended = torch.empty(query.shape, dtype=torch.float32)
    _attend(
        query.float().contiguous().numpy(),
        cache_arrays(cache),
        sequence_arrays(sequence),
        selected.page_ids.numpy(),
        selected.page_counts.numpy(),
        np.float32(scale),
        attended.numpy(),
    )
    return attended.to(query.dtype)


def require_splits(cache: LayerCache) -> None:
    """Raises ValueError if a page has more tokens than a split."""
    if cache.layout.page_size > SPLIT_TOKENS:
        raise ValueError(f"a page must not have more than {SPLIT_TOKENS} tokens, got {cache.layout.page_size}")


def dense_decode_attention(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
) -> torch.Tensor:
    """As `kernels.reference.naive_dense_decode_attention`; raises as `sparse_decode_attention`."""
    if query.dim() == 3:
        views = (sequence.before_last(len(query) - 1 - row) for row in range(len(query)))
        rows = [dense_decode_attention(each, cache, view, scale) for each, view in zip(query, views, strict=True)]
        return torch.stack(rows)
    layout = cache.layout
    page_ids = torch.empty((layout.kv_heads, 0), dtype=torch.int32)  # all
    pages = -(-int(sequence.length_tokens) // layout.page_size)
    page_counts = torch.full((layout.kv_heads,), pages, dtype=torch.int32)
    return sparse_decode_attention(query, cache, sequence, SelectedPages(page_ids, page_counts), scale)


def choose_and_attend(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> tuple[torch.Tensor, SelectedPages]:
    """As `kernels.reference.naive_choose_and_attend`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for another dtype, device or layout.
    """
    selected = choose_pages(query, cache, sequence, budget, scale)
    return sparse_decode_attention(query, cache, sequence, selected, scale), selected
