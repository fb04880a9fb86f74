"""Write new keys and values into KV pages and refresh the summaries of the pages they touch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.append.gpu_summaries import store_summary, summarise_keys
from kernels.contract import LayerCache, SequenceView
from kernels.gpu_tools.cache_pointers import Pages, Summaries, page_pointers, summary_pointers
from kernels.gpu_tools.checks import FLOATING, require, require_cache, require_sequence
from kernels.gpu_tools.float8 import load_vectors, store_vectors


@triton.jit
def _append_keys_values_kernel(
    key_ptr,
    value_ptr,
    key_page_ptr,
    value_page_ptr,
    key_scale_ptr,
    value_scale_ptr,
    summary_ptr,
    summary_scale_ptr,
    page_table_ptr,
    length_ptr,
    new_tokens,
    key_token_stride,
    key_head_stride,
    value_token_stride,
    value_head_stride,
    LAYOUT: tl.constexpr,
):
    """One program fills one page of one kv head: stores its new tokens, and summarises all its keys, old and new."""
    PAGE_SIZE: tl.constexpr = LAYOUT.page_size
    BLOCK_DIM: tl.constexpr = triton.next_power_of_2(LAYOUT.head_dim)
    VECTORS: tl.constexpr = LAYOUT.summary.vectors
    pages = Pages(key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr)
    summaries = Summaries(summary_ptr, summary_scale_ptr, page_table_ptr)
    head = tl.program_id(0)
    end = tl.load(length_ptr)
    start = end - new_tokens
    logical = start // PAGE_SIZE + tl.program_id(1)
    # The grid has room for one page more than an aligned start touches.
    if logical * PAGE_SIZE >= end:
        return
    page = tl.load(pages.table_ptr + logical).to(tl.int64)
    slots = tl.arange(0, PAGE_SIZE)[:, None]
    channels = tl.arange(0, BLOCK_DIM)[None, :]
    tokens = logical * PAGE_SIZE + slots
    inside = channels < LAYOUT.head_dim
    is_new, is_old = (tokens >= start) & (tokens < end), tokens < start
    source = (tokens - start).to(tl.int64)
    keys = tl.load(key_ptr + source * key_token_stride + head * key_head_stride + channels, is_new & inside, 0.0)
    values = tl.load(
        value_ptr + source * value_token_stride + head * value_head_stride + channels, is_new & inside, 0.0
    )
    page_of_head = page * LAYOUT.kv_heads + head
    indices = page_of_head * PAGE_SIZE + slots
    old_keys = load_vectors(pages.key_ptr, pages.key_scale_ptr, indices, is_old, channels, LAYOUT)
    new_keys = store_vectors(
        pages.key_ptr, pages.key_scale_ptr, keys.to(tl.float32), indices, is_new, channels, LAYOUT
    )
    store_vectors(pages.value_ptr, pages.value_scale_ptr, values.to(tl.float32), indices, is_new, channels, LAYOUT)
    page_keys = tl.where(is_new, new_keys, old_keys)
    tokens_in_page = tl.minimum(end - logical * PAGE_SIZE, PAGE_SIZE)
    for vector in tl.static_range(VECTORS):
        summary = summarise_keys(page_keys, (is_new | is_old) & inside, tokens_in_page, vector, LAYOUT)
        store_summary(summary, summaries, page_of_head * VECTORS + vector, vector, LAYOUT)


def append_keys_values(
    keys: torch.Tensor, values: torch.Tensor, cache: LayerCache, sequence: SequenceView
) -> None:
    """As `kernels.reference.naive_append_keys_values`; keys, values and floating pages of one dtype.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    layout = cache.layout
    require_cache(cache)
    require_sequence(sequence)
    require(keys, "keys", (None, layout.kv_heads, layout.head_dim), FLOATING if layout.is_float8 else (layout.dtype,))
    require(values, "values", tuple(keys.shape), (keys.dtype,))
    new_tokens = len(keys)
    _append_keys_values_kernel[(layout.kv_heads, triton.cdiv(new_tokens, layout.page_size) + 1)](
        keys,
        values,
        *page_pointers(cache),
        *summary_pointers(cache),
        *sequence,
        new_tokens,
        keys.stride(0),
        keys.stride(1),
        values.stride(0),
        values.stride(1),
        LAYOUT=layout,
        num_warps=2,
    )
