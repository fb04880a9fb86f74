"""Copy cached keys and values out of their pages, in the order of their tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import LayerCache
from kernels.gpu_tools.cache_pointers import page_pointers
from kernels.gpu_tools.checks import FLOATING, require, require_cache
from kernels.gpu_tools.float8 import load_vectors

BLOCK_TOKENS = 16


@triton.jit
def _gather_pages_kernel(
    key_page_ptr,
    value_page_ptr,
    key_scale_ptr,
    value_scale_ptr,
    page_table_ptr,
    key_ptr,
    value_ptr,
    tokens,
    LAYOUT: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """One program copies BLOCK_TOKENS tokens of one kv head, of however many pages; a page's heads run side by side."""
    BLOCK_DIM: tl.constexpr = triton.next_power_of_2(LAYOUT.head_dim)
    head = tl.program_id(0) % LAYOUT.kv_heads
    token = (tl.program_id(0) // LAYOUT.kv_heads).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    present = token < tokens
    page = tl.load(page_table_ptr + token // LAYOUT.page_size, present, 0).to(tl.int64)
    channels = tl.arange(0, BLOCK_DIM)[None, :]
    rows = present[:, None]
    inside = rows & (channels < LAYOUT.head_dim)
    indices = ((page * LAYOUT.kv_heads + head) * LAYOUT.page_size + token % LAYOUT.page_size)[:, None]
    target = (token * LAYOUT.kv_heads + head)[:, None] * LAYOUT.head_dim + channels
    keys = load_vectors(key_page_ptr, key_scale_ptr, indices, rows, channels, LAYOUT)
    values = load_vectors(value_page_ptr, value_scale_ptr, indices, rows, channels, LAYOUT)
    tl.store(key_ptr + target, keys.to(key_ptr.dtype.element_ty), inside)
    tl.store(value_ptr + target, values.to(value_ptr.dtype.element_ty), inside)


def gather_pages(
    cache: LayerCache, page_table: torch.Tensor, tokens: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `kernels.reference.naive_gather_pages`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or the table is too short.
    """
    layout = cache.layout
    require_cache(cache)
    require(page_table, "page_table", (None,), (torch.int32,))
    if tokens > len(page_table) * layout.page_size:
        raise ValueError(f"{tokens} tokens do not lie in {len(page_table)} pages of {layout.page_size}")
    if dtype not in FLOATING:
        raise ValueError(f"dtype must be one of {FLOATING}, got {dtype}")
    shape = (tokens, layout.kv_heads, layout.head_dim)
    keys, values = (torch.empty(shape, dtype=dtype, device=page_table.device) for _ in range(2))
    # A grid of one dimension, since the others are limited to 65535 programs.
    _gather_pages_kernel[(layout.kv_heads * triton.cdiv(tokens, BLOCK_TOKENS),)](
        *page_pointers(cache),
        page_table,
        keys,
        values,
        tokens,
        LAYOUT=layout,
        BLOCK_TOKENS=BLOCK_TOKENS,
        num_warps=2,
    )
    return keys, values
