"""Products with a quantised matrix: for one row straight from the packed weights, for more over a copy."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from kernels.cpu.products import check_packed, multiply
from kernels.reference import PackedMatrix
from kernels.reference import naive_dequantize as dequantize


def quantized_linear(
    hidden: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor,
    bits: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_quantized_linear`; scales and minimums both float16 or both float32.

    Raises:
        ValueError: for another dtype or device, or another number of bits than 4 and 8.
    """
    matrix = PackedMatrix(packed, scales, minimums, bits)
    check_packed(matrix)
    groups = scales.shape[1]
    padded_channels = packed.shape[1] * 32 // bits
    if not padded_channels - padded_channels // groups < hidden.shape[1] <= padded_channels:
        raise ValueError(f"{groups} groups in {padded_channels} channels do not hold {hidden.shape[1]} input channels")
    if len(hidden) > 1:
        return linear(hidden, dequantize(packed, scales, minimums, bits, hidden.shape[1], hidden.dtype), bias)
    product = multiply(hidden.float(), matrix).to(hidden.dtype)
    return product if bias is None else product + bias
