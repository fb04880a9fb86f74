"""Attention of one token over KV pages, selected or all, split over the multiprocessors.

Each program attends with all query heads of a group to a share of the pages of one kv head. The kernel does not know
why a page was selected.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import (
    multiprocessors,
    require,
    require_contiguous,
    require_pages,
    shared_memory_bytes,
)
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu.float8 import as_codes
from kernels.gpu.meetings import programs_meet
from kernels.gpu.split_softmax import (
    NUM_WARPS,
    QUERY_ROWS,
    attend_tokens,
    finish_share,
    load_query,
    require_query,
    unfinished_softmaxes,
)
from kernels.reference import KvScales

# Beyond these a large block would not fit the registers.
LARGE_BLOCK_MAX_DIM, LARGE_BLOCK_ELEMENT_BYTES = 128, 2


class Blocks(NamedTuple):
    """How attention is cut.

    Args:
        tokens: of a block.
        programs: on each multiprocessor at most, which share all blocks.
        stages: of the pipeline that loads page numbers, then keys and values.
    """

    tokens: int
    programs: int
    stages: int


class Plan(NamedTuple):
    """How a kv head's tokens are shared.

    Args:
        block_tokens: that a program attends to at once.
        splits: programs a kv head.
        stages: of the pipeline that loads page numbers, then keys and values.
    """

    block_tokens: int
    splits: int
    stages: int


# Measured on an H200. With larger blocks fewer unfinished softmaxes are left to combine, which takes longer than
# reading what is selected. A long context is read fastest by one program a multiprocessor that loads a block ahead.
LARGE_BLOCKS = {"selected": Blocks(128, 2, 2), "dense": Blocks(128, 2, 2), "dense ahead": Blocks(128, 1, 5)}
SMALL_BLOCKS = {"selected": Blocks(64, 4, 2), "dense": Blocks(64, 2, 2)}
# Blocks of keys and values in shared memory when one is loaded ahead, and what else a program keeps there.
BLOCKS_AHEAD, OTHER_SHARED_BYTES = 2, 1 << 14
# Twice as many take 4 us longer to combine than they save: 32 programs of 64 tokens against 16 of 128.
MOST_SELECTED_SPLITS = 16


@triton.jit
def share_pages(split, list_pages, BLOCK_PAGES: tl.constexpr, SPLITS: tl.constexpr):
    """The first place of a share of a list of pages, which is whole blocks, and the one after its last."""
    split_pages = tl.cdiv(tl.cdiv(list_pages, BLOCK_PAGES), SPLITS) * BLOCK_PAGES
    first = split * split_pages
    return first, tl.minimum(first + split_pages, list_pages)


@triton.jit
def attend_share(
    head, split, list_pages, page_count, context, query, first_page_number,
    key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, page_id_ptr, scale,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    SELECTED: tl.constexpr, FLOAT8: tl.constexpr, QUERY_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr, NUM_STAGES: tl.constexpr,
):  # fmt: skip
    """Attend with a group to a share of its pages, listed from `page_id_ptr` on (SELECTED) or all of the context.

    Args:
        list_pages: of the list that is shared, of which `page_count` are read.
        query: as `load_query` returns it.
        first_page_number: the context's first physical page.
    """
    tokens = tl.arange(0, BLOCK_TOKENS)
    # A token that is always there stands for those that are not, so that loads need no mask.
    first_row = (first_page_number * KV_HEADS + head) * PAGE_SIZE
    highest = tl.full([QUERY_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([QUERY_ROWS], tl.float32)
    attended = tl.zeros([QUERY_ROWS, BLOCK_DIM], tl.float32)
    BLOCK_PAGES: tl.constexpr = BLOCK_TOKENS // PAGE_SIZE
    first_page, end_page = share_pages(split, list_pages, BLOCK_PAGES, SPLITS)
    for page in tl.range(first_page, end_page, BLOCK_PAGES, num_stages=NUM_STAGES):
        entries = page + tokens // PAGE_SIZE
        slots = tokens % PAGE_SIZE
        if SELECTED:
            # Past the L1 cache, which need not know what other multiprocessors wrote.
            logical = tl.load(page_id_ptr + entries, entries < list_pages, 0, cache_modifier=".cg")
            visible = (entries < page_count) & (logical * PAGE_SIZE + slots < context)
        else:
            logical = entries
            visible = entries * PAGE_SIZE + slots < context
        physical = tl.load(page_table_ptr + logical, visible, 0)
        kv_rows = tl.where(visible, (physical * KV_HEADS + head) * PAGE_SIZE + slots, first_row)
        highest, total, attended = attend_tokens(
            query, kv_rows, visible, highest, total, attended, key_page_ptr, value_page_ptr, key_scale_ptr,
            value_scale_ptr, scale, HEAD_DIM, FLOAT8, BLOCK_DIM,
        )  # fmt: skip
    return highest, total, attended


@triton.jit
def _attend_kernel(
    query_ptr, key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, page_id_ptr,
    page_count_ptr, context_ptr, partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr,
    scale, budget_pages,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    SELECTED: tl.constexpr, FLOAT8: tl.constexpr, QUERY_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr, NUM_STAGES: tl.constexpr, DEPENDENT: tl.constexpr,
    MEETS: tl.constexpr,
):  # fmt: skip
    """One program: one kv head, and its share of the head's page list (SELECTED) or of the context."""
    wait_for_previous_kernel(DEPENDENT)
    head, split = tl.program_id(0), tl.program_id(1)
    context = tl.load(context_ptr)
    query = load_query(query_ptr, head, GROUP, HEAD_DIM, QUERY_ROWS, BLOCK_DIM)
    if SELECTED:
        # Shares of what the list has room for, since the count takes as long to come as the list itself.
        list_pages, page_count = budget_pages, tl.load(page_count_ptr + head)
    else:
        # Shares of what there is, so that a table longer than the context idles nobody.
        page_count = tl.cdiv(context, PAGE_SIZE)
        list_pages = page_count
    highest, total, attended = attend_share(
        head, split, list_pages, page_count, context, query, tl.load(page_table_ptr),
        key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr,
        page_id_ptr + head * budget_pages, scale,
        KV_HEADS, HEAD_DIM, PAGE_SIZE, SELECTED, FLOAT8, QUERY_ROWS, BLOCK_TOKENS, BLOCK_DIM, SPLITS, NUM_STAGES,
    )  # fmt: skip
    finish_share(
        head, split, highest, total, attended, partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr,
        GROUP, HEAD_DIM, FLOAT8, QUERY_ROWS, BLOCK_DIM, SPLITS, MEETS,
    )  # fmt: skip


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
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    kv_heads = key_pages.shape[1]
    require(page_ids, "page_ids", (kv_heads, None), (torch.int32,))
    require(page_counts, "page_counts", (kv_heads,), (torch.int32,))
    require_contiguous(page_ids, "page_ids")
    return _attend(query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale, kv_scales)


def dense_decode_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    scale: float,
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_dense_decode_attention`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    return _attend(query, key_pages, value_pages, page_table, None, None, context_tokens, scale, kv_scales)


def _attend(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    page_ids: torch.Tensor | None,
    page_counts: torch.Tensor | None,
    context_tokens: torch.Tensor,
    scale: float,
    kv_scales: KvScales | None,
) -> torch.Tensor:
    kv_heads, page_size, head_dim = require_pages(key_pages, value_pages, page_table, kv_scales)
    group = require_query(query, key_pages, kv_scales)
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    query = query.contiguous()
    selected = page_ids is not None
    list_pages = page_ids.shape[1] if selected else len(page_table)
    plan = plan_splits(selected, list_pages, query, key_pages)
    block_dim = max(16, triton.next_power_of_2(head_dim))
    dependent = launches_dependently(query.device)
    attended = torch.empty_like(query)
    grid = (kv_heads, plan.splits)
    _attend_kernel[grid](
        query,
        as_codes(key_pages),
        as_codes(value_pages),
        *(kv_scales or (context_tokens, context_tokens)),
        page_table,
        page_ids if selected else page_table,
        page_counts if selected else context_tokens,
        context_tokens,
        *unfinished_softmaxes(kv_heads, plan.splits, group, head_dim, query.device),
        attended,
        scale,
        list_pages,
        GROUP=group,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        PAGE_SIZE=page_size,
        SELECTED=selected,
        FLOAT8=kv_scales is not None,
        QUERY_ROWS=QUERY_ROWS,
        BLOCK_TOKENS=plan.block_tokens,
        BLOCK_DIM=block_dim,
        SPLITS=plan.splits,
        NUM_STAGES=plan.stages,
        DEPENDENT=dependent,
        MEETS=programs_meet(grid, query.device),
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return attended


def plan_splits(selected: bool, list_pages: int, query: torch.Tensor, key_pages: torch.Tensor) -> Plan:
    """How a list of so many selected pages, or a context of so many, is shared among programs."""
    _, kv_heads, page_size, head_dim = key_pages.shape
    widened = key_pages.element_size() < query.element_size()
    blocks = choose_blocks(selected, head_dim, query.element_size(), widened, shared_memory_bytes(query.device))
    block_tokens = max(blocks.tokens, page_size)
    splits = triton.cdiv(list_pages, block_tokens // page_size)
    most_splits = max(1, multiprocessors(query.device) * blocks.programs // kv_heads)
    if selected:
        # Budgets are many: few different numbers of splits, since each is compiled for.
        splits = triton.next_power_of_2(splits)
        most_splits = min(triton.next_power_of_2(most_splits + 1) // 2, MOST_SELECTED_SPLITS)
    return Plan(block_tokens, min(splits, most_splits), blocks.stages)


def choose_blocks(selected: bool, head_dim: int, element_bytes: int, widened: bool, shared_bytes: int) -> Blocks:
    """What measured fastest of that for which registers and a program's shared memory suffice.

    Args:
        widened: pages hold 8-bit numbers, which take so many instructions that programs must hide each other's.
    """
    kind = "selected" if selected else "dense"
    if head_dim > LARGE_BLOCK_MAX_DIM or element_bytes > LARGE_BLOCK_ELEMENT_BYTES:
        return SMALL_BLOCKS[kind]
    ahead = LARGE_BLOCKS["dense ahead"]
    kept_bytes = BLOCKS_AHEAD * 2 * ahead.tokens * triton.next_power_of_2(head_dim) * element_bytes
    if not selected and not widened and kept_bytes + OTHER_SHARED_BYTES <= shared_bytes:
        return ahead
    return LARGE_BLOCKS[kind]
