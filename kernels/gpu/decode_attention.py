"""Attention of one token over KV pages, selected or all, split over the multiprocessors.

Each program attends with all query heads of a group to a share of the pages of one kv head and leaves an unfinished
softmax; whichever program of a kv head finishes last combines them (flash-decoding; the online softmax is arXiv
2205.14135). The kernel does not know why a page was selected.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import (
    FLOATING,
    multiprocessors,
    require,
    require_contiguous,
    require_pages,
    shared_memory_bytes,
)
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu.float8 import WEIGHT_UNIT, as_codes, widen_codes, widen_values
from kernels.gpu.rows import load_rows
from kernels.reference import KvScales

# tl.dot wants at least 16 rows: a group's few query rows are padded, which the matrix units do for free.
QUERY_ROWS = 16
# Beyond these a large block would not fit the registers.
LARGE_BLOCK_MAX_DIM, LARGE_BLOCK_ELEMENT_BYTES = 128, 2
NUM_WARPS = 4


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


# Measured on an H200. With larger blocks fewer unfinished softmaxes are left to combine, which takes longer than
# reading what is selected. A long context is read fastest by one program a multiprocessor that loads a block ahead.
LARGE_BLOCKS = {"selected": Blocks(128, 2, 3), "dense": Blocks(128, 2, 2), "dense ahead": Blocks(128, 1, 5)}
SMALL_BLOCKS = {"selected": Blocks(64, 4, 2), "dense": Blocks(64, 2, 2)}
# Blocks of keys and values in shared memory when one is loaded ahead, and what else a program keeps there.
BLOCKS_AHEAD, OTHER_SHARED_BYTES = 2, 1 << 14
# Numbers of unfinished softmaxes that a program combines at once: 64 registers of 128 threads.
COMBINED_NUMBERS = 8192
# Twice as many take 4 us longer to combine than they save: 32 programs of 64 tokens against 16 of 128.
MOST_SELECTED_SPLITS = 16
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _attend_share(
    head, split, list_pages, page_count, context,
    query_ptr, key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, page_id_ptr,
    partial_ptr, highest_ptr, total_ptr, scale,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    SELECTED: tl.constexpr, FLOAT8: tl.constexpr, QUERY_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr, NUM_STAGES: tl.constexpr,
):  # fmt: skip
    """Attend with a group to a share of its pages, listed from `page_id_ptr` on (SELECTED) or all of the context.

    Shares are whole blocks of `list_pages`, of which `page_count` are read. Logits are kept in units of log 2.
    """
    rows = tl.arange(0, QUERY_ROWS)
    channels = tl.arange(0, BLOCK_DIM)
    tokens = tl.arange(0, BLOCK_TOKENS)
    inside = channels < HEAD_DIM
    in_group = (rows < GROUP)[:, None]
    query = tl.load(
        query_ptr + (head * GROUP + rows)[:, None] * HEAD_DIM + channels[None, :], in_group & inside[None, :], 0.0
    )
    # A token that is always there stands for those that are not, so that loads need no mask.
    first_logical = 0
    if SELECTED:
        first_logical = tl.load(page_id_ptr, cache_modifier=".cg")
    first_row = (tl.load(page_table_ptr + first_logical) * KV_HEADS + head) * PAGE_SIZE
    highest = tl.full([QUERY_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([QUERY_ROWS], tl.float32)
    attended = tl.zeros([QUERY_ROWS, BLOCK_DIM], tl.float32)
    BLOCK_PAGES: tl.constexpr = BLOCK_TOKENS // PAGE_SIZE
    pages_per_split = tl.cdiv(tl.cdiv(list_pages, BLOCK_PAGES), SPLITS) * BLOCK_PAGES
    first_page = split * pages_per_split
    for page in tl.range(
        first_page, tl.minimum(first_page + pages_per_split, list_pages), BLOCK_PAGES, num_stages=NUM_STAGES
    ):
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
        keys = widen_codes(load_rows(key_page_ptr, kv_rows, HEAD_DIM, BLOCK_DIM), query.dtype)
        values = widen_values(load_rows(value_page_ptr, kv_rows, HEAD_DIM, BLOCK_DIM), query.dtype)
        logits = tl.dot(query, tl.trans(keys), input_precision="ieee") * (scale * LOG2_E)
        if FLOAT8:
            logits *= tl.load(key_scale_ptr + kv_rows)[None, :]
        logits = tl.where(visible[None, :], logits, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(logits, 1))
        # Until a visible entry there is no logit to be above.
        above = tl.where(new_highest == float("-inf"), 0.0, new_highest)
        weights = tl.exp2(logits - above[:, None])
        decay = tl.exp2(highest - above)
        total = total * decay + tl.sum(weights, 1)
        if FLOAT8:
            weights *= tl.load(value_scale_ptr + kv_rows)[None, :] * WEIGHT_UNIT
        attended = attended * decay[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        highest = new_highest
    if FLOAT8:
        attended *= 1.0 / WEIGHT_UNIT
    out = (head * SPLITS + split) * GROUP + rows
    tl.store(partial_ptr + out[:, None] * HEAD_DIM + channels[None, :], attended, in_group & inside[None, :])
    tl.store(highest_ptr + out, highest, rows < GROUP)
    tl.store(total_ptr + out, total, rows < GROUP)


@triton.jit
def _attend_kernel(
    query_ptr, key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, page_id_ptr,
    page_count_ptr, context_ptr, partial_ptr, highest_ptr, total_ptr, finished_ptr, attended_ptr,
    scale, budget_pages,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    SELECTED: tl.constexpr, FLOAT8: tl.constexpr, QUERY_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr, NUM_STAGES: tl.constexpr,
    GROUP_ROWS: tl.constexpr, COMBINED_SPLITS: tl.constexpr, THREAD_CHANNELS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program: one kv head, and its share of the head's page list (SELECTED) or of the context."""
    wait_for_previous_kernel(DEPENDENT)
    head, split = tl.program_id(0), tl.program_id(1)
    context = tl.load(context_ptr)
    if SELECTED:
        # Shares of what the list has room for, since the count takes as long to come as the list itself.
        list_pages, page_count = budget_pages, tl.load(page_count_ptr + head)
    else:
        # Shares of what there is, so that a table longer than the context idles nobody.
        page_count = tl.cdiv(context, PAGE_SIZE)
        list_pages = page_count
    _attend_share(
        head, split, list_pages, page_count, context,
        query_ptr, key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr,
        page_id_ptr + head * budget_pages, partial_ptr, highest_ptr, total_ptr, scale,
        GROUP, KV_HEADS, HEAD_DIM, PAGE_SIZE, SELECTED, FLOAT8, QUERY_ROWS, BLOCK_TOKENS, BLOCK_DIM, SPLITS, NUM_STAGES,
    )  # fmt: skip
    # All threads have stored before one of them counts this program in, and what others stored is seen once it is.
    tl.debug_barrier()
    finished = tl.atomic_add(finished_ptr + head, 1, sem="acq_rel", scope="gpu")
    if finished == SPLITS - 1:
        tl.store(finished_ptr + head, 0)
        _combine_splits(
            head, partial_ptr, highest_ptr, total_ptr, attended_ptr,
            GROUP, HEAD_DIM, BLOCK_DIM, SPLITS, GROUP_ROWS, COMBINED_SPLITS, THREAD_CHANNELS,
        )  # fmt: skip


@triton.jit
def _combine_splits(
    head, partial_ptr, highest_ptr, total_ptr, attended_ptr,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
    GROUP_ROWS: tl.constexpr, COMBINED_SPLITS: tl.constexpr, THREAD_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Finish the softmaxes of a group over all splits; splits without a page weigh nothing."""
    # All is [splits, members, channels], and so few channels are a thread's that it sums over all splits by itself.
    member = tl.arange(0, GROUP_ROWS)[None, :, None]
    channels = tl.max_contiguous(tl.arange(0, BLOCK_DIM), THREAD_CHANNELS)[None, None, :]
    in_group, inside = member < GROUP, channels < HEAD_DIM
    highest = tl.full([1, GROUP_ROWS, 1], float("-inf"), tl.float32)
    total = tl.zeros([1, GROUP_ROWS, 1], tl.float32)
    attended = tl.zeros([1, GROUP_ROWS, BLOCK_DIM], tl.float32)
    for first in range(0, SPLITS, COMBINED_SPLITS):
        split = first + tl.arange(0, COMBINED_SPLITS)[:, None, None]
        rows = (head * SPLITS + split) * GROUP + member
        there = in_group & (split < SPLITS)
        # Past the L1 cache, which need not know what other multiprocessors wrote.
        highs = tl.load(highest_ptr + rows, there, float("-inf"), cache_modifier=".cg")
        totals = tl.load(total_ptr + rows, there, 0.0, cache_modifier=".cg")
        partial = tl.load(partial_ptr + rows * HEAD_DIM + channels, there & inside, 0.0, cache_modifier=".cg")
        # The first split always has a page, so that no member's highest is -inf alone.
        new_highest = tl.where(in_group, tl.maximum(highest, tl.max(highs, 0, keep_dims=True)), 0.0)
        weights = tl.exp2(highs - new_highest)
        decay = tl.exp2(highest - new_highest)
        total = total * decay + tl.sum(weights * totals, 0, keep_dims=True)
        attended = attended * decay + tl.sum(partial * weights, 0, keep_dims=True)
        highest = new_highest
    attended /= tl.where(in_group, total, 1.0)
    target = attended_ptr + (head * GROUP + member) * HEAD_DIM + channels
    tl.store(target, attended.to(attended_ptr.dtype.element_ty), in_group & inside)


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
    require(query, "query", (None, head_dim), (key_pages.dtype,) if kv_scales is None else FLOATING)
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    query = query.contiguous()
    group, rest = divmod(query.shape[0], kv_heads)
    if rest or group > QUERY_ROWS:
        raise ValueError(
            f"{query.shape[0]} query heads do not share {kv_heads} kv heads in groups of up to {QUERY_ROWS}"
        )
    selected = page_ids is not None
    list_pages = page_ids.shape[1] if selected else len(page_table)
    shared_bytes = shared_memory_bytes(query.device)
    blocks = choose_blocks(selected, head_dim, query.element_size(), shared_bytes)
    block_tokens = max(blocks.tokens, page_size)
    splits = triton.cdiv(list_pages, block_tokens // page_size)
    most_splits = max(1, multiprocessors(query.device) * blocks.programs // kv_heads)
    if selected:
        # Budgets are many: few different numbers of splits, since each is compiled for.
        splits = triton.next_power_of_2(splits)
        most_splits = min(triton.next_power_of_2(most_splits + 1) // 2, MOST_SELECTED_SPLITS)
    splits = min(splits, most_splits)
    block_dim = max(16, triton.next_power_of_2(head_dim))
    group_rows = triton.next_power_of_2(group)
    dependent = launches_dependently(query.device)
    partial = torch.empty((kv_heads, splits, group, head_dim), dtype=torch.float32, device=query.device)
    highest = torch.empty((kv_heads, splits, group), dtype=torch.float32, device=query.device)
    total = torch.empty_like(highest)
    attended = torch.empty_like(query)
    _attend_kernel[(kv_heads, splits)](
        query,
        as_codes(key_pages),
        as_codes(value_pages),
        *(kv_scales or (context_tokens, context_tokens)),
        page_table,
        page_ids if selected else page_table,
        page_counts if selected else context_tokens,
        context_tokens,
        partial,
        highest,
        total,
        _finished_counts(kv_heads, query.device),
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
        BLOCK_TOKENS=block_tokens,
        BLOCK_DIM=block_dim,
        SPLITS=splits,
        NUM_STAGES=blocks.stages,
        GROUP_ROWS=group_rows,
        COMBINED_SPLITS=min(COMBINED_NUMBERS // (group_rows * block_dim), triton.next_power_of_2(splits)),
        THREAD_CHANNELS=min(max(group_rows * block_dim // (32 * NUM_WARPS), 1), 4),
        DEPENDENT=dependent,
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return attended


def choose_blocks(selected: bool, head_dim: int, element_bytes: int, shared_bytes: int) -> Blocks:
    """What measured fastest of that for which registers and a program's shared memory suffice."""
    kind = "selected" if selected else "dense"
    if head_dim > LARGE_BLOCK_MAX_DIM or element_bytes > LARGE_BLOCK_ELEMENT_BYTES:
        return SMALL_BLOCKS[kind]
    ahead = LARGE_BLOCKS["dense ahead"]
    kept_bytes = BLOCKS_AHEAD * 2 * ahead.tokens * triton.next_power_of_2(head_dim) * element_bytes
    if not selected and kept_bytes + OTHER_SHARED_BYTES <= shared_bytes:
        return ahead
    return LARGE_BLOCKS[kind]


@lru_cache
def _finished_counts(kv_heads: int, device: torch.device) -> torch.Tensor:
    """Zeros, one a kv head, that the programs of a launch count up and the last one puts back; launches of one stream
    share them.
    """
    return torch.zeros(kv_heads, dtype=torch.int32, device=device)
