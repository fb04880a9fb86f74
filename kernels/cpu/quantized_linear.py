"""Products with a quantised matrix: for one row straight from the packed weights, for more over a copy."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from kernels.contract import PackedMatrix
from kernels.cpu.dequantize import dequantize
from kernels.cpu.products import check_packed, multiply


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
