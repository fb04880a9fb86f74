"""Products with a quantised matrix: for one row straight from the packed weights (Numba), for more over a copy.

Numba knows no 16-bit floats: scales and minimums are float32 here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import linear

from kernels.cpu.compile import compiled, require_float32
from kernels.reference import naive_dequantize as dequantize

# As `kernels.reference.naive_dequantize` lays them out.
RUN_BYTES = 16


# A row's products go through `products`: one long loop without a sum, and short sums without a conversion, are the two
# kinds of loop that LLVM turns into vectors; in one nest it does so with neither.
@compiled
def _multiply_4_bits(inputs, sums, packed, scales, minimums, products, out):
    runs_per_group = packed.shape[1] // RUN_BYTES // scales.shape[1]
    for row in range(len(packed)):
        for i in range(packed.shape[1]):
            pair = np.int32(packed[row, i])
            products[i] = inputs[0, i] * np.float32(pair & 15) + inputs[1, i] * np.float32(pair >> 4)
        out[row] = _sum_groups(products, scales[row], minimums[row], sums, runs_per_group)


@compiled
def _multiply_8_bits(inputs, sums, packed, scales, minimums, products, out):
    runs_per_group = packed.shape[1] // RUN_BYTES // scales.shape[1]
    for row in range(len(packed)):
        for i in range(packed.shape[1]):
            products[i] = inputs[0, i] * np.float32(np.int32(packed[row, i]))
        out[row] = _sum_groups(products, scales[row], minimums[row], sums, runs_per_group)


@compiled
def _sum_groups(products, scales, minimums, sums, runs_per_group):
    total = np.float32(0.0)
    for run in range(len(products) // RUN_BYTES):
        part = np.float32(0.0)
        for i in range(RUN_BYTES):
            part += products[run * RUN_BYTES + i]
        total += part * scales[run // runs_per_group]
    for group in range(len(scales)):
        total += minimums[group] * sums[group]
    return total


def quantized_linear(
    hidden: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor,
    bits: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_quantized_linear`; scales and minimums float32 only.

    Raises:
        ValueError: for another dtype or device, or another number of bits than 4 and 8.
    """
    require_float32(scales=scales, minimums=minimums)
    if bits not in (4, 8) or packed.dtype != torch.int32 or not packed.is_contiguous():
        raise ValueError(f"packed must be contiguous int32 of 4 or 8 bits, got {packed.dtype} of {bits} bits")
    out_channels, groups = scales.shape
    padded_channels = packed.shape[1] * 32 // bits
    if not padded_channels - padded_channels // groups < hidden.shape[1] <= padded_channels:
        raise ValueError(f"{groups} groups in {padded_channels} channels do not hold {hidden.shape[1]} input channels")
    if len(hidden) > 1:
        return linear(hidden, dequantize(packed, scales, minimums, bits, hidden.shape[1], hidden.dtype), bias)
    padded = torch.zeros(padded_channels)
    padded[: hidden.shape[1]] = hidden[0]
    # The inputs in the order of the bytes: [value in a byte, run, word, byte of a word].
    inputs = padded.view(-1, 4, 8 // bits, 4).permute(2, 0, 3, 1).reshape(8 // bits, -1)
    product, products = torch.empty(1, out_channels), torch.empty(inputs.shape[1])
    multiply = _multiply_4_bits if bits == 4 else _multiply_8_bits
    multiply(
        inputs.numpy(),
        padded.view(groups, -1).sum(1).numpy(),
        packed.view(torch.uint8).numpy(),
        scales.numpy(),
        minimums.numpy(),
        products.numpy(),
        product[0].numpy(),
    )
    product = product.to(hidden.dtype)
    return product if bias is None else product + bias
