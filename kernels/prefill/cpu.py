"""Operators of a prefill, beside products and a dense attention kernel, on the CPU."""

from __future__ import annotations

import torch
from torch.nn.functional import silu

from kernels.contract import LayerCache, PartialAttention, RopeTables
from kernels.cpu_tools.arrays import as_array
from kernels.cpu_tools.checks import require_pages
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.vectors import address_of, copy_elements
from kernels.float8 import widen


def rms_norm(
    hidden: torch.Tensor, weight: torch.Tensor, epsilon: float, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """As `kernels.reference.naive_rms_norm`."""
    if residual is not None:
        hidden = residual.add_(hidden)
    wide = hidden.float()
    inverse = wide.square().mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()
    return (wide * inverse).mul_(weight.float()).to(hidden.dtype)


def apply_rope(queries: torch.Tensor, keys: torch.Tensor, rope: RopeTables, positions: torch.Tensor) -> None:
    """As `kernels.reference.naive_apply_rope`."""
    cosines, sines = (table[positions.long()].unsqueeze(1) for table in rope)
    for heads in (queries, keys):
        first, second = heads.float().chunk(2, dim=-1)
        rotated_first = (first * cosines).sub_(second * sines)
        rotated_second = (second * cosines).add_(first * sines)
        for half, rotated in zip(heads.chunk(2, dim=-1), (rotated_first, rotated_second), strict=True):
            half.copy_(rotated)


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """As `kernels.reference.naive_swiglu`."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return silu(gate).mul_(up).to(gate_up.dtype)


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
    require_pages(cache)
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


def merge_attention(
    part: PartialAttention,
    other: PartialAttention,
    dtype: torch.dtype,
    out: PartialAttention | None = None,
) -> PartialAttention:
    """As `kernels.reference.naive_merge_attention`."""
    log_sums = torch.logaddexp(part.log_sums, other.log_sums)
    merged = _weigh(part, log_sums).add_(_weigh(other, log_sums))
    if out is None:
        return PartialAttention(merged.to(dtype), log_sums)
    return PartialAttention(out.attended.copy_(merged), out.log_sums.copy_(log_sums))


def _weigh(part: PartialAttention, log_sums: torch.Tensor) -> torch.Tensor:
    """A part's output times its weight among all keys, float32 [tokens, heads, head_dim]."""
    return part.attended.float() * (part.log_sums - log_sums).exp().t().unsqueeze(2)
