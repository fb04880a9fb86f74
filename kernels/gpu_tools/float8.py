"""Read and write the keys and values of KV pages, floating or as float8 e4m3 codes with a scale for each vector.

Functions that the kernels call. `kernels.float8` is the specification, and they agree with it to the last bit: scales
are powers of two, and all arithmetic with them is exact. GPUs that know the format convert codes by themselves. To
others, and to Triton's interpreter, codes are bytes: a code's bits, moved to where float16 has them, are the number
divided by 2**8.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels.float8 import FLOAT8

# Compute capability 8.9, Ada: the first with instructions for the format.
FIRST_CAPABILITY = (8, 9)
# In float32's bits: a step of the exponent, and the whole exponent.
EXPONENT_UNIT = tl.constexpr(1 << 23)
EXPONENT_BITS = tl.constexpr(0xFF << 23)
# Added to a number's bits, it carries into the exponent when the mantissa is above 1.75, that of the largest code.
ABOVE_LARGEST_MANTISSA = tl.constexpr(0x1FFFFF)
SMALLEST_SCALE_BITS = tl.constexpr((127 - 15) << 23)
LARGEST_CODE = tl.constexpr(448.0)
SMALLEST_NORMAL = tl.constexpr(2.0**-6)
# The numbers that float32 has above this are a smallest code apart.
SUBNORMAL_BASE = tl.constexpr(2.0**14)
SUBNORMAL_BASE_BITS = tl.constexpr((127 + 14) << 23)
# Softmax weights of 8-bit values are multiplied with this for the product, since the scales bring them near zero.
WEIGHT_UNIT = tl.constexpr(2.0**8)


@triton.jit
def widen_codes(codes, dtype: tl.constexpr):
    """What codes stand for at a scale of 1, in a floating `dtype`; floats of that dtype are returned unchanged."""
    if codes.dtype == tl.uint8:
        bits = codes.to(tl.uint16)
        half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
        return (half.to(tl.float16, bitcast=True) * 256.0).to(dtype)
    elif codes.dtype == dtype:
        return codes
    else:
        # By way of float32: from float16 straight to bfloat16 takes an instruction of a quarter of the speed.
        return codes.to(tl.float16).to(tl.float32).to(dtype)


@triton.jit
def widen_values(codes, dtype: tl.constexpr):
    """As `widen_codes`, but the compiler may not move it after the exchange between threads that a product needs.

    A product sums values across their vectors, and with codes that exchange would read them byte by byte.
    """
    if codes.dtype == tl.float8e4nv:
        # Four codes, in two halves.
        half = tl.inline_asm_elementwise(
            "{ .reg .b16 low, high; mov.b32 {low, high}, $2; "
            "cvt.rn.f16x2.e4m3x2 $0, low; cvt.rn.f16x2.e4m3x2 $1, high; }",
            "=r,=r,r",
            [codes],
            tl.float16,
            is_pure=False,
            pack=4,
        )
        return half if dtype == tl.float16 else half.to(tl.float32).to(dtype)
    else:
        return widen_codes(codes, dtype)


@triton.jit
def round_to_codes(vectors):
    """Codes, uint8 [rows, channels], and scales, float32 [rows, 1], of float32 vectors."""
    longest = tl.max(tl.abs(vectors), 1)[:, None].to(tl.int32, bitcast=True)
    scale_bits = ((longest + ABOVE_LARGEST_MANTISSA) & EXPONENT_BITS) - 8 * EXPONENT_UNIT
    scale_bits = tl.maximum(scale_bits, SMALLEST_SCALE_BITS)
    # Its reciprocal, which is a power of two as well.
    inverse = (-scale_bits + 254 * EXPONENT_UNIT).to(tl.float32, bitcast=True)
    scaled = tl.minimum(tl.abs(vectors) * inverse, LARGEST_CODE)
    # To the nearest of 3 bits of the mantissa, ties to even, with the exponent's bias of 127 turned into 7.
    bits = scaled.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    subnormal = (scaled + SUBNORMAL_BASE).to(tl.int32, bitcast=True) - SUBNORMAL_BASE_BITS
    sign = (vectors.to(tl.int32, bitcast=True) >> 24) & 0x80
    codes = tl.where(scaled < SMALLEST_NORMAL, subnormal, normal) | sign
    return codes.to(tl.uint8), scale_bits.to(tl.float32, bitcast=True)


@triton.jit
def store_vectors(page_ptr, scale_ptr, vectors, indices, rows, channels, LAYOUT: tl.constexpr):
    """Write vectors, float32 [rows, channels], to the pages of a layer; returns them as the pages hold them, float32.

    Args:
        vectors: zero in the channels from the layout's `head_dim` on.
        indices: int64 [rows, 1], of the vectors at `page_ptr`.
        rows: bool [rows, 1], which to write.
        channels: int32 [1, channels].
        LAYOUT: a `CacheLayout`.
    """
    target = page_ptr + indices * LAYOUT.head_dim + channels
    mask = rows & (channels < LAYOUT.head_dim)
    if LAYOUT.is_float8:
        codes, scales = round_to_codes(vectors)
        tl.store(target, codes.to(page_ptr.dtype.element_ty, bitcast=True), mask)
        tl.store(scale_ptr + indices, scales, rows)
        return widen_codes(codes, tl.float32) * scales
    else:
        kept = vectors.to(page_ptr.dtype.element_ty)
        tl.store(target, kept, mask)
        return kept.to(tl.float32)


@triton.jit
def load_vectors(page_ptr, scale_ptr, indices, rows, channels, LAYOUT: tl.constexpr):
    """Vectors of a layer's pages, float32 [rows, channels], zero where masked; arguments as for `store_vectors`."""
    stored = tl.load(page_ptr + indices * LAYOUT.head_dim + channels, rows & (channels < LAYOUT.head_dim), 0.0)
    if LAYOUT.is_float8:
        return widen_codes(stored, tl.float32) * tl.load(scale_ptr + indices, rows, 0.0)
    else:
        return stored.to(tl.float32)


@lru_cache
def _converts_float8(device: torch.device) -> bool:
    """Whether `device` has instructions for the format; never where kernels are interpreted."""
    if device.type != "cuda" or triton.knobs.runtime.interpret:
        return False
    return torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY


def as_codes(pages: torch.Tensor) -> torch.Tensor:
    """Pages as the kernels of their device take them."""
    if pages.dtype != FLOAT8 or _converts_float8(pages.device):
        return pages
    return pages.view(torch.uint8)
