"""Write new keys and values into KV pages and refresh the summaries of the pages they touch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require, require_pages, require_summaries
from kernels.gpu.float8 import as_codes, load_vectors, store_vectors
from kernels.gpu.page_summaries import (
    load_earlier_summaries,
    store_summary,
    summarise_keys,
    summarise_superpage,
)
from kernels.reference import KvScales, check_levels, check_summary


@triton.jit
def _append_keys_values_kernel(
    key_ptr, value_ptr, key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr,
    summary_ptr, summary_scale_ptr, page_table_ptr, start_ptr,
    new_tokens, key_token_stride, key_head_stride, value_token_stride, value_head_stride,
    kv_heads, head_dim,
    SUMMARY: tl.constexpr, VECTORS: tl.constexpr, INT8: tl.constexpr, LEVELS: tl.constexpr, FLOAT8: tl.constexpr,
    PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One program fills one page of one kv head: stores its new tokens, and summarises all its keys, old and new."""
    head = tl.program_id(0)
    start = tl.load(start_ptr)
    end = start + new_tokens
    logical = start // PAGE_SIZE + tl.program_id(1)
    # The grid has room for one page more than an aligned start touches.
    if logical * PAGE_SIZE >= end:
        return
    page = tl.load(page_table_ptr + logical).to(tl.int64)
    slots = tl.arange(0, PAGE_SIZE)[:, None]
    channels = tl.arange(0, BLOCK_DIM)[None, :]
    tokens = logical * PAGE_SIZE + slots
    inside = channels < head_dim
    is_new, is_old = (tokens >= start) & (tokens < end), tokens < start
    source = (tokens - start).to(tl.int64)
    keys = tl.load(key_ptr + source * key_token_stride + head * key_head_stride + channels, is_new & inside, 0.0)
    values = tl.load(
        value_ptr + source * value_token_stride + head * value_head_stride + channels, is_new & inside, 0.0
    )
    entries = (page * kv_heads + head) * PAGE_SIZE + slots
    old_keys = load_vectors(key_page_ptr, key_scale_ptr, entries, is_old, channels, head_dim, FLOAT8)
    new_keys = store_vectors(
        key_page_ptr, key_scale_ptr, keys.to(tl.float32), entries, is_new, channels, head_dim, FLOAT8
    )
    store_vectors(
        value_page_ptr, value_scale_ptr, values.to(tl.float32), entries, is_new, channels, head_dim, FLOAT8
    )
    page_keys = tl.where(is_new, new_keys, old_keys)
    tokens_in_page = tl.minimum(end - logical * PAGE_SIZE, PAGE_SIZE)
    for vector in tl.static_range(VECTORS):
        summary = summarise_keys(page_keys, (is_new | is_old) & inside, tokens_in_page, vector, SUMMARY)
        store_summary(
            summary, summary_ptr, summary_scale_ptr, (page * kv_heads + head) * (LEVELS * VECTORS) + vector, head_dim,
            vector, SUMMARY, INT8, BLOCK_DIM,
        )  # fmt: skip


@triton.jit
def _summarise_superpages_kernel(
    summary_ptr, summary_scale_ptr, page_table_ptr, start_ptr, new_tokens, kv_heads, head_dim,
    SUMMARY: tl.constexpr, VECTORS: tl.constexpr, INT8: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One program brings up to date what one touched page of one kv head says of its superpage."""
    head = tl.program_id(0)
    start = tl.load(start_ptr)
    end = start + new_tokens
    logical = start // PAGE_SIZE + tl.program_id(1)
    if logical * PAGE_SIZE >= end:
        return
    page_of_head = tl.load(page_table_ptr + logical).to(tl.int64) * kv_heads + head
    tokens_in_page = tl.minimum(end - logical * PAGE_SIZE, PAGE_SIZE)
    columns = tl.arange(0, BLOCK_DIM)
    for vector in tl.static_range(VECTORS):
        row = page_of_head * (2 * VECTORS) + vector
        own = tl.load(summary_ptr + row * head_dim + columns, columns < head_dim, 0).to(tl.float32)
        if INT8:
            own *= tl.load(summary_scale_ptr + row)
        earlier = load_earlier_summaries(
            logical, head, vector, summary_ptr, summary_scale_ptr, page_table_ptr, kv_heads, head_dim,
            VECTORS, INT8, BLOCK_DIM,
        )  # fmt: skip
        summary = summarise_superpage(own, earlier, logical, tokens_in_page, vector, SUMMARY, PAGE_SIZE)
        store_summary(
            summary, summary_ptr, summary_scale_ptr, row + VECTORS, head_dim, vector, SUMMARY, INT8, BLOCK_DIM
        )


def append_keys_values(
    keys: torch.Tensor,
    values: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    start_token: torch.Tensor,
    summary: str,
    summary_scales: torch.Tensor | None = None,
    kv_scales: KvScales | None = None,
) -> None:
    """As `kernels.reference.naive_append_keys_values`; keys, values and floating pages of one dtype.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or for another summary.
    """
    kv_heads, page_size, head_dim = require_pages(key_pages, value_pages, page_table, kv_scales)
    dtypes = (key_pages.dtype,) if kv_scales is None else FLOATING
    require(keys, "keys", (None, kv_heads, head_dim), dtypes)
    require(values, "values", tuple(keys.shape), (keys.dtype,))
    vectors, levels = check_summary(summary), check_levels(page_summaries, summary)
    shape = (key_pages.shape[0], kv_heads, None, head_dim)
    require_summaries(page_summaries, summary_scales, shape, dtypes)
    require(start_token, "start_token", (1,), (torch.int32,))
    new_tokens = len(keys)
    grid = (kv_heads, triton.cdiv(new_tokens, page_size) + 1)
    _append_keys_values_kernel[grid](
        keys,
        values,
        as_codes(key_pages),
        as_codes(value_pages),
        *(kv_scales or (page_summaries, page_summaries)),
        page_summaries,
        page_summaries if summary_scales is None else summary_scales,
        page_table,
        start_token,
        new_tokens,
        keys.stride(0),
        keys.stride(1),
        values.stride(0),
        values.stride(1),
        kv_heads,
        head_dim,
        SUMMARY=summary,
        VECTORS=vectors,
        INT8=summary_scales is not None,
        LEVELS=levels,
        FLOAT8=kv_scales is not None,
        PAGE_SIZE=page_size,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
        num_warps=2,
    )
    if levels == 2:
        _summarise_superpages_kernel[grid](
            page_summaries,
            page_summaries if summary_scales is None else summary_scales,
            page_table,
            start_token,
            new_tokens,
            kv_heads,
            head_dim,
            SUMMARY=summary,
            VECTORS=vectors,
            INT8=summary_scales is not None,
            PAGE_SIZE=page_size,
            BLOCK_DIM=triton.next_power_of_2(head_dim),
            num_warps=2,
        )
