"""Tiles of packed weights times one vector of 16-bit floats, in integers: two weights an instruction and more.

A run's inputs become 16-bit integers with a common scale, the step, which is finer than bfloat16's precision for all
but the smallest of them. Their high bytes, signed, and low bytes, unsigned, are packed in words as the weights are, so
that one instruction multiplies four bytes with four weights and adds up:
sum(x * (s * q + m)) = s * step * sum(i * q) + m * sum(x). The sum over a run is exact.

Knows nothing of where vectors come from and products go to; layouts are those of `kernels.gpu_tools.matrix_tiles`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu_tools.matrix_tiles import Inputs

LARGEST = tl.constexpr(32767.0)
# Added to a float32 below 2^21, it leaves its nearest integer in the lowest bits.
TO_INTEGER = tl.constexpr(1.5 * 2.0**23)


@triton.jit
def _dot4(weights, inputs, total, SIGNED: tl.constexpr, INTERPRETED: tl.constexpr):
    """`total` and the sum of the products of four unsigned bytes of `weights` with four bytes of `inputs`, int32."""
    if INTERPRETED:
        for byte in tl.static_range(4):
            factor = (inputs >> 8 * byte) & 0xFF
            if SIGNED:
                factor = (factor ^ 0x80) - 0x80
            total += ((weights >> 8 * byte) & 0xFF) * factor
        return total
    elif SIGNED:
        return tl.inline_asm_elementwise(
            "dp4a.u32.s32 $0, $1, $2, $3;", "=r,r,r,r", [weights, inputs, total], tl.int32, is_pure=True, pack=1
        )
    else:
        return tl.inline_asm_elementwise(
            "dp4a.u32.u32 $0, $1, $2, $3;", "=r,r,r,r", [weights, inputs, total], tl.int32, is_pure=True, pack=1
        )


@triton.jit
def prepare_integers(hidden, gains, BITS: tl.constexpr, HAS_GAINS: tl.constexpr):
    """Prepare a vector, multiplied by `gains` if there are any, for `multiply_integers`.

    Returns:
        `Inputs`, their high bytes and then their low ones, int32 words; and the sum of `hidden`'s squares.
    """
    PARTS: tl.constexpr = 32 // BITS
    sums = tl.zeros([hidden[0].shape[0]], tl.float32)
    squares = tl.zeros([hidden[0].shape[0]], tl.float32)
    largest = tl.zeros(hidden[0].shape, tl.float32)
    wide = ()
    for part in tl.static_range(PARTS):
        values = hidden[part].to(tl.float32)
        squares += tl.sum(values * values, 1)
        if HAS_GAINS:
            values = values * gains[part].to(tl.float32)
        sums += tl.sum(values, 1)
        largest = tl.maximum(largest, tl.abs(values))
        wide = wide + (values,)
    longest = tl.max(largest, 1)
    inverse = LARGEST / tl.maximum(longest, 1e-30)
    integers = ()
    for part in tl.static_range(PARTS):
        integers = integers + ((wide[part] * inverse[:, None] + TO_INTEGER).to(tl.int32, bitcast=True),)
    # Byte b of word w is multiplied with the weights of field b * WORDS + w.
    WORDS: tl.constexpr = 8 // BITS
    high, low = (), ()
    for word in tl.static_range(WORDS):
        first, second = integers[word], integers[WORDS + word]
        third, fourth = integers[2 * WORDS + word], integers[3 * WORDS + word]
        high_bytes = ((first >> 8) & 0xFF) | (second & 0xFF00) | ((third & 0xFF00) << 8) | ((fourth & 0xFF00) << 16)
        low_bytes = (first & 0xFF) | ((second & 0xFF) << 8) | ((third & 0xFF) << 16) | ((fourth & 0xFF) << 24)
        high = high + (high_bytes,)
        low = low + (low_bytes,)
    return Inputs(high + low, sums, longest / LARGEST), squares


@triton.jit
def multiply_integers(tile, inputs, BITS: tl.constexpr, INTERPRETED: tl.constexpr):
    """Multiply a `Tile` with `Inputs`.

    Returns:
        float32 [BLOCK_OUT, BLOCK_RUNS], still to be summed over the runs.
    """
    WORDS: tl.constexpr = 8 // BITS
    high = tl.zeros(tile.weights.shape, tl.int32)
    low = tl.zeros(tile.weights.shape, tl.int32)
    for word in tl.static_range(WORDS):
        fields = tile.weights if BITS == 8 else (tile.weights >> word * BITS) & 0x0F0F0F0F
        high = _dot4(fields, inputs.parts[word][None, :, :], high, True, INTERPRETED)
        low = _dot4(fields, inputs.parts[WORDS + word][None, :, :], low, False, INTERPRETED)
    totals = (tl.sum(high, 2) * 256 + tl.sum(low, 2)).to(tl.float32)
    products = tile.scales.to(tl.float32) * (totals * inputs.steps[None, :])
    return products + tile.minimums.to(tl.float32) * inputs.sums[None, :]
