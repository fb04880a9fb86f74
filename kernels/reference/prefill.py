"""What a prefill needs beside a dense attention kernel: cached tokens in order, and attention over parts joined."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache, PartialAttention
from kernels.float8 import widen


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
        part, other: of any floating dtypes; their `log_sums` finite, so that each query has met a key in each set.
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
