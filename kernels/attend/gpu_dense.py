"""Attention of a sequence's last tokens to all of its pages: of one token, or of a few that are verified at once.

Keys and values are read once for all tokens, the *rows*. Each gets the bits that it gets alone, for it is attended with
as many queries at once, cut into splits by its own length, and combined as it is alone: a block of tokens that a query
does not see leaves its softmax as it is. Knows nothing of selected pages.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.attend.gpu import (
    BLOCKS_AHEAD,
    OTHER_SHARED_BYTES,
    attend,
    plan_attention,
    require_attention,
    split_blocks,
)
from kernels.attend.gpu_split_softmax import (
    NUM_WARPS,
    QUERY_ROWS,
    AttentionShape,
    PartialSoftmax,
    Splits,
    arrives_last,
    attend_tokens,
    combine_head,
    combine_part,
    empty_splits,
    load_tokens,
    start_softmax,
    store_softmax,
)
from kernels.contract import CacheLayout, LayerCache, SequenceView
from kernels.gpu_tools.cache_pointers import Pages, page_pointers
from kernels.gpu_tools.checks import MOST_GROUP, require_few_rows, shared_memory_bytes
from kernels.gpu_tools.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu_tools.grid_barrier import barrier_target, wait_at_barrier

# Of a pipeline that holds no block of keys and values ahead.
FLAT_STAGES = 2


@triton.jit
def _of_row(splits, row, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """The `Splits` of one row."""
    QUERIES: tl.constexpr = LAYOUT.kv_heads * SHAPE.group
    partials = row * (QUERIES * SHAPE.splits)
    return Splits(
        splits.partial_ptr + partials * LAYOUT.head_dim,
        splits.highest_ptr + partials,
        splits.total_ptr + partials,
        splits.counter_ptr,
        splits.attended_ptr + row * (QUERIES * LAYOUT.head_dim),
    )


@triton.jit
def _of_tile(softmaxes, TILE: tl.constexpr):
    """One of a tuple of `PartialSoftmax`; Triton 3.6 loses the names in a tuple that is in a tuple."""
    return PartialSoftmax(softmaxes[TILE][0], softmaxes[TILE][1], softmaxes[TILE][2])


@triton.jit
def _load_queries(query_ptr, head, queries, LAYOUT: tl.constexpr, SHAPE: tl.constexpr, ROWS: tl.constexpr):
    """Some `queries`, [QUERY_ROWS], of those that a kv head has in all rows; [QUERY_ROWS, block_dim], zero beyond."""
    channels = tl.arange(0, SHAPE.block_dim)[None, :]
    row, member = queries // SHAPE.group, queries % SHAPE.group
    index = (row * LAYOUT.kv_heads + head) * SHAPE.group + member
    inside = (queries < ROWS * SHAPE.group)[:, None] & (channels < LAYOUT.head_dim)
    return tl.load(query_ptr + index[:, None] * LAYOUT.head_dim + channels, inside, 0.0)


@triton.jit
def _attend_rows_kernel(
    query_ptr,
    key_page_ptr,
    value_page_ptr,
    key_scale_ptr,
    value_scale_ptr,
    page_table_ptr,
    length_ptr,
    partial_ptr,
    highest_ptr,
    total_ptr,
    counter_ptr,
    attended_ptr,
    scale,
    LAYOUT: tl.constexpr,
    SHAPE: tl.constexpr,
    ROWS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program: one kv head with its queries of all rows, QUERY_ROWS after QUERY_ROWS, and its split of the pages.

    Splits are whole blocks of pages, as many as the length asks for. The rows' lengths differ by less than a block, so
    that this number nearly always is the same for all rows. Where it is not, it differs by one: the split is then read
    twice, as the earlier rows have it and as the later ones have it.
    """
    PAGE_SIZE: tl.constexpr = LAYOUT.page_size
    BLOCK_PAGES: tl.constexpr = SHAPE.block_tokens // PAGE_SIZE
    TILES: tl.constexpr = (ROWS * SHAPE.group + QUERY_ROWS - 1) // QUERY_ROWS
    pages = Pages(key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr)
    splits = Splits(partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr)
    wait_for_previous_kernel(DEPENDENT)
    head, split = tl.program_id(0), tl.program_id(1)
    length = tl.load(length_ptr)
    first_length = length - ROWS + 1
    queries, softmaxes = (), ()
    for tile in tl.static_range(TILES):
        of_tile = tile * QUERY_ROWS + tl.arange(0, QUERY_ROWS)
        queries = queries + (_load_queries(query_ptr, head, of_tile, LAYOUT, SHAPE, ROWS),)
        softmaxes = softmaxes + (start_softmax(SHAPE),)
    tokens = tl.arange(0, SHAPE.block_tokens)
    # Tokens that do not exist are replaced by one that always does, so that loads need no mask.
    first_row = (tl.load(page_table_ptr) * LAYOUT.kv_heads + head) * PAGE_SIZE
    least_blocks = split_blocks(tl.cdiv(first_length, PAGE_SIZE), BLOCK_PAGES, SHAPE.splits)
    most_blocks = split_blocks(tl.cdiv(length, PAGE_SIZE), BLOCK_PAGES, SHAPE.splits)
    for blocks in range(least_blocks, most_blocks + 1):
        seen = ()
        for tile in tl.static_range(TILES):
            lengths = first_length + (tile * QUERY_ROWS + tl.arange(0, QUERY_ROWS)) // SHAPE.group
            cut_so = split_blocks(tl.cdiv(lengths, PAGE_SIZE), BLOCK_PAGES, SHAPE.splits) == blocks
            seen = seen + (tl.where(cut_so, lengths, 0),)
        first = split * blocks * BLOCK_PAGES
        end = tl.minimum(first + blocks * BLOCK_PAGES, tl.cdiv(length, PAGE_SIZE))
        for page in tl.range(first, end, BLOCK_PAGES, num_stages=SHAPE.stages):
            indices = page + tokens // PAGE_SIZE
            slots = tokens % PAGE_SIZE
            positions = indices * PAGE_SIZE + slots
            physical = tl.load(pages.table_ptr + indices, positions < length, 0)
            rows = tl.where(positions < length, (physical * LAYOUT.kv_heads + head) * PAGE_SIZE + slots, first_row)
            keys, values = load_tokens(rows, query_ptr.dtype.element_ty, pages, LAYOUT, SHAPE)
            attended = ()
            for tile in tl.static_range(TILES):
                visible = positions[None, :] < seen[tile][:, None]
                softmax = _of_tile(softmaxes, tile)
                attended = attended + (
                    attend_tokens(softmax, queries[tile], keys, values, rows, visible, pages, scale, LAYOUT, SHAPE),
                )
            softmaxes = attended
    counter_ptr += head
    if SHAPE.grid_barrier:
        target = barrier_target(counter_ptr, SHAPE.splits)
    for tile in tl.static_range(TILES):
        of_tile = tile * QUERY_ROWS + tl.arange(0, QUERY_ROWS)
        row_of_query, member = of_tile // SHAPE.group, of_tile % SHAPE.group
        out = ((row_of_query * LAYOUT.kv_heads + head) * SHAPE.splits + split) * SHAPE.group + member
        store_softmax(_of_tile(softmaxes, tile), out, of_tile < ROWS * SHAPE.group, splits, LAYOUT, SHAPE)
    if SHAPE.grid_barrier:
        wait_at_barrier(counter_ptr, target)
        for row in range(ROWS):
            combine_part(head, split, _of_row(splits, row, LAYOUT, SHAPE), LAYOUT, SHAPE)
    elif arrives_last(counter_ptr, SHAPE):
        for row in range(ROWS):
            combine_head(head, _of_row(splits, row, LAYOUT, SHAPE), LAYOUT, SHAPE)


def _plan_rows(query: torch.Tensor, layout: CacheLayout, room: int) -> AttentionShape | None:
    """The plan for a single row, as other splits would give other bits, with a pipeline that the memory suffices for.

    Returns:
        None if it suffices for none: beside keys and values a program holds the queries of all rows.
    """
    shape, element_bytes = plan_attention(False, room, query[0], layout), query.element_size()
    tiles = triton.cdiv(query.shape[0] * shape.group, MOST_GROUP)
    other_bytes = OTHER_SHARED_BYTES + (tiles - 1) * MOST_GROUP * shape.block_dim * element_bytes
    block_bytes = 2 * shape.block_tokens * shape.block_dim * element_bytes
    shared_bytes = shared_memory_bytes(query.device)
    if BLOCKS_AHEAD * block_bytes + other_bytes <= shared_bytes:
        return shape
    return shape._replace(stages=FLAT_STAGES) if block_bytes + other_bytes <= shared_bytes else None


def dense_decode_attention(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
) -> torch.Tensor:
    """As `kernels.reference.naive_dense_decode_attention`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or for more than FEW_ROWS rows.
    """
    if query.dim() != 3:
        require_attention(query, cache, sequence)
        return attend(query, cache, sequence, None, scale)
    rows = require_few_rows(query, "query")
    require_attention(query[0], cache, sequence)
    if rows == 1:
        return attend(query[0], cache, sequence, None, scale).unsqueeze(0)
    layout = cache.layout
    query = query.contiguous()
    shape = _plan_rows(query, layout, sequence.logical_pages)
    if shape is None:
        views = (sequence.before_last(rows - 1 - row) for row in range(rows))
        return torch.stack([attend(each, cache, view, None, scale) for each, view in zip(query, views, strict=True)])
    splits = empty_splits(query, layout.kv_heads, shape.splits)
    dependent = launches_dependently(query.device)
    _attend_rows_kernel[(layout.kv_heads, shape.splits)](
        query,
        *page_pointers(cache),
        *sequence,
        *splits,
        scale,
        LAYOUT=layout,
        SHAPE=shape,
        ROWS=rows,
        DEPENDENT=dependent,
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return splits.attended_ptr
