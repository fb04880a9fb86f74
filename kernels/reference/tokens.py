"""What works on the vectors of tokens: norm, rotary positions, activation."""

from __future__ import annotations

import torch
from torch.nn.functional import silu

from kernels.contract import RopeTables


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
