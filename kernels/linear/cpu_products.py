"""Products of one row with a matrix in any format, described by integers that compiled code reads.

A matrix is one row of an int64 table (`describe_matrix`), so that a whole model is an array. Each output channel is one
dot product, computed by one thread in a fixed order.
"""

from __future__ import annotations

import numpy as np
import torch

from kernels.contract import Matrix, PackedMatrix
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.vectors import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    LANES,
    address_of,
    load_float,
    make_dot,
    make_packed_dot,
)

# Columns of the table.
KIND, DATA, ROW_BYTES, SCALES, MINIMUMS = range(5)
GROUPS, GROUP_SHIFT, GROUP_CHANNELS, IN_CHANNELS, OUT_CHANNELS, BIAS = range(5, 11)
SCALE_BYTES = 11
PACKED_4, PACKED_8 = 4, 8  # kinds besides those of `vectors`
FLOATING_KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
RUN_BYTES = 16  # as `PackedMatrix` lays a row out

dot_float32, dot_bfloat16, dot_float16 = (make_dot(kind) for kind in (FLOAT32, BFLOAT16, FLOAT16))
packed_dot_4, packed_dot_8 = (make_packed_dot(bits, FLOAT16) for bits in (4, 8))
# For matrices whose scales are float32, as packed checkpoints have them.
wide_packed_dot_4, wide_packed_dot_8 = (make_packed_dot(bits, FLOAT32) for bits in (4, 8))


def describe_matrix(matrix: Matrix, bias: torch.Tensor | None = None) -> list[int]:
    """A row of the table; the tensors must outlive it.

    Args:
        matrix: floating [out_channels, in_channels], or quantised.
        bias: float32 [out_channels].

    Raises:
        ValueError: for another dtype, device or layout.
    """
    tensors = matrix[:3] if isinstance(matrix, PackedMatrix) else (matrix,)
    for tensor in (*tensors, *(() if bias is None else (bias,))):
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(
                f"a matrix must be contiguous on the CPU, got strides {tensor.stride()} on {tensor.device}"
            )
    if bias is not None and bias.dtype != torch.float32:
        raise ValueError(f"bias must be float32, got {bias.dtype}")
    bias_address = 0 if bias is None else bias.data_ptr()
    if isinstance(matrix, PackedMatrix):
        packed, scales, minimums, bits = matrix
        check_packed(matrix)
        out_channels, groups = scales.shape
        runs_of_group = packed.shape[1] * 4 // RUN_BYTES // groups
        channels = packed.shape[1] * 32 // bits
        return [
            bits,
            packed.data_ptr(),
            packed.shape[1] * 4,
            scales.data_ptr(),
            minimums.data_ptr(),
            groups,
            runs_of_group.bit_length() - 1,
            channels // groups,
            channels,
            out_channels,
            bias_address,
            scales.element_size(),
        ]
    if matrix.dtype not in FLOATING_KINDS:
        raise ValueError(f"a matrix must be one of {tuple(FLOATING_KINDS)}, got {matrix.dtype}")
    out_channels, in_channels = matrix.shape
    row_bytes = in_channels * matrix.element_size()
    kind = FLOATING_KINDS[matrix.dtype]
    return [kind, matrix.data_ptr(), row_bytes, 0, 0, 1, 0, in_channels, in_channels, out_channels, bias_address, 0]


def check_packed(matrix: PackedMatrix) -> None:
    """Raises ValueError for a dtype or a number of bits that the kernels do not read."""
    packed, scales, minimums, bits = matrix
    if bits not in (4, 8) or packed.dtype != torch.int32:
        raise ValueError(f"packed must be int32 of 4 or 8 bits, got {packed.dtype} of {bits} bits")
    if scales.dtype not in (torch.float16, torch.float32) or minimums.dtype != scales.dtype:
        raise ValueError(
            f"scales and minimums must be both float16 or both float32, got {scales.dtype} and {minimums.dtype}"
        )


def input_floats(table: np.ndarray) -> int:
    """Elements, float32, that `order_inputs` needs for the largest matrix of a table."""
    # With an odd number of runs there is a gap beside the last.
    return int((table[:, IN_CHANNELS] + table[:, GROUPS] + 2 * 8 * LANES).max())


@compiled
def order_inputs(matrix, hidden, inputs):
    """Lay `hidden` out as the row products of `matrix` read it; its sums by group follow for a quantised matrix."""
    channels = matrix[IN_CHANNELS]
    if matrix[KIND] != PACKED_4 and matrix[KIND] != PACKED_8:
        for channel in range(channels):
            inputs[channel] = hidden[channel]
        return
    fields = 32 // matrix[KIND]
    shrink = np.float32(1.0) / np.float32(1 << matrix[KIND])
    length = len(hidden)
    inputs[:] = 0.0
    channel = 0
    for run in range(matrix[ROW_BYTES] // RUN_BYTES):
        target = run // 2 * fields * LANES + run % 2 * 4
        weight = np.float32(1.0)
        for field in range(fields):
            # The highest field of a word is shifted down instead of masked.
            if field == fields - 1:
                weight = np.float32(1.0)
            for word in range(min(4, length - channel)):
                inputs[target + word] = hidden[channel + word] * weight
            channel += 4
            target += LANES
            weight *= shrink
    sums_start, group_channels = _sums_start(matrix), matrix[GROUP_CHANNELS]
    for group in range(matrix[GROUPS]):
        total = np.float32(0.0)
        for channel in range(group * group_channels, min((group + 1) * group_channels, length)):
            total += hidden[channel]
        inputs[sums_start + group] = total


@compiled
def _sums_start(matrix):
    runs = matrix[ROW_BYTES] // RUN_BYTES
    return (runs + 1) // 2 * (32 // matrix[KIND]) * LANES


@compiled
def multiply_rows(matrix, first, end, inputs, out):
    """Write channels `first` to `end` of a product to `out`; `inputs` are as `order_inputs` wrote them."""
    kind, row_bytes, groups, group_shift = matrix[KIND], matrix[ROW_BYTES], matrix[GROUPS], matrix[GROUP_SHIFT]
    channels, bias = matrix[IN_CHANNELS], matrix[BIAS]
    scales, minimums, scale_bytes = matrix[SCALES], matrix[MINIMUMS], matrix[SCALE_BYTES]
    ordered, runs = address_of(inputs), row_bytes // RUN_BYTES
    sums = ordered
    if kind == PACKED_4 or kind == PACKED_8:
        sums += _sums_start(matrix) * 4
    for row in range(first, end):
        weights = matrix[DATA] + row * row_bytes
        if kind == PACKED_4 or kind == PACKED_8:
            scale_row, minimum_row = scales + row * groups * scale_bytes, minimums + row * groups * scale_bytes
            if kind == PACKED_4 and scale_bytes == 2:
                product = packed_dot_4(weights, scale_row, minimum_row, ordered, sums, runs, groups, group_shift)
            elif kind == PACKED_8 and scale_bytes == 2:
                product = packed_dot_8(weights, scale_row, minimum_row, ordered, sums, runs, groups, group_shift)
            elif kind == PACKED_4:
                product = wide_packed_dot_4(weights, scale_row, minimum_row, ordered, sums, runs, groups, group_shift)
            else:
                product = wide_packed_dot_8(weights, scale_row, minimum_row, ordered, sums, runs, groups, group_shift)
        elif kind == FLOAT32:
            product = dot_float32(weights, ordered, channels)
        elif kind == BFLOAT16:
            product = dot_bfloat16(weights, ordered, channels)
        else:
            product = dot_float16(weights, ordered, channels)
        if bias != 0:
            product += load_float(bias, row)
        out[row - first] = product


@compiled
def _multiply(matrix, hidden, input_length, out):
    inputs = np.empty(input_length, np.float32)
    for token in range(len(hidden)):
        order_inputs(matrix, hidden[token], inputs)
        multiply_rows(matrix, 0, out.shape[1], inputs, out[token])


def multiply(hidden: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """float32 [rows, in_channels] -> float32 [rows, out_channels], on the calling thread.

    Raises:
        ValueError: as `describe_matrix`.
    """
    table = np.array([describe_matrix(matrix)], np.int64)
    product = torch.empty(len(hidden), int(table[0, OUT_CHANNELS]))
    _multiply(table[0], hidden.contiguous().numpy(), input_floats(table), product.numpy())
    return product
