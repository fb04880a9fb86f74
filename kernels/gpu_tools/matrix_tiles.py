"""Tiles of a weight matrix times one vector, in registers: what differs between floating and packed weights.

A *run* is the 16 bytes that one thread loads at once: 8 weights of 16 bits, 16 of 8 or 32 of 4. A tile is BLOCK_OUT
rows of BLOCK_RUNS runs. A packed q is never converted to float: the bits of its field, left where they are in the word,
read as a float32, which is q * 2^(position - 149) as long as they reach no further than the exponent's lowest bit. Its
product with an input that was scaled up is a normal float, so that a weight costs a bit operation and a
multiply-add. Scale and minimum are taken out of the sum over a group:
sum(x * (s * q + m)) = s * sum(x * q) + m * sum(x).

Knows nothing of where vectors come from and products go to.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

# Inputs are multiplied by up to 2^96: those below 2^32 do not overflow, and products down to 2^-49 are not subnormal.
SCALED_UP = tl.constexpr(96)
# Finished products are multiplied with this, which undoes that scale and the position of the lowest field.
UNSCALE_PACKED = tl.constexpr(2.0 ** (149 - 96))


class MatrixShape(NamedTuple):
    """Constants of a matrix.

    Args:
        in_channels: of a row, without the padding.
        bits: of a weight.
        group_runs: runs of a group of packed weights.
        paired: whether rows i and i + out_channels / 2 follow each other in a tile.
    """

    in_channels: int
    bits: int
    group_runs: int
    paired: bool


class Weights(NamedTuple):
    """Where a matrix is, its scales and minimums if it is packed, and how many rows it has."""

    weight_ptr: tl.tensor
    scale_ptr: tl.tensor
    minimum_ptr: tl.tensor
    out_channels: tl.tensor


class Tile(NamedTuple):
    """A tile of a matrix.

    Args:
        weights: [BLOCK_OUT, BLOCK_RUNS, channels of a run, or 4 words].
        scales, minimums: [BLOCK_OUT, BLOCK_RUNS], of packed weights.
    """

    weights: tl.tensor
    scales: tl.tensor
    minimums: tl.tensor


class Inputs(NamedTuple):
    """What a tile is multiplied with, by `prepare_inputs` or `kernels.gpu_tools.integer_tiles.prepare_integers`.

    Args:
        parts: tuple of [BLOCK_RUNS, channels], floats or words of integers.
        sums: float32 [BLOCK_RUNS], of the inputs of each run.
        steps: float32 [BLOCK_RUNS], what an integer of each run stands for; not used of floats.
    """

    parts: tl.tuple
    sums: tl.tensor
    steps: tl.tensor


@triton.jit
def load_tile(
    matrix,
    tile,
    first_run,
    MATRIX: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_RUNS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Load a `Tile`; rows past the last are undefined.

    An address is the sum of a tile's, a thread's and a constant for each row, so that rows cost no arithmetic. A tile
    that is whole is loaded without masks, which would have each register cleared first. A step reads a weight once, so
    weights are the first to leave the L2 cache, which the data of the small kernels stay in (`docs/kernels.md`).

    Args:
        matrix: as `Weights`.
        first_run: of the tile; runs past a row's last come back as zeros.
        MATRIX: a `MatrixShape`.
        WHOLE: whether no tile reaches beyond the last row or the rows' ends.
    """
    BITS: tl.constexpr = MATRIX.bits
    IN_CHANNELS: tl.constexpr = MATRIX.in_channels
    GROUP_RUNS: tl.constexpr = MATRIX.group_runs
    out_channels = matrix.out_channels
    RUN_CHANNELS: tl.constexpr = 128 // BITS
    RUNS: tl.constexpr = (IN_CHANNELS + RUN_CHANNELS - 1) // RUN_CHANNELS
    tile_row = tl.arange(0, BLOCK_OUT)
    exists = (tile_row < out_channels - tile * BLOCK_OUT)[:, None]
    first = tile.to(tl.int64) * BLOCK_OUT
    row = tile_row.to(tl.int64)[:, None]
    if MATRIX.paired:
        first //= 2
        row = row // 2 + row % 2 * (out_channels // 2)
    # Elements that a thread loads at once, and those of a row.
    WIDTH: tl.constexpr = RUN_CHANNELS if BITS >= 16 else 4
    GROUPS: tl.constexpr = (RUNS + GROUP_RUNS - 1) // GROUP_RUNS
    STRIDE: tl.constexpr = IN_CHANNELS if BITS >= 16 else GROUPS * GROUP_RUNS * 4
    column = first_run * WIDTH + tl.arange(0, BLOCK_RUNS * WIDTH).to(tl.int64)[None, :]
    addresses = matrix.weight_ptr + first * STRIDE + (row * STRIDE + column)
    if WHOLE:
        weights = tl.load(addresses, eviction_policy="evict_first")
    else:
        weights = tl.load(addresses, exists & (column < STRIDE), 0, eviction_policy="evict_first")
    # Rows and columns until here: the order of three dimensions would be the compiler's guess.
    weights = tl.reshape(weights, [BLOCK_OUT, BLOCK_RUNS, WIDTH])
    scales, minimums = 0.0, 0.0
    if BITS < 16:
        group = (first_run + tl.arange(0, BLOCK_RUNS)) // GROUP_RUNS
        # Understated, since a thread would otherwise load its neighbours' scales and pass them through shared memory.
        index = tl.multiple_of(tl.max_contiguous(row * GROUPS + group.to(tl.int64)[None, :], [1, 2]), [1, 1])
        if WHOLE:
            scales = tl.load(matrix.scale_ptr + first * GROUPS + index, eviction_policy="evict_first")
            minimums = tl.load(matrix.minimum_ptr + first * GROUPS + index, eviction_policy="evict_first")
        else:
            mask = exists & (group < GROUPS)[None, :]
            scales = tl.load(matrix.scale_ptr + first * GROUPS + index, mask, 0.0, eviction_policy="evict_first")
            minimums = tl.load(matrix.minimum_ptr + first * GROUPS + index, mask, 0.0, eviction_policy="evict_first")
    return Tile(weights, scales, minimums)


@triton.jit
def load_vector(vector_ptr, run, IN_CHANNELS: tl.constexpr, BITS: tl.constexpr):
    """Load the channels of each run, in parts [BLOCK_RUNS, channels], in the order in which products need them."""
    PARTS: tl.constexpr = 1 if BITS >= 16 else 32 // BITS
    WIDTH: tl.constexpr = 128 // BITS // PARTS
    parts = ()
    for part in tl.static_range(PARTS):
        channel = (run * (WIDTH * PARTS) + part * WIDTH)[:, None] + tl.arange(0, WIDTH)[None, :]
        parts = parts + (tl.load(vector_ptr + channel, channel < IN_CHANNELS, 0.0),)
    return parts


@triton.jit
def prepare_inputs(hidden, gains, BITS: tl.constexpr, HAS_GAINS: tl.constexpr):
    """Prepare a vector, multiplied by `gains` if there are any, for `multiply_tile`.

    Returns:
        `Inputs`, float32, their sums scaled as products are; and the sum of `hidden`'s squares.
    """
    PARTS: tl.constexpr = 1 if BITS >= 16 else 32 // BITS
    inputs = ()
    sums = tl.zeros([hidden[0].shape[0]], tl.float32)
    squares = tl.zeros([hidden[0].shape[0]], tl.float32)
    for part in tl.static_range(PARTS):
        wide = hidden[part].to(tl.float32)
        squares += tl.sum(wide * wide, 1)
        if HAS_GAINS:
            wide = wide * gains[part].to(tl.float32)
        if BITS < 16:
            sums += tl.sum(wide, 1)
            # Compile-time constants stay constants only inside an expression.
            wide = wide * 2.0 ** (SCALED_UP - part % (24 // BITS) * BITS)
        inputs = inputs + (wide,)
    if BITS == 4:
        # The two highest fields are multiplied together, then the highest:
        # x6 q6 + x7 q7 = x6 (q6 + 16 q7) + (x7 - 16 x6) q7.
        inputs = inputs[:7] + (inputs[7] * 16.0 - inputs[6] * 16.0,)
    sums *= 2.0 ** (SCALED_UP - 149)
    return Inputs(inputs, sums, sums), squares


@triton.jit
def multiply_tile(tile, inputs, BITS: tl.constexpr):
    """Multiply a `Tile` with `Inputs`; of packed weights times 1 / UNSCALE_PACKED.

    Returns:
        float32 [BLOCK_OUT, BLOCK_RUNS], still to be summed over the runs.
    """
    if BITS >= 16:
        products = tl.sum(tile.weights.to(tl.float32) * inputs.parts[0][None, :, :], 2)
    else:
        words = tile.weights.to(tl.uint32, bitcast=True)
        totals = tl.zeros(tile.weights.shape, tl.float32)
        for field in tl.static_range(32 // BITS):
            # Shifted down, with all bits above them, from where they would reach into the exponent.
            bits = words >> field * BITS if field >= 24 // BITS else words & (((1 << BITS) - 1) << field * BITS)
            totals += inputs.parts[field][None, :, :] * bits.to(tl.float32, bitcast=True)
        products = tile.scales.to(tl.float32) * tl.sum(totals, 2)
        products += tile.minimums.to(tl.float32) * inputs.sums[None, :]
    return products
