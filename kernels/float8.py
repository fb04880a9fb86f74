"""Keys and values in 8 bits: float8 e4m3 codes (arXiv 2209.05433), with a scale for each token and kv head.

With one scale for each vector there is no calibration, and nothing to redo as a page fills: what is kept of a token
depends on that token alone, so that a truncated or forked sequence holds what a fresh one would. A scale takes 4 bytes
beside a vector's 64 to 256.

Scales are powers of two. In a floating-point format that costs no precision, and what the codes stand for is exact in
every dtype that the model may have: page summaries in 16 bits are exactly those of the rounded keys, and widening pages
for prefill rounds nothing. Knows nothing of pages.
"""

from __future__ import annotations

import torch

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0  # 1.75 * 2**8
# With it the smallest code, 2**-9, stands for 2**-24, the smallest positive float16.
SMALLEST_SCALE = 2.0**-15


def round_to_float8(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round vectors to the nearest codes, ties to even, with the smallest scale that leaves none beyond the largest.

    Args:
        vectors: [..., head_dim], floating.

    Returns:
        float8_e4m3fn [..., head_dim], and the scales, float32 [...]: what a code of 1 stands for.
    """
    vectors = vectors.float()
    longest = vectors.abs().amax(dim=-1).clamp(min=FLOAT8_MAX * SMALLEST_SCALE)
    mantissas, exponents = torch.frexp(longest)  # mantissas from 0.5 up to 1
    scales = torch.ldexp(torch.ones_like(longest), exponents - 9 + (mantissas > FLOAT8_MAX / 2**9))
    return (vectors / scales.unsqueeze(-1)).to(FLOAT8), scales


def widen(
    stored: torch.Tensor, scales: torch.Tensor | None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """What a cache holds, [..., head_dim] in `dtype`: codes with their scales, or floats without scales."""
    return stored.to(dtype) if scales is None else stored.to(dtype) * scales.unsqueeze(-1).to(dtype)
