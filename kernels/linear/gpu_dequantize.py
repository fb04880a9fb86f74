"""Unpack a quantised matrix, for products with so many rows that arithmetic, not memory, is the limit."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import PackedMatrix
from kernels.gpu_tools.checks import FLOATING, require_quantized

BLOCK_RUNS = 256


@triton.jit
def _dequantize_kernel(
    packed_ptr,
    scale_ptr,
    minimum_ptr,
    weight_ptr,
    in_channels,
    runs,
    groups,
    BITS: tl.constexpr,
    RUNS_PER_GROUP: tl.constexpr,
    BLOCK_RUNS: tl.constexpr,
):
    """One program unpacks BLOCK_RUNS runs of one row."""
    FIELDS: tl.constexpr = 32 // BITS
    row = tl.program_id(0).to(tl.int64)
    run = tl.program_id(1) * BLOCK_RUNS + tl.arange(0, BLOCK_RUNS)
    words = tl.arange(0, 4)
    inside = run < runs
    packed = tl.load(packed_ptr + ((row * runs + run) * 4)[:, None] + words[None, :], inside[:, None], 0)
    group = row * groups + run // RUNS_PER_GROUP
    scale = tl.load(scale_ptr + group, inside, 0.0).to(tl.float32)
    minimum = tl.load(minimum_ptr + group, inside, 0.0).to(tl.float32)
    for field in tl.static_range(FIELDS):
        values = ((packed >> (field * BITS)) & ((1 << BITS) - 1)).to(tl.float32)
        channels = (run * (4 * FIELDS) + field * 4)[:, None] + words[None, :]
        weights = values * scale[:, None] + minimum[:, None]
        tl.store(
            weight_ptr + row * in_channels + channels, weights.to(weight_ptr.dtype.element_ty), channels < in_channels
        )


def dequantize(matrix: PackedMatrix, in_channels: int, dtype: torch.dtype) -> torch.Tensor:
    """As `kernels.reference.naive_dequantize`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    runs_per_group = require_quantized(matrix, in_channels)
    if dtype not in FLOATING:
        raise ValueError(f"dtype must be one of {FLOATING}, got {dtype}")
    packed, scales, minimums, bits = matrix
    rows, runs = packed.shape[0], packed.shape[1] // 4
    weights = torch.empty((rows, in_channels), dtype=dtype, device=packed.device)
    _dequantize_kernel[(rows, triton.cdiv(runs, BLOCK_RUNS))](
        packed,
        scales,
        minimums,
        weights,
        in_channels,
        runs,
        scales.shape[1],
        BITS=bits,
        RUNS_PER_GROUP=runs_per_group,
        BLOCK_RUNS=BLOCK_RUNS,
    )
    return weights
