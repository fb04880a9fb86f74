"""Copy cached tokens into the order that prefill attends in; Numba, from pages to the wanted dtype in one pass."""

from __future__ import annotations

import torch

from kernels.cpu.compile import as_array, compiled, require_pages
from kernels.cpu.vectors import address_of, copy_elements
from kernels.reference import KvScales, naive_gather_pages


@compiled
def _gather(pages, page_table, gathered):
    """Pages [physical_pages, kv_heads, page_size, head_dim] to `gathered` [tokens, kv_heads, head_dim]."""
    kv_heads, page_size, head_dim = pages.shape[1:]
    page_bytes, head_bytes, slot_bytes = pages.strides[:3]
    tokens, (token_bytes, row_bytes) = len(gathered), gathered.strides[:2]
    source, target = address_of(pages), address_of(gathered)
    for logical in range((tokens + page_size - 1) // page_size):
        page, first_token = source + page_table[logical] * page_bytes, logical * page_size
        for slot in range(min(page_size, tokens - first_token)):
            for head in range(kv_heads):
                copy_elements(
                    pages.dtype, page + head * head_bytes + slot * slot_bytes,
                    gathered.dtype, target + (first_token + slot) * token_bytes + head * row_bytes, head_dim,
                )  # fmt: skip


def gather_pages(
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    tokens: int,
    dtype: torch.dtype,
    kv_scales: KvScales | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `kernels.reference.naive_gather_pages`, which it leaves 8-bit pages and rounding to float16 to.

    Raises:
        ValueError: for floating pages of another dtype, device or layout, or fewer pages than hold `tokens`.
    """
    if kv_scales is not None or dtype not in (key_pages.dtype, torch.float32, torch.bfloat16):
        return naive_gather_pages(key_pages, value_pages, page_table, tokens, dtype, kv_scales)
    require_pages(key_pages=key_pages, value_pages=value_pages)
    kv_heads, page_size, head_dim = key_pages.shape[1:]
    if tokens > len(page_table) * page_size:
        raise ValueError(f"{tokens} tokens do not lie in {len(page_table)} pages of {page_size}")
    gathered = tuple(torch.empty((tokens, kv_heads, head_dim), dtype=dtype) for _ in range(2))
    for pages, target in zip((key_pages, value_pages), gathered, strict=True):
        _gather(as_array(pages), page_table.numpy(), as_array(target))
    return gathered
