"""Copy cached keys and values out of their pages, in the order of their tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require_pages
from kernels.gpu.float8 import as_codes, load_vectors
from kernels.reference import KvScales

BLOCK_TOKENS = 16


@triton.jit
def _gather_pages_kernel(
    key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, key_ptr, value_ptr,
    tokens, kv_heads, head_dim,
    FLOAT8: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One program copies BLOCK_TOKENS tokens of one kv head, of however many pages; a page's heads run side by side."""
    head = tl.program_id(0) % kv_heads
    token = (tl.program_id(0) // kv_heads).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    present = token < tokens
    page = tl.load(page_table_ptr + token // PAGE_SIZE, present, 0).to(tl.int64)
    channels = tl.arange(0, BLOCK_DIM)[None, :]
    rows = present[:, None]
    inside = rows & (channels < head_dim)
    entries = ((page * kv_heads + head) * PAGE_SIZE + token % PAGE_SIZE)[:, None]
    target = (token * kv_heads + head)[:, None] * head_dim + channels
    keys = load_vectors(key_page_ptr, key_scale_ptr, entries, rows, channels, head_dim, FLOAT8)
    values = load_vectors(value_page_ptr, value_scale_ptr, entries, rows, channels, head_dim, FLOAT8)
    tl.store(key_ptr + target, keys.to(key_ptr.dtype.element_ty), inside)
    tl.store(value_ptr + target, values.to(value_ptr.dtype.element_ty), inside)


def gather_pages(
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    tokens: int,
    dtype: torch.dtype,
    kv_scales: KvScales | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `kernels.reference.naive_gather_pages`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or the table is too short.
    """
    kv_heads, page_size, head_dim = require_pages(key_pages, value_pages, page_table, kv_scales)
    if tokens > len(page_table) * page_size:
        raise ValueError(f"{tokens} tokens do not lie in {len(page_table)} pages of {page_size}")
    if dtype not in FLOATING:
        raise ValueError(f"dtype must be one of {FLOATING}, got {dtype}")
    keys, values = (
        torch.empty((tokens, kv_heads, head_dim), dtype=dtype, device=key_pages.device) for _ in range(2)
    )
    # In one dimension, as the others end at 65535 programs.
    _gather_pages_kernel[(kv_heads * triton.cdiv(tokens, BLOCK_TOKENS),)](
        as_codes(key_pages),
        as_codes(value_pages),
        *(kv_scales or (page_table, page_table)),
        page_table,
        keys,
        values,
        tokens,
        kv_heads,
        head_dim,
        FLOAT8=kv_scales is not None,
        PAGE_SIZE=page_size,
        BLOCK_TOKENS=BLOCK_TOKENS,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
        num_warps=2,
    )
    return keys, values
