"""Attention of one token over KV pages, selected or all, split over the multiprocessors.

Each program attends with all query heads of a group to a share of the pages of one kv head and leaves an unfinished
softmax; whichever program of a kv head finishes last combines them (flash-decoding; the online softmax is arXiv
2205.14135). The kernel does not know why a page was selected.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, multiprocessors, require, require_contiguous, require_pages
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu.float8 import WEIGHT_UNIT, as_codes, widen_codes
from kernels.reference import KvScales

# tl.dot wants at least 16 rows: a group's few query rows are padded, which the matrix units do for free.
QUERY_ROWS = 16
# With larger blocks fewer unfinished softmaxes are left to combine, which takes longer than reading what is selected.
BLOCK_TOKENS = {"large": 128, "small": 64}
# Beyond these a large block would not fit the registers.
LARGE_BLOCK_MAX_DIM, LARGE_BLOCK_ELEMENT_BYTES = 128, 2
# Enough programs that each multiprocessor has some to hide latency with.
PROGRAMS_PER_MULTIPROCESSOR = {"selected": 4, "dense": 2}
NUM_WARPS = {"selected": 4, "dense": 4}
NUM_STAGES = {"selected": 2, "dense": 2}
# Numbers of unfinished softmaxes that a program combines at once: 64 registers of 128 threads.
COMBINED_NUMBERS = 8192


@triton.jit
def attend_share(
    head, split, splits, page_count, context,
    query_ptr, key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, page_id_ptr,
    partial_ptr, highest_ptr, total_ptr,
    scale, kv_heads, head_dim,
    GROUP: tl.constexpr, PAGE_SIZE: tl.constexpr, SELECTED: tl.constexpr, FLOAT8: tl.constexpr,
    QUERY_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_DIM: tl.constexpr, NUM_STAGES: tl.constexpr,
):  # fmt: skip
    """Attend with a group to a share of its pages, listed from `page_id_ptr` on (SELECTED) or all of the context.

    Shares are whole blocks and follow the count on the device, so that a table longer than the context idles nobody.
    """
    rows = tl.arange(0, QUERY_ROWS)
    channels = tl.arange(0, BLOCK_DIM)
    tokens = tl.arange(0, BLOCK_TOKENS)
    inside = channels < head_dim
    in_group = (rows < GROUP)[:, None]
    query = tl.load(
        query_ptr + (head * GROUP + rows)[:, None] * head_dim + channels[None, :], in_group & inside[None, :], 0.0
    )
    highest = tl.full([QUERY_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([QUERY_ROWS], tl.float32)
    attended = tl.zeros([QUERY_ROWS, BLOCK_DIM], tl.float32)
    BLOCK_PAGES: tl.constexpr = BLOCK_TOKENS // PAGE_SIZE
    pages_per_split = tl.cdiv(tl.cdiv(page_count, BLOCK_PAGES), splits) * BLOCK_PAGES
    first_page = split * pages_per_split
    last_page = tl.minimum(first_page + pages_per_split, page_count)
    for page in tl.range(first_page, last_page, BLOCK_PAGES, num_stages=NUM_STAGES):
        entries = page + tokens // PAGE_SIZE
        listed = entries < last_page
        if SELECTED:
            # Past the L1 cache, which need not know what other multiprocessors wrote.
            logical = tl.load(page_id_ptr + entries, listed, 0, cache_modifier=".cg")
        else:
            logical = entries
        visible = listed & (logical * PAGE_SIZE + tokens % PAGE_SIZE < context)
        physical = tl.load(page_table_ptr + logical, visible, 0).to(tl.int64)
        entries = (physical * kv_heads + head) * PAGE_SIZE + tokens % PAGE_SIZE
        addresses = (entries * head_dim)[:, None] + channels[None, :]
        mask = visible[:, None] & inside[None, :]
        keys = widen_codes(tl.load(key_page_ptr + addresses, mask, 0.0), query.dtype)
        values = widen_codes(tl.load(value_page_ptr + addresses, mask, 0.0), query.dtype)
        logits = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
        if FLOAT8:
            logits *= tl.load(key_scale_ptr + entries, visible, 0.0)[None, :]
        logits = tl.where(visible[None, :], logits, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(logits, 1))
        # The first entry of a split is always visible, so that no row stays at -inf once it has seen a block.
        weights = tl.exp(logits - new_highest[:, None])
        decay = tl.exp(highest - new_highest)
        total = total * decay + tl.sum(weights, 1)
        if FLOAT8:
            weights *= tl.load(value_scale_ptr + entries, visible, 0.0)[None, :] * WEIGHT_UNIT
        attended = attended * decay[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        highest = new_highest
    if FLOAT8:
        attended *= 1.0 / WEIGHT_UNIT
    out = (head * splits + split) * GROUP + rows
    tl.store(partial_ptr + out[:, None] * head_dim + channels[None, :], attended, in_group & inside[None, :])
    tl.store(highest_ptr + out, highest, rows < GROUP)
    tl.store(total_ptr + out, total, rows < GROUP)


@triton.jit
def _attend_kernel(
    query_ptr, key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, page_id_ptr,
    page_count_ptr, context_ptr, partial_ptr, highest_ptr, total_ptr, finished_ptr, attended_ptr,
    scale, budget_pages, kv_heads, head_dim,
    GROUP: tl.constexpr, PAGE_SIZE: tl.constexpr, SELECTED: tl.constexpr, FLOAT8: tl.constexpr,
    QUERY_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_DIM: tl.constexpr, NUM_STAGES: tl.constexpr,
    GROUP_ROWS: tl.constexpr, COMBINED_SPLITS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program: one kv head, and its share of the head's page list (SELECTED) or of the context."""
    wait_for_previous_kernel(DEPENDENT)
    head, split = tl.program_id(0), tl.program_id(1)
    splits = tl.num_programs(1)
    context = tl.load(context_ptr)
    if SELECTED:
        page_count = tl.load(page_count_ptr + head)
    else:
        page_count = tl.cdiv(context, PAGE_SIZE)
    attend_share(
        head, split, splits, page_count, context, query_ptr, key_page_ptr, value_page_ptr, key_scale_ptr,
        value_scale_ptr, page_table_ptr, page_id_ptr + head * budget_pages, partial_ptr, highest_ptr, total_ptr,
        scale, kv_heads, head_dim,
        GROUP, PAGE_SIZE, SELECTED, FLOAT8, QUERY_ROWS, BLOCK_TOKENS, BLOCK_DIM, NUM_STAGES,
    )  # fmt: skip
    # All threads have stored before one of them counts this program in, and what others stored is seen once it is.
    tl.debug_barrier()
    finished = tl.atomic_add(finished_ptr + head, 1, sem="acq_rel", scope="gpu")
    if finished == splits - 1:
        tl.store(finished_ptr + head, 0)
        combine_splits(
            head, splits, partial_ptr, highest_ptr, total_ptr, attended_ptr, head_dim,
            GROUP, GROUP_ROWS, COMBINED_SPLITS, BLOCK_DIM,
        )  # fmt: skip


@triton.jit
def combine_splits(
    head, splits, partial_ptr, highest_ptr, total_ptr, attended_ptr, head_dim,
    GROUP: tl.constexpr, GROUP_ROWS: tl.constexpr, COMBINED_SPLITS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Finish the softmaxes of a group over all splits; splits without a page weigh nothing."""
    member = tl.arange(0, GROUP_ROWS)
    channels = tl.arange(0, BLOCK_DIM)
    in_group, inside = member < GROUP, channels < head_dim
    highest = tl.full([GROUP_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_ROWS], tl.float32)
    attended = tl.zeros([GROUP_ROWS, BLOCK_DIM], tl.float32)
    for first in range(0, splits, COMBINED_SPLITS):
        split = first + tl.arange(0, COMBINED_SPLITS)
        rows = (head * splits + split)[:, None] * GROUP + member[None, :]
        there = (split < splits)[:, None] & in_group[None, :]
        # Past the L1 cache, which need not know what other multiprocessors wrote.
        highs = tl.load(highest_ptr + rows, there, float("-inf"), cache_modifier=".cg")
        totals = tl.load(total_ptr + rows, there, 0.0, cache_modifier=".cg")
        partial = tl.load(
            partial_ptr + rows[:, :, None] * head_dim + channels[None, None, :],
            there[:, :, None] & inside[None, None, :], 0.0, cache_modifier=".cg",
        )  # fmt: skip
        # The first split always has a page, so that no member's highest is -inf alone.
        new_highest = tl.where(in_group, tl.maximum(highest, tl.max(highs, 0)), 0.0)
        weights = tl.exp(highs - new_highest[None, :])
        decay = tl.exp(highest - new_highest)
        total = total * decay + tl.sum(weights * totals, 0)
        attended = attended * decay[:, None] + tl.sum(partial * weights[:, :, None], 0)
        highest = new_highest
    target = attended_ptr + (head * GROUP + member)[:, None] * head_dim + channels[None, :]
    attended /= tl.where(in_group, total, 1.0)[:, None]
    tl.store(target, attended.to(attended_ptr.dtype.element_ty), in_group[:, None] & inside[None, :])


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
    kind = "selected" if selected else "dense"
    fits = head_dim <= LARGE_BLOCK_MAX_DIM and query.element_size() <= LARGE_BLOCK_ELEMENT_BYTES
    block_tokens = max(BLOCK_TOKENS["large" if fits else "small"], page_size)
    programs = multiprocessors(query.device) * PROGRAMS_PER_MULTIPROCESSOR[kind]
    splits = min(triton.cdiv(list_pages, block_tokens // page_size), max(1, programs // kv_heads))
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
        kv_heads,
        head_dim,
        GROUP=group,
        PAGE_SIZE=page_size,
        SELECTED=selected,
        FLOAT8=kv_scales is not None,
        QUERY_ROWS=QUERY_ROWS,
        BLOCK_TOKENS=block_tokens,
        BLOCK_DIM=block_dim,
        NUM_STAGES=NUM_STAGES[kind],
        GROUP_ROWS=group_rows,
        COMBINED_SPLITS=min(COMBINED_NUMBERS // (group_rows * block_dim), triton.next_power_of_2(splits)),
        DEPENDENT=dependent,
        num_warps=NUM_WARPS[kind],
        launch_pdl=dependent,
    )
    return attended


@lru_cache
def _finished_counts(kv_heads: int, device: torch.device) -> torch.Tensor:
    """Zeros, one a kv head, that the programs of a launch count up and the last one puts back; launches of one stream
    share them.
    """
    return torch.zeros(kv_heads, dtype=torch.int32, device=device)
