"""Operators of a prefill, beside products and a dense attention kernel."""

from __future__ import annotations

import torch
from torch.nn.functional import silu

from kernels.contract import LayerCache, PartialAttention, RopeTables
from kernels.float8 import widen


def naive_rms_norm(
    hidden: torch.Tensor, weight: torch.Tensor, epsilon: float, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """Root mean square norm over the last dimension (arXiv 1910.07467), optionally of a residual sum.

    Args:
        hidden: [..., width].
        weight: [width].
        residual: [..., width]; `hidden` is added to it in place, and the sum is normed.

    Returns:
        The normed tensor, shape and dtype of `hidden`.
    """
    if residual is not None:
        residual += hidden
        hidden = residual
    wide = hidden.float()
    normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
    return (normed * weight.float()).to(hidden.dtype)


def naive_apply_rope(
    queries: torch.Tensor, keys: torch.Tensor, rope: RopeTables, positions: torch.Tensor
) -> None:
    """Rotate queries and keys in place; channel d pairs with channel d + head_dim / 2, as in Hugging Face's Llama.

    Args:
        queries: [new_tokens, query_heads, head_dim]; may be a view with strides, its last dimension contiguous.
        keys: [new_tokens, kv_heads, head_dim], likewise.
        rope: of all positions.
        positions: int32 [new_tokens].
    """
    cosine, sine = (table[positions.long()].unsqueeze(1) for table in rope)
    for heads in (queries, keys):
        first, second = heads.float().chunk(2, dim=-1)
        heads.copy_(torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1))


def naive_swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """`silu(gate) * up` (arXiv 2002.05202).

    Args:
        gate_up: [new_tokens, 2 * intermediate_size], the gate first.

    Returns:
        [new_tokens, intermediate_size], in the same dtype.
    """
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (silu(gate) * up).to(gate_up.dtype)


def naive_gather_pages(
    cache: LayerCache, page_table: torch.Tensor, tokens: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Copy the first `tokens` tokens of the pages in `page_table`, in the order and layout of a projection's output.

    Args:
        cache: of the layer.
        page_table: int32 [logical_pages], at least as many pages as hold `tokens`.
        tokens: how many to copy.
        dtype: of the result.

    Returns:
        Keys and values [tokens, kv_heads, head_dim] in `dtype`.
    """
    table = page_table.long()
    return tuple(
        widen(pages[table], None if scales is None else scales[table], dtype)
        .transpose(1, 2)
        .flatten(0, 1)[:tokens]
        .contiguous()
        for pages, scales in ((cache.key_pages, cache.key_scales), (cache.value_pages, cache.value_scales))
    )


def naive_merge_attention(
    part: PartialAttention,
    other: PartialAttention,
    dtype: torch.dtype,
    out: PartialAttention | None = None,
) -> PartialAttention:
    """Join the attention of the same queries over two sets of keys (arXiv 2205.14135, section 3.1).

    Args:
        part, other: of any floating dtypes; their `log_sums` finite: each query has attended to a key in each set.
        dtype: of what is attended.
        out: contiguous tensors to write the result to, which may be `part`; else it gets new ones.

    Returns:
        What attention over both sets gives.
    """
    log_sums = torch.logaddexp(part.log_sums, other.log_sums)
    merged = sum(
        each.attended.float() * (each.log_sums - log_sums).exp().t().unsqueeze(2) for each in (part, other)
    )
    if out is None:
        return PartialAttention(merged.to(dtype), log_sums)
    return PartialAttention(out.attended.copy_(merged), out.log_sums.copy_(log_sums))
