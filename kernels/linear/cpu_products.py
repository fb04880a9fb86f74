"""Products of a few rows with a matrix in any format, described by integers that compiled code reads.

A matrix is one row of an int64 table (`describe_matrix`), so that a whole model is an array. Each output channel is one
dot product, computed by one thread in a fixed order, whatever the number of rows: weights are widened once for four.
"""

from __future__ import annotations

import numpy as np
import torch

from kernels.contract import Matrix, PackedMatrix
from kernels.cpu_tools.arrays import LINE_FLOATS, empty_on_lines
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.emitted import AHEAD_BYTES, BFLOAT16, FLOAT16, FLOAT32, LANES
from kernels.cpu_tools.packed_dots import BLOCK_STEP_RUNS, STEP_RUNS, make_packed_dots
from kernels.cpu_tools.vectors import address_of, load_float, make_dots, prefetch_lines, scale_four, sum_of

# Columns of the table.
KIND, DATA, ROW_BYTES, SCALES, MINIMUMS = range(5)
GROUPS, GROUP_SHIFT, GROUP_CHANNELS, IN_CHANNELS, OUT_CHANNELS, BIAS = range(5, 11)
SCALE_BYTES = 11
PACKED_4, PACKED_8 = 4, 8  # kinds besides those of `emitted`
FLOATING_KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
RUN_BYTES = 16  # as `PackedMatrix` lays a row out

# Rows that are multiplied at once, at most.
BLOCK_ROWS = 4


def _for_rows(make, *arguments):
    """What `make` makes for one to BLOCK_ROWS rows."""
    return (make(*arguments, rows) for rows in range(1, BLOCK_ROWS + 1))


_float32_1, _float32_2, _float32_3, _float32_4 = _for_rows(make_dots, FLOAT32)
_bfloat16_1, _bfloat16_2, _bfloat16_3, _bfloat16_4 = _for_rows(make_dots, BFLOAT16)
_float16_1, _float16_2, _float16_3, _float16_4 = _for_rows(make_dots, FLOAT16)
_packed4_1, _packed4_2, _packed4_3, _packed4_4 = _for_rows(make_packed_dots, 4, FLOAT16)
_packed8_1, _packed8_2, _packed8_3, _packed8_4 = _for_rows(make_packed_dots, 8, FLOAT16)
# For matrices whose scales are float32, as packed checkpoints have them.
_wide_packed4_1, _wide_packed4_2, _wide_packed4_3, _wide_packed4_4 = _for_rows(make_packed_dots, 4, FLOAT32)
_wide_packed8_1, _wide_packed8_2, _wide_packed8_3, _wide_packed8_4 = _for_rows(make_packed_dots, 8, FLOAT32)
dot_float32 = _float32_1


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
    """Elements, float32, that `order_inputs` needs for the largest matrix of a table: whole cache lines."""
    # With an odd number of runs there is a gap beside the last.
    floats = int((table[:, IN_CHANNELS] + table[:, GROUPS] + 2 * 8 * LANES).max())
    return -(-floats // LINE_FLOATS) * LINE_FLOATS


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
    channel, block_end, source, target = 0, _block_end(matrix), address_of(hidden), address_of(inputs)
    for run in range(matrix[ROW_BYTES] // RUN_BYTES):
        at_once = BLOCK_STEP_RUNS if run < block_end else STEP_RUNS
        first = (run // at_once * at_once * fields + run % at_once) * 4
        weight = np.float32(1.0)
        for field in range(fields):
            # The highest field of a word is shifted down instead of masked.
            if field == fields - 1:
                weight = np.float32(1.0)
            if channel + 4 <= length:
                scale_four(source, channel, weight, target, first)
            else:
                for word in range(length - channel):
                    inputs[first + word] = hidden[channel + word] * weight
            channel += 4
            first += at_once * 4
            weight *= shrink
    sums_start, group_channels = _sums_start(matrix), matrix[GROUP_CHANNELS]
    for group in range(matrix[GROUPS]):
        first = group * group_channels
        inputs[sums_start + group] = sum_of(source + first * 4, max(0, min(group_channels, length - first)))


@compiled
def _block_end(matrix):
    """How many of a row's runs are in blocks of eight groups of 32 channels; see `make_packed_dots`."""
    if (matrix[KIND] != PACKED_4 and matrix[KIND] != PACKED_8) or matrix[GROUP_CHANNELS] != 32:
        return 0
    block_runs = 8 * 32 * matrix[KIND] // (8 * RUN_BYTES)
    return matrix[ROW_BYTES] // RUN_BYTES // block_runs * block_runs


@compiled
def _sums_start(matrix):
    """Where in its inputs the sums by group begin; 0 where there are none."""
    if matrix[KIND] != PACKED_4 and matrix[KIND] != PACKED_8:
        return 0
    runs = matrix[ROW_BYTES] // RUN_BYTES
    return (runs + 1) // 2 * (32 // matrix[KIND]) * LANES


@compiled
def multiply_rows(matrix, first, end, inputs, out):
    """Write channels `first` to `end` of the products of some rows.

    Args:
        matrix: a row of the table.
        inputs: float32 [rows, ...], each as `order_inputs` wrote it.
        out: float32 [rows, end - first]; the last dimension contiguous.
    """
    # Below, no array is passed on: for each channel that would count references, on which the threads' caches meet.
    kind, wide = matrix[KIND], matrix[SCALE_BYTES] == 4
    data, row_bytes, scales, minimums = matrix[DATA], matrix[ROW_BYTES], matrix[SCALES], matrix[MINIMUMS]
    channels, bias = matrix[IN_CHANNELS], matrix[BIAS]
    runs = matrix[ROW_BYTES] // RUN_BYTES
    shape = (runs, _block_end(matrix), matrix[GROUPS], matrix[GROUP_SHIFT], _sums_start(matrix))
    scale_row_bytes = matrix[GROUPS] * matrix[SCALE_BYTES]
    rows, stride, out_stride = len(inputs), inputs.shape[1], out.strides[0] // 4
    input_address, out_address = address_of(inputs), address_of(out)
    ahead = max(1, AHEAD_BYTES // row_bytes)
    for channel in range(first, end):
        addresses = (
            data + channel * row_bytes,
            scales + channel * scale_row_bytes,
            minimums + channel * scale_row_bytes,
        )
        prefetch_lines(addresses[0] + ahead * row_bytes, row_bytes)
        if scale_row_bytes > 0:
            prefetch_lines(addresses[1] + ahead * scale_row_bytes, scale_row_bytes)
            prefetch_lines(addresses[2] + ahead * scale_row_bytes, scale_row_bytes)
        product = out_address + (channel - first) * 4
        for row in range(0, rows, BLOCK_ROWS):
            of_rows = input_address + row * stride * 4, stride, product + row * out_stride * 4, out_stride
            if kind == PACKED_4 or kind == PACKED_8:
                _multiply_packed(rows - row, kind, wide, addresses, shape, of_rows)
            else:
                _multiply_floats(rows - row, kind, addresses[0], channels, of_rows)
        if bias != 0:
            added = load_float(bias, channel)
            for row in range(rows):
                out[row, channel - first] += added


@compiled
def _multiply_packed(rows, kind, wide, addresses, shape, of_rows):
    """One channel's products with `rows` rows of inputs, or with the first BLOCK_ROWS.

    Args:
        wide: whether the scales are float32.
        addresses: of the channel's weights, scales and minimums.
        shape, of_rows: the other arguments of `make_packed_dots`.
    """
    weights, scales, minimums = addresses
    inputs, stride, products, product_stride = of_rows
    if kind == PACKED_4 and not wide:
        if rows >= 4:
            _packed4_4(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        elif rows == 3:
            _packed4_3(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        elif rows == 2:
            _packed4_2(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        else:
            _packed4_1(weights, scales, minimums, shape, inputs, stride, products, product_stride)
    elif kind == PACKED_8 and not wide:
        if rows >= 4:
            _packed8_4(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        elif rows == 3:
            _packed8_3(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        elif rows == 2:
            _packed8_2(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        else:
            _packed8_1(weights, scales, minimums, shape, inputs, stride, products, product_stride)
    elif kind == PACKED_4:
        if rows >= 4:
            _wide_packed4_4(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        elif rows == 3:
            _wide_packed4_3(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        elif rows == 2:
            _wide_packed4_2(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        else:
            _wide_packed4_1(weights, scales, minimums, shape, inputs, stride, products, product_stride)
    else:
        if rows >= 4:
            _wide_packed8_4(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        elif rows == 3:
            _wide_packed8_3(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        elif rows == 2:
            _wide_packed8_2(weights, scales, minimums, shape, inputs, stride, products, product_stride)
        else:
            _wide_packed8_1(weights, scales, minimums, shape, inputs, stride, products, product_stride)


@compiled
def _multiply_floats(rows, kind, weights, channels, of_rows):
    """As `_multiply_packed`, of floating weights; other arguments as of `make_dots`."""
    inputs, stride, products, product_stride = of_rows
    if kind == FLOAT32:
        if rows >= 4:
            _float32_4(weights, inputs, channels, stride, products, product_stride)
        elif rows == 3:
            _float32_3(weights, inputs, channels, stride, products, product_stride)
        elif rows == 2:
            _float32_2(weights, inputs, channels, stride, products, product_stride)
        else:
            _float32_1(weights, inputs, channels, stride, products, product_stride)
    elif kind == BFLOAT16:
        if rows >= 4:
            _bfloat16_4(weights, inputs, channels, stride, products, product_stride)
        elif rows == 3:
            _bfloat16_3(weights, inputs, channels, stride, products, product_stride)
        elif rows == 2:
            _bfloat16_2(weights, inputs, channels, stride, products, product_stride)
        else:
            _bfloat16_1(weights, inputs, channels, stride, products, product_stride)
    else:
        if rows >= 4:
            _float16_4(weights, inputs, channels, stride, products, product_stride)
        elif rows == 3:
            _float16_3(weights, inputs, channels, stride, products, product_stride)
        elif rows == 2:
            _float16_2(weights, inputs, channels, stride, products, product_stride)
        else:
            _float16_1(weights, inputs, channels, stride, products, product_stride)


@compiled
def _multiply(matrix, hidden, input_length, out):
    inputs = empty_on_lines(len(hidden), input_length)
    for token in range(len(hidden)):
        order_inputs(matrix, hidden[token], inputs[token])
    # A slice, as a step's threads pass: compiled for one layout.
    multiply_rows(matrix, 0, out.shape[1], inputs, out[:, : out.shape[1]])


def multiply(hidden: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """float32 [rows, in_channels] -> float32 [rows, out_channels], on the calling thread.

    Raises:
        ValueError: as `describe_matrix`.
    """
    table = np.array([describe_matrix(matrix)], np.int64)
    product = torch.empty(len(hidden), int(table[0, OUT_CHANNELS]))
    _multiply(table[0], hidden.contiguous().numpy(), input_floats(table), product.numpy())
    return product
