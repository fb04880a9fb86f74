"""Products of a decode step on the CPU, each composed of a product and what comes before or after it."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from kernels.contract import Matrix, PackedMatrix
from kernels.linear.cpu_products import check_packed, multiply
from kernels.prefill.cpu import rms_norm, swiglu


def quantized_linear(
    hidden: torch.Tensor, matrix: PackedMatrix, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """As `kernels.reference.naive_quantized_linear`; scales and minimums both float16 or both float32.

    Raises:
        ValueError: for another dtype or device, or another number of bits than 4 and 8.
    """
    check_packed(matrix)
    groups = matrix.scales.shape[1]
    padded_channels = matrix.packed.shape[1] * 32 // matrix.bits
    if not padded_channels - padded_channels // groups < hidden.shape[1] <= padded_channels:
        raise ValueError(f"{groups} groups in {padded_channels} channels do not hold {hidden.shape[1]} input channels")
    if len(hidden) > 1:
        return linear(hidden, dequantize(matrix, hidden.shape[1], hidden.dtype), bias)
    product = multiply(hidden.float(), matrix).to(hidden.dtype)
    return product if bias is None else product + bias


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


def norm_linear(
    hidden: torch.Tensor,
    norm_weight: torch.Tensor,
    epsilon: float,
    matrix: Matrix,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_norm_linear`."""
    return _multiply(rms_norm(hidden, norm_weight, epsilon), matrix, bias)


def norm_swiglu(hidden: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, gate_up: Matrix) -> torch.Tensor:
    """As `kernels.reference.naive_norm_swiglu`."""
    return swiglu(_multiply(rms_norm(hidden, norm_weight, epsilon), gate_up))


def linear_add(
    hidden: torch.Tensor, matrix: Matrix, residual: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    """As `kernels.reference.naive_linear_add`."""
    residual += _multiply(hidden.to(residual.dtype), matrix, bias)


def _multiply(hidden: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    if isinstance(matrix, PackedMatrix):
        return quantized_linear(hidden, matrix, bias)
    return linear(hidden, matrix, bias)
