"""Products with a quantised matrix: for a few rows straight from the packed weights, for many over a 16-bit copy.

The matrix-vector product is bound by memory, if its instructions are few. A q is never converted to float: the bits of
its field, left where they are in the word, read as a subnormal float32, q * 2^(position - 149). Its product with an
input that was scaled up is an ordinary number, and exact, so that a weight costs a bit operation and a multiply-add.
Scale and minimum are taken out of the sum over a group: sum(x * (s * q + m)) = s * sum(x * q) + m * sum(x).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.nn.functional import linear

from kernels.gpu.checks import FLOATING, require, require_contiguous, require_quantized
from kernels.gpu.dequantize import dequantize

# Up to here reading packed weights again for each row costs less than writing and reading a 16-bit copy.
PACKED_ROWS = 8
# Eight loads of 16 bytes in flight per thread, which share the inputs that the thread holds.
BLOCK_OUT = 8
# A run for each thread: all of 4096 input channels in 4 bits at once.
BLOCK_RUNS = 128
NUM_WARPS = 4
# Inputs are multiplied by up to 2^96: those below 2^32 do not overflow, and products down to 2^-49 are not subnormal.
SCALED_UP = tl.constexpr(96)


@triton.jit
def _packed_linear_kernel(
    hidden_ptr, packed_ptr, scale_ptr, minimum_ptr, bias_ptr, product_ptr,
    in_channels, out_channels, runs, groups,
    BITS: tl.constexpr, RUNS_PER_GROUP: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_OUT: tl.constexpr, BLOCK_RUNS: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_OUT output channels of one row; programs of the other rows follow it and find L2 filled."""
    FIELDS: tl.constexpr = 32 // BITS
    # Fields from the first that reaches into a float32's exponent are shifted down; all others stay.
    FIRST_SHIFTED: tl.constexpr = 23 // BITS
    token = tl.program_id(0).to(tl.int64)
    out = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    words = tl.arange(0, 4)
    out_rows = out.to(tl.int64)[:, None]
    total = tl.zeros([BLOCK_OUT, BLOCK_RUNS], tl.float32)
    for first_run in range(0, runs, BLOCK_RUNS):
        run = first_run + tl.arange(0, BLOCK_RUNS)
        inside = (out < out_channels)[:, None] & (run < runs)[None, :]
        addresses = (out_rows * runs + run[None, :]) * 4
        packed = tl.load(packed_ptr + addresses[:, :, None] + words[None, None, :], inside[:, :, None], 0)
        entries = out_rows * groups + (run // RUNS_PER_GROUP)[None, :]
        scale = tl.load(scale_ptr + entries, inside, 0.0).to(tl.float32)
        minimum = tl.load(minimum_ptr + entries, inside, 0.0).to(tl.float32)
        products = tl.zeros([BLOCK_OUT, BLOCK_RUNS, 4], tl.float32)
        sums = tl.zeros([BLOCK_RUNS, 4], tl.float32)
        for field in tl.static_range(FIELDS):
            channels = (run * (4 * FIELDS) + field * 4)[:, None] + words[None, :]
            inputs = tl.load(hidden_ptr + token * in_channels + channels, channels < in_channels, 0.0).to(tl.float32)
            moved = packed if field < FIRST_SHIFTED else packed >> (FIRST_SHIFTED * BITS)
            # Compile-time constants stay such only inside an expression.
            subnormal = (moved & (((1 << BITS) - 1) << (field % FIRST_SHIFTED * BITS))).to(tl.float32, bitcast=True)
            products += (inputs * 2.0 ** (SCALED_UP - field % FIRST_SHIFTED * BITS))[None, :, :] * subnormal
            sums += inputs
        total += scale * (tl.sum(products, 2) * 2.0 ** (149 - SCALED_UP)) + minimum * tl.sum(sums, 1)[None, :]
    product = tl.sum(total, 1)
    if HAS_BIAS:
        product += tl.load(bias_ptr + out, out < out_channels, 0.0).to(tl.float32)
    tl.store(product_ptr + token * out_channels + out, product.to(product_ptr.dtype.element_ty), out < out_channels)


def quantized_linear(
    hidden: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor,
    bits: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_quantized_linear`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    require(hidden, "hidden", (None, None), FLOATING)
    rows, in_channels = hidden.shape
    if bias is not None:
        require(bias, "bias", (packed.shape[0],), (hidden.dtype,))
    if rows > PACKED_ROWS:
        return linear(hidden, dequantize(packed, scales, minimums, bits, in_channels, hidden.dtype), bias)
    require_contiguous(hidden, "hidden")
    runs_per_group = require_quantized(packed, scales, minimums, bits, in_channels)
    out_channels, runs = packed.shape[0], packed.shape[1] // 4
    product = torch.empty((rows, out_channels), dtype=hidden.dtype, device=hidden.device)
    _packed_linear_kernel[(rows, triton.cdiv(out_channels, BLOCK_OUT))](
        hidden,
        packed,
        scales,
        minimums,
        packed if bias is None else bias,
        product,
        in_channels,
        out_channels,
        runs,
        scales.shape[1],
        BITS=bits,
        RUNS_PER_GROUP=runs_per_group,
        HAS_BIAS=bias is not None,
        BLOCK_OUT=BLOCK_OUT,
        BLOCK_RUNS=min(BLOCK_RUNS, triton.next_power_of_2(runs)),
        num_warps=NUM_WARPS,
    )
    return product
