"""Exponentials of a row of logits, vectorised; Numba.

LLVM calls the C library for each `exp`, which takes five times as long. Here e^x = 2^n e^r with a whole n and
|r| <= ln(2) / 2 (Cody and Waite): a polynomial gives e^r, and the bits of a float32 with exponent n give 2^n.
"""

from __future__ import annotations

import numpy as np

from kernels.cpu_tools.compile import compiled_fused
from kernels.cpu_tools.vectors import address_of, float_of_bits, sum_of

LOWEST = np.float32(-87.0)  # e^-87 is the last that is no subnormal number
LOG2_E = np.float32(1.44269504)
# ln(2) in two parts, of which the first has so few bits that its product with n is exact.
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Of the Taylor series up to r^7 / 7!, whose rest is below a float32's precision for |r| <= 0.35.
C2, C3, C4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
C5, C6, C7 = np.float32(1 / 120), np.float32(1 / 720), np.float32(1 / 5040)
EXPONENT_BIAS, EXPONENT_SHIFT = np.int32(127), np.int32(23)


@compiled_fused
def exponentiate(logits, highest, weights):
    """Write `e^(logits - highest)` to `weights`, all float32 [n], and return the sum; below e^-87 it is e^-87."""
    # In place, since LLVM gives vectors up where what it reads and what it writes overlap, as callers like to have it.
    # Copied in a loop, as `compile` says.
    if address_of(weights) != address_of(logits):
        for i in range(len(weights)):
            weights[i] = logits[i]
    for i in range(len(weights)):
        x = max(weights[i] - highest, LOWEST)
        n = np.floor(x * LOG2_E + np.float32(0.5))
        r = (x - n * LN_2_HIGH) - n * LN_2_LOW
        series = C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7))))
        power = float_of_bits(np.int32((np.int32(n) + EXPONENT_BIAS) << EXPONENT_SHIFT))
        weights[i] = (np.float32(1.0) + (r + r * r * series)) * power
    return sum_of(address_of(weights), len(weights))
