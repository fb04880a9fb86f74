"""Quantise a matrix in groups of input channels, fast enough to do it every time a model is loaded."""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu_tools.checks import require_float32
from kernels.cpu_tools.compile import compiled


@compiled
def _group_ranges(weights, group_size, low, high):
    rows, channels = weights.shape
    for row in range(rows):
        for group in range(low.shape[1]):
            first, end = group * group_size, min((group + 1) * group_size, channels)
            lowest = highest = weights[row, first]
            for channel in range(first, end):
                lowest, highest = min(lowest, weights[row, channel]), max(highest, weights[row, channel])
            low[row, group], high[row, group] = lowest, highest


@compiled
def _pack_groups(weights, scales, minimums, bits, packed):
    rows, channels = weights.shape
    groups = scales.shape[1]
    fields = 32 // bits
    group_size = packed.shape[1] * fields // groups
    levels = np.float32((1 << bits) - 1)
    padded = np.empty(groups * group_size, np.float32)
    values = np.empty(groups * group_size, np.int32)
    for row in range(rows):
        padded[:channels] = weights[row]
        padded[channels:] = weights[row, channels - 1]
        for group in range(groups):
            step = max(scales[row, group], np.float32(1.1754944e-38))
            offset = minimums[row, group]
            for channel in range(group * group_size, (group + 1) * group_size):
                value = np.rint((padded[channel] - offset) / step)
                values[channel] = np.int32(max(np.float32(0.0), min(levels, value)))
        for run in range(packed.shape[1] // 4):
            for word in range(4):
                bits_of_word = np.int32(0)
                for field in range(fields):
                    bits_of_word |= values[(run * fields + field) * 4 + word] << np.int32(field * bits)
                packed[row, run * 4 + word] = bits_of_word


def group_ranges(weights: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest and the largest weight of each group.

    Args:
        weights: float32 [out_channels, in_channels].

    Returns:
        Two float32 tensors [out_channels, groups].

    Raises:
        ValueError: for another dtype or device.
    """
    require_float32(weights=weights)
    low, high = torch.empty(2, len(weights), -(-weights.shape[1] // group_size))
    _group_ranges(weights.numpy(), group_size, low.numpy(), high.numpy())
    return low, high


def pack_groups(
    weights: torch.Tensor, scales: torch.Tensor, minimums: torch.Tensor, bits: int, group_size: int
) -> torch.Tensor:
    """The nearest `scale * q + minimum` of each weight, packed.

    Args:
        weights: float32 [out_channels, in_channels].
        scales, minimums: floating [out_channels, groups].
        bits: of each q, 4 or 8.

    Returns:
        int32 [out_channels, words], as `kernels.contract.PackedMatrix` says; padding repeats the last weight.

    Raises:
        ValueError: for another dtype or device.
    """
    require_float32(weights=weights)
    packed = torch.empty(len(weights), scales.shape[1] * group_size * bits // 32, dtype=torch.int32)
    _pack_groups(weights.numpy(), scales.float().numpy(), minimums.float().numpy(), bits, packed.numpy())
    return packed
