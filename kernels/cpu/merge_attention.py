"""Join the attention of the same queries over two sets of keys; torch."""

from __future__ import annotations

import torch

from kernels.contract import PartialAttention


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
    """What is attended times its weight among all keys, float32 [tokens, heads, head_dim]."""
    return part.attended.float() * (part.log_sums - log_sums).exp().t().unsqueeze(2)
