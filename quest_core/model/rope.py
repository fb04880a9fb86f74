"""Rotary position embedding tables.

Computes the cosines and sines that `apply_rope` reads; rotating queries and keys is the kernels' work.
Sources: RoPE (arXiv 2104.09864); linear interpolation (arXiv 2306.15595); YaRN (arXiv 2309.00071, section 3.4);
llama3's banded scaling as released with Llama 3.1.
"""

from __future__ import annotations

import math

import torch

from kernels.contract import RopeTables
from quest_core.config import ModelConfig, RopeConfig

BLOCK_TOKENS = 1 << 16


def rope_tables(config: ModelConfig, device: torch.device) -> RopeTables:
    """Cosines and sines of every position of the window, on `device`."""
    frequencies, scale = inverse_frequencies(config.rope, config.head_dim)
    cosines, sines = torch.empty(2, config.context_tokens, len(frequencies), dtype=torch.float32, device=device)
    # In float64 on the CPU: positions times frequencies lose digits in float32 past 100,000 tokens. In blocks, so that
    # a long window's take little more memory than the tables.
    for positions in torch.arange(config.context_tokens, dtype=torch.float64).split(BLOCK_TOKENS):
        angles, block = torch.outer(positions, frequencies), slice(int(positions[0]), int(positions[-1]) + 1)
        cosines[block] = angles.cos() * scale
        sines[block] = angles.sin() * scale
    return RopeTables(cosines, sines)


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> tuple[torch.Tensor, float]:
    """Angular frequency of each pair of channels, and the scale of cosines and sines.

    Returns:
        float64 [head_dim // 2] in radians per token, and a factor.
    """
    frequencies = rope.theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    if rope.kind == "linear":
        return frequencies / rope.factor, 1.0
    if rope.kind == "llama3":
        return _llama3_frequencies(frequencies, rope), 1.0
    if rope.kind == "yarn":
        scale = rope.attention_factor
        if scale is None:
            scale = 0.1 * math.log(rope.factor) + 1.0
        return _yarn_frequencies(frequencies, rope, head_dim), scale
    return frequencies, 1.0


def _llama3_frequencies(frequencies: torch.Tensor, rope: RopeConfig) -> torch.Tensor:
    # Rotations that each channel pair completes over the trained window decide how much it is stretched.
    rotations = rope.original_max_tokens * frequencies / (2 * math.pi)
    keep = ((rotations - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0.0, 1.0)
    return keep * frequencies + (1.0 - keep) * frequencies / rope.factor


def _yarn_frequencies(frequencies: torch.Tensor, rope: RopeConfig, head_dim: int) -> torch.Tensor:
    def dimension_of(rotations: float) -> float:
        wavelengths = rope.original_max_tokens / (rotations * 2 * math.pi)
        return head_dim * math.log(wavelengths) / (2 * math.log(rope.theta))

    low, high = dimension_of(rope.beta_fast), dimension_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # one dimension wide: a step instead of a ramp
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float64) - low) / (high - low)).clamp(0.0, 1.0)
    return frequencies / rope.factor * ramp + frequencies * (1.0 - ramp)
