"""Products with matrices of quantised weights."""

from __future__ import annotations

import torch

from kernels.contract import PackedMatrix


def naive_dequantize(matrix: PackedMatrix, in_channels: int, dtype: torch.dtype) -> torch.Tensor:
    """Unpack a quantised matrix.

    Args:
        in_channels: without the padding.
        dtype: of the result.

    Returns:
        [out_channels, in_channels].
    """
    packed, scales, minimums, bits = matrix
    rows, groups = scales.shape
    shifts = torch.arange(0, 32, bits, device=packed.device).unsqueeze(1)
    values = packed.view(rows, -1, 1, 4) >> shifts & (1 << bits) - 1  # [rows, runs, fields, words]
    grouped = values.reshape(rows, groups, -1).float()
    weights = grouped * scales.float().unsqueeze(2) + minimums.float().unsqueeze(2)
    return weights.view(rows, -1)[:, :in_channels].to(dtype)


def naive_quantized_linear(
    hidden: torch.Tensor, matrix: PackedMatrix, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply with a quantised matrix.

    Args:
        hidden: [new_tokens, in_channels].
        bias: [out_channels].

    Returns:
        [new_tokens, out_channels], in the dtype of `hidden`.
    """
    product = hidden.float() @ naive_dequantize(matrix, hidden.shape[1], torch.float32).T
    return (product if bias is None else product + bias.float()).to(hidden.dtype)
