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
def _multiply_4_bits(hidden, packed, scales, minimums, out):
    inputs, sums, products = _order_inputs(hidden, packed.shape[1], 2, scales.shape[1])
    for row in range(len(packed)):
        row_bytes = packed[row]
        for i in range(len(products)):
            pair = np.int32(row_bytes[i])
            products[i] = inputs[0, i] * np.float32(pair & 15) + inputs[1, i] * np.float32(pair >> 4)
        out[row] = _sum_groups(products, scales[row], minimums[row], sums)


@compiled
def _multiply_8_bits(hidden, packed, scales, minimums, out):
    inputs, sums, products = _order_inputs(hidden, packed.shape[1], 1, scales.shape[1])
    for row in range(len(packed)):
        row_bytes = packed[row]
        for i in range(len(products)):
            products[i] = inputs[0, i] * np.float32(np.int32(row_bytes[i]))
        out[row] = _sum_groups(products, scales[row], minimums[row], sums)


@compiled
def _order_inputs(hidden, row_bytes, values_per_byte, groups):
    """The inputs [values_per_byte, row_bytes] in the order of a row's bytes, their sums by group, and scratch."""
    inputs = np.zeros((values_per_byte, row_bytes), np.float32)
    sums = np.zeros(groups, np.float32)
    run_channels = RUN_BYTES * values_per_byte
    group_channels = row_bytes * values_per_byte // groups
    for channel in range(len(hidden)):
        run, place = divmod(channel, run_channels)
        field, word = divmod(place, 4)
        byte, value = divmod(field, values_per_byte)
        inputs[value, run * RUN_BYTES + word * 4 + byte] = hidden[channel]
        sums[channel // group_channels] += hidden[channel]
    return inputs, sums, np.empty(row_bytes, np.float32)


@compiled
def _sum_groups(products, scales, minimums, sums):
    total = np.float32(0.0)
    group_bytes = len(products) // len(scales)
    # The groups of 32 channels that loading makes, in 4 and 8 bits: loops of a known length are much faster.
    if group_bytes == 16:
        for group in range(len(scales)):
            part = np.float32(0.0)
            for i in range(16):
                part += products[group * 16 + i]
            total += part * scales[group] + minimums[group] * sums[group]
    elif group_bytes == 32:
        for group in range(len(scales)):
            part = np.float32(0.0)
            for i in range(32):
                part += products[group * 32 + i]
            total += part * scales[group] + minimums[group] * sums[group]
    else:
        for group in range(len(scales)):
            part = np.float32(0.0)
            for i in range(group * group_bytes, (group + 1) * group_bytes):
                part += products[i]
            total += part * scales[group] + minimums[group] * sums[group]
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
    product = torch.empty(out_channels)
    multiply = _multiply_4_bits if bits == 4 else _multiply_8_bits
    row_bytes = packed.view(torch.uint8).numpy()
    multiply(hidden[0].float().numpy(), row_bytes, scales.numpy(), minimums.numpy(), product.numpy())
    product = product.to(hidden.dtype).unsqueeze(0)
    return product if bias is None else product + bias
