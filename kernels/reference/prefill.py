"""What a prefill needs beside a dense attention kernel: cached tokens in order, and attention over parts joined."""

from __future__ import annotations

import torch

from kernels.reference.float8 import widen
from kernels.reference.page_summaries import KvScales


def naive_gather_pages(
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    tokens: int,
    dtype: torch.dtype,
    kv_scales: KvScales | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Copy the first `tokens` tokens of the pages in `page_table`, in the order and layout of a projection's output.

    Args:
        key_pages, value_pages: [physical_pages, kv_heads, page_size, head_dim], floating; float8_e4m3fn with scales.
        page_table: int32 [logical_pages], at least as many pages as hold `tokens`.
        tokens: how many to copy.
        dtype: of the result.
        kv_scales: what a code of each token's key and value is worth, for 8-bit pages.

    Returns:
        Keys and values [tokens, kv_heads, head_dim] in `dtype`.
    """
    table = page_table.long()
    return tuple(
        widen(pages[table], kv_scales and kv_scales[store][table], dtype)
        .transpose(1, 2)
        .flatten(0, 1)[:tokens]
        .contiguous()
        for store, pages in enumerate((key_pages, value_pages))
    )


def naive_merge_attention(
    attended: torch.Tensor,
    log_sums: torch.Tensor,
    other_attended: torch.Tensor,
    other_log_sums: torch.Tensor,
    dtype: torch.dtype,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join the attention of the same queries over two sets of keys (arXiv 2205.14135, section 3.1).

    Args:
        attended, other_attended: [tokens, heads, head_dim], each normalised over its own keys; of any floating dtypes,
            their last dimension contiguous.
        log_sums, other_log_sums: float32 [heads, tokens], the logarithm of the sum of the exponentials of the logits;
            finite, so that each query has met a key in each set.
        dtype: of the result.
        out: contiguous tensors to write the result to, which may be the first two arguments; else it gets new ones.

    Returns:
        What attention over both sets gives: [tokens, heads, head_dim] in `dtype`, and its float32 [heads, tokens].
    """
    merged_log_sums = torch.logaddexp(log_sums, other_log_sums)
    weights = ((sums - merged_log_sums).exp().t().unsqueeze(2) for sums in (log_sums, other_log_sums))
    merged = sum(part.float() * weight for part, weight in zip((attended, other_attended), weights, strict=True))
    if out is None:
        return merged.to(dtype), merged_log_sums
    return out[0].copy_(merged), out[1].copy_(merged_log_sums)
