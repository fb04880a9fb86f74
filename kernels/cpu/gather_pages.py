"""Copy cached tokens into the order that prefill attends in; Numba, from pages to the wanted dtype in one pass."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache
from kernels.cpu.arrays import as_array
from kernels.cpu.checks import require_cache
from kernels.cpu.compile import compiled
from kernels.cpu.vectors import address_of, copy_elements
from kernels.float8 import widen


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
                vector = page + head * head_bytes + slot * slot_bytes
                row = target + (first_token + slot) * token_bytes + head * row_bytes
                copy_elements(pages.dtype, vector, gathered.dtype, row, head_dim)


def gather_pages(
    cache: LayerCache, page_table: torch.Tensor, tokens: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `kernels.reference.naive_gather_pages`; 8-bit pages, and rounding to float16, are left to torch.

    Raises:
        ValueError: for floating pages of another dtype, device or layout, or fewer pages than hold `tokens`.
    """
    layout = cache.layout
    if tokens > len(page_table) * layout.page_size:
        raise ValueError(f"{tokens} tokens do not lie in {len(page_table)} pages of {layout.page_size}")
    stores = ((cache.key_pages, cache.key_scales), (cache.value_pages, cache.value_scales))
    if layout.is_float8 or dtype not in (layout.dtype, torch.float32, torch.bfloat16):
        return tuple(_gather_in_torch(pages, scales, page_table, tokens, dtype) for pages, scales in stores)
    require_cache(cache)
    gathered = tuple(torch.empty((tokens, layout.kv_heads, layout.head_dim), dtype=dtype) for _ in range(2))
    for (pages, _), target in zip(stores, gathered, strict=True):
        _gather(as_array(pages), page_table.numpy(), as_array(target))
    return gathered


def _gather_in_torch(
    pages: torch.Tensor, scales: torch.Tensor | None, page_table: torch.Tensor, tokens: int, dtype: torch.dtype
) -> torch.Tensor:
    """Any pages in any dtype, [tokens, kv_heads, head_dim]."""
    table = page_table.long()
    vectors = pages[table].transpose(1, 2).flatten(0, 1)[:tokens].contiguous()
    return widen(vectors, None if scales is None else scales[table].transpose(1, 2).flatten(0, 1)[:tokens], dtype)
