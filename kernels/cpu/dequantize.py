"""Unpack a quantised matrix, for products of many rows."""

from __future__ import annotations

import torch

from kernels.contract import PackedMatrix


def dequantize(matrix: PackedMatrix, in_channels: int, dtype: torch.dtype) -> torch.Tensor:
    """As `kernels.reference.naive_dequantize`."""
    packed, scales, minimums, bits = matrix
    rows, groups = scales.shape
    runs = packed.view(rows, -1, 1, 4)
    weights = torch.empty(rows, runs.shape[1], 32 // bits, 4)  # [rows, runs, fields, words]
    for field in range(32 // bits):
        weights[:, :, field] = (runs[:, :, 0] >> field * bits) & ((1 << bits) - 1)
    weights = weights.view(rows, groups, -1).mul_(scales.unsqueeze(2).float()).add_(minimums.unsqueeze(2).float())
    return weights.view(rows, -1)[:, :in_channels].to(dtype)
