"""What works on the vectors of tokens: norm, rotary positions, activation; torch, in float32 between its ends."""

from __future__ import annotations

import torch
from torch.nn.functional import silu

from kernels.contract import RopeTables


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
