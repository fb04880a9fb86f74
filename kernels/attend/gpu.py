"""Attention of one token over KV pages, selected or all, split over the multiprocessors.

Each program attends with all query heads of a group to a split of the pages of one kv head. The kernel does not know
why a page was selected.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.attend.gpu_split_softmax import (
    NUM_WARPS,
    AttentionShape,
    Splits,
    attend_tokens,
    empty_splits,
    finish_split,
    load_query,
    load_tokens,
    start_softmax,
)
from kernels.contract import CacheLayout, LayerCache, SelectedPages, SequenceView
from kernels.gpu_tools.cache_pointers import Pages, page_pointers
from kernels.gpu_tools.checks import (
    multiprocessors,
    require,
    require_cache,
    require_contiguous,
    require_query,
    require_sequence,
    shared_memory_bytes,
)
from kernels.gpu_tools.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu_tools.grid_barrier import uses_grid_barrier

# With larger heads or elements a large block would not fit the registers.
LARGE_BLOCK_MAX_DIM, LARGE_BLOCK_ELEMENT_BYTES = 128, 2


class Blocks(NamedTuple):
    """How attention is cut.

    Args:
        tokens: of a block.
        programs: on each multiprocessor at most; all blocks are divided among them.
        stages: of the pipeline that loads page indices, then keys and values.
    """

    tokens: int
    programs: int
    stages: int


# Measured on an H200. Larger blocks leave fewer partial softmaxes to combine, which takes longer than reading the
# selected pages. A long context is read fastest by one program a multiprocessor that loads a block ahead.
LARGE_BLOCKS = {"selected": Blocks(128, 2, 2), "dense": Blocks(128, 2, 2), "dense ahead": Blocks(128, 1, 5)}
SMALL_BLOCKS = {"selected": Blocks(64, 4, 2), "dense": Blocks(64, 2, 2)}
# Blocks of keys and values in shared memory when one is loaded ahead, and the bytes that a program needs beside them.
BLOCKS_AHEAD, OTHER_SHARED_BYTES = 2, 1 << 14
# Twice as many splits cost 4 us more than they save: 32 programs of 64 tokens against 16 of 128.
MOST_SELECTED_SPLITS = 16


class PageList(NamedTuple):
    """The pages that one kv head reads, split among its programs.

    Args:
        page_id_ptr: of the list; not read if all pages of the sequence are read in order.
        room: pages that the list has room for, by which it is split.
        page_count: how many of them are read.
        length_tokens: of the sequence.
        first_page: the sequence's first physical page.
    """

    page_id_ptr: tl.tensor
    room: tl.tensor
    page_count: tl.tensor
    length_tokens: tl.tensor
    first_page: tl.tensor


@triton.jit
def split_blocks(room, BLOCK_PAGES: tl.constexpr, SPLITS: tl.constexpr):
    """How many blocks a split of so many pages consists of."""
    return tl.cdiv(tl.cdiv(room, BLOCK_PAGES), SPLITS)


@triton.jit
def split_pages(split, room, BLOCK_PAGES: tl.constexpr, SPLITS: tl.constexpr):
    """The first page of a split, which consists of whole blocks, and the one after its last."""
    pages = split_blocks(room, BLOCK_PAGES, SPLITS) * BLOCK_PAGES
    first = split * pages
    return first, tl.minimum(first + pages, room)


@triton.jit
def attend_split(head, split, query, listed, pages, scale, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Attend with a group to a split of its pages.

    Args:
        query: as `load_query` returns it.
        listed: a `PageList`.
        pages: as `Pages`.

    Returns:
        a `PartialSoftmax`.
    """
    PAGE_SIZE: tl.constexpr = LAYOUT.page_size
    BLOCK_PAGES: tl.constexpr = SHAPE.block_tokens // PAGE_SIZE
    tokens = tl.arange(0, SHAPE.block_tokens)
    # Tokens that do not exist are replaced by one that always does, so that loads need no mask.
    first_row = (listed.first_page * LAYOUT.kv_heads + head) * PAGE_SIZE
    softmax = start_softmax(SHAPE)
    first, end = split_pages(split, listed.room, BLOCK_PAGES, SHAPE.splits)
    for page in tl.range(first, end, BLOCK_PAGES, num_stages=SHAPE.stages):
        indices = page + tokens // PAGE_SIZE
        slots = tokens % PAGE_SIZE
        if SHAPE.selected:
            # Past the L1 cache, which may not have what other multiprocessors wrote.
            logical = tl.load(listed.page_id_ptr + indices, indices < listed.room, 0, cache_modifier=".cg")
            visible = (indices < listed.page_count) & (logical * PAGE_SIZE + slots < listed.length_tokens)
        else:
            logical = indices
            visible = indices * PAGE_SIZE + slots < listed.length_tokens
        physical = tl.load(pages.table_ptr + logical, visible, 0)
        rows = tl.where(visible, (physical * LAYOUT.kv_heads + head) * PAGE_SIZE + slots, first_row)
        keys, values = load_tokens(rows, query.dtype, pages, LAYOUT, SHAPE)
        softmax = attend_tokens(softmax, query, keys, values, rows, visible[None, :], pages, scale, LAYOUT, SHAPE)
    return softmax


@triton.jit
def _attend_kernel(
    query_ptr,
    key_page_ptr,
    value_page_ptr,
    key_scale_ptr,
    value_scale_ptr,
    page_table_ptr,
    length_ptr,
    page_id_ptr,
    page_count_ptr,
    partial_ptr,
    highest_ptr,
    total_ptr,
    counter_ptr,
    attended_ptr,
    scale,
    budget_pages,
    LAYOUT: tl.constexpr,
    SHAPE: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program: one kv head, and its split of the head's page list or of the sequence."""
    pages = Pages(key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr)
    splits = Splits(partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr)
    wait_for_previous_kernel(DEPENDENT)
    head, split = tl.program_id(0), tl.program_id(1)
    length = tl.load(length_ptr)
    query = load_query(query_ptr, head, LAYOUT, SHAPE)
    if SHAPE.selected:
        # Split by the room of the list, since its count would take as long to load as the list itself.
        room, page_count = budget_pages, tl.load(page_count_ptr + head)
    else:
        # Split by the length of the sequence, so that no program is idle when the table is longer.
        page_count = tl.cdiv(length, LAYOUT.page_size)
        room = page_count
    listed = PageList(page_id_ptr + head * budget_pages, room, page_count, length, tl.load(page_table_ptr))
    softmax = attend_split(head, split, query, listed, pages, scale, LAYOUT, SHAPE)
    finish_split(head, split, softmax, splits, LAYOUT, SHAPE)


def sparse_decode_attention(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, selected: SelectedPages, scale: float
) -> torch.Tensor:
    """As `kernels.reference.naive_sparse_decode_attention`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    kv_heads = cache.layout.kv_heads
    require(selected.page_ids, "page_ids", (kv_heads, None), (torch.int32,))
    require(selected.page_counts, "page_counts", (kv_heads,), (torch.int32,))
    require_contiguous(selected.page_ids, "page_ids")
    require_attention(query, cache, sequence)
    return attend(query, cache, sequence, selected, scale)


def require_attention(query: torch.Tensor, cache: LayerCache, sequence: SequenceView) -> None:
    """Raise ValueError unless query, cache and sequence are what attention takes."""
    require_cache(cache)
    require_sequence(sequence)
    require_query(query, cache.layout)


def attend(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, selected: SelectedPages | None, scale: float
) -> torch.Tensor:
    """Attend to the `selected` pages or, without them, to the whole sequence; arguments have been checked."""
    layout = cache.layout
    query = query.contiguous()
    room = sequence.logical_pages if selected is None else selected.page_ids.shape[1]
    shape = plan_attention(selected is not None, room, query, layout)
    splits = empty_splits(query, layout.kv_heads, shape.splits)
    dependent = launches_dependently(query.device)
    _attend_kernel[(layout.kv_heads, shape.splits)](
        query,
        *page_pointers(cache),
        *sequence,
        *(sequence if selected is None else selected[:2]),
        *splits,
        scale,
        room,
        LAYOUT=layout,
        SHAPE=shape,
        DEPENDENT=dependent,
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return splits.attended_ptr


def plan_attention(selected: bool, room: int, query: torch.Tensor, layout: CacheLayout) -> AttentionShape:
    """How selected pages, or a sequence, are split among programs; `room` pages at most."""
    kv_heads, device = layout.kv_heads, query.device
    widened = layout.dtype.itemsize < query.element_size()
    blocks = choose_blocks(selected, layout.head_dim, query.element_size(), widened, shared_memory_bytes(device))
    block_tokens = max(blocks.tokens, layout.page_size)
    splits = triton.cdiv(room, block_tokens // layout.page_size)
    most_splits = max(1, multiprocessors(device) * blocks.programs // kv_heads)
    if selected:
        # Budgets differ a lot, but each number of splits is compiled for: a power of two.
        splits = triton.next_power_of_2(splits)
        most_splits = min(triton.next_power_of_2(most_splits + 1) // 2, MOST_SELECTED_SPLITS)
    splits = min(splits, most_splits)
    return AttentionShape(
        selected=selected,
        group=query.shape[0] // kv_heads,
        block_dim=max(16, triton.next_power_of_2(layout.head_dim)),
        block_tokens=block_tokens,
        splits=splits,
        stages=blocks.stages,
        grid_barrier=uses_grid_barrier((kv_heads, splits), device),
    )


def choose_blocks(selected: bool, head_dim: int, element_bytes: int, widened: bool, shared_bytes: int) -> Blocks:
    """The blocks that measured fastest, as far as registers and a program's shared memory suffice.

    Args:
        widened: whether pages hold 8-bit floats. Widening them takes so many instructions that several programs on a
            multiprocessor must hide each other's.
    """
    kind = "selected" if selected else "dense"
    if head_dim > LARGE_BLOCK_MAX_DIM or element_bytes > LARGE_BLOCK_ELEMENT_BYTES:
        return SMALL_BLOCKS[kind]
    ahead = LARGE_BLOCKS["dense ahead"]
    kept_bytes = BLOCKS_AHEAD * 2 * ahead.tokens * triton.next_power_of_2(head_dim) * element_bytes
    if not selected and not widened and kept_bytes + OTHER_SHARED_BYTES <= shared_bytes:
        return ahead
    return LARGE_BLOCKS[kind]
