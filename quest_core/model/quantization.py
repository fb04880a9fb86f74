"""Weights in 8 or 4 bits: groups of input channels that share a scale and a minimum, w = scale * q + minimum.

Rounds float matrices, packs the result as `kernels.reference.naive_dequantize` states, and holds it. Knows nothing of
checkpoints or of how a product is computed.
"""

from __future__ import annotations

import torch
from torch import nn

from kernels.contract import PackedMatrix
from kernels.reference import naive_dequantize

GROUP_SIZES = (32, 64, 128)
DEFAULT_GROUP_SIZE = 32
# Of scales and minimums.
SCALE_DTYPE = torch.float16
# Float32 intermediates of a few times this many weights exist at once.
CHUNK_WEIGHTS = 1 << 22
# So few groups that torch rounds their scales on one thread; waking others takes longer.
CHUNK_WEIGHTS_FAST = 1 << 19
# Rows that tell whether a matrix has been in 4 bits before.
PROBED_ROWS = 16
# With few levels it pays to let a group's outliers be cut off: the fraction of the range that is kept.
RANGES_KEPT = {4: (1.0, 0.95, 0.9, 0.85, 0.8), 8: (1.0,)}


class QuantizedMatrix(nn.Module):
    """A matrix [out_channels, in_channels] in groups of quantised weights.

    Args:
        packed: int32 [out_channels, words].
        scales, minimums: floating [out_channels, groups].
        bits: of each weight, 4 or 8.
        in_channels: without the padding of the last group.
    """

    def __init__(
        self, packed: torch.Tensor, scales: torch.Tensor, minimums: torch.Tensor, bits: int, in_channels: int
    ) -> None:
        super().__init__()
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.minimums = nn.Parameter(minimums, requires_grad=False)
        self.bits = bits
        self.in_channels = in_channels
        self.group_size = packed.shape[1] * 32 // bits // scales.shape[1]

    @property
    def packed_matrix(self) -> PackedMatrix:
        """As the kernels take it."""
        return PackedMatrix(self.packed, self.scales, self.minimums, self.bits)

    def dequantize(self) -> torch.Tensor:
        """float32 [out_channels, in_channels]."""
        return naive_dequantize(self.packed_matrix, self.in_channels, torch.float32)

    @classmethod
    def from_groups(
        cls, values: torch.Tensor, scales: torch.Tensor, minimums: torch.Tensor, bits: int, in_channels: int
    ) -> QuantizedMatrix:
        """Pack values that are already quantised.

        Args:
            values: uint8 [out_channels, padded_channels], each below 2^bits.
            scales, minimums: floating [out_channels, groups].
        """
        return cls(_pack(values, bits), scales.contiguous(), minimums.contiguous(), bits, in_channels)


def quantized_bytes(out_channels: int, in_channels: int, bits: int, group_size: int = DEFAULT_GROUP_SIZE) -> int:
    """Size of a quantised matrix."""
    groups = -(-in_channels // group_size)
    return out_channels * groups * (group_size * bits // 8 + 2 * SCALE_DTYPE.itemsize)


@torch.no_grad()
def quantize(
    weights: torch.Tensor, bits: int, group_size: int = DEFAULT_GROUP_SIZE, ranges_kept: tuple[float, ...] | None = None
) -> QuantizedMatrix:
    """Round a matrix to the nearest of 2^bits evenly spaced values in each group.

    Args:
        weights: floating [out_channels, in_channels]; the result is on its device.
        bits: 4 or 8.
        group_size: input channels that share a scale and a minimum.
        ranges_kept: fractions of a group's range to try; the one with the least squared error is taken. With (1.0,)
            every weight comes back within half a step. None takes what suits `bits`.

    Raises:
        ValueError: for other bits or groups, or weights that are not finite.
    """
    if bits not in RANGES_KEPT:
        raise ValueError(f"bits must be one of {tuple(RANGES_KEPT)}, got {bits}")
    if group_size not in GROUP_SIZES:
        raise ValueError(f"group_size must be one of {GROUP_SIZES}, got {group_size}")
    in_channels = weights.shape[1]
    kept = ranges_kept or RANGES_KEPT[bits]
    fast = weights.device.type == "cpu" and kept == (1.0,)
    rows_at_once = max(1, (CHUNK_WEIGHTS_FAST if fast else CHUNK_WEIGHTS) // in_channels)
    parts = [
        _quantize_rows_fast(rows.float(), bits, group_size) if fast else _quantize_rows(rows, bits, group_size, kept)
        for rows in weights.split(rows_at_once)
    ]
    packed, scales, minimums = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return QuantizedMatrix(packed, scales, minimums, bits, in_channels)


def quantize_finely(weights: torch.Tensor) -> QuantizedMatrix:
    """Round a matrix to 8 bits, or to 4 where these lose no more; every weight comes back within half a step.

    Args:
        weights: floating [out_channels, in_channels].
    """
    return quantize(weights, 4 if fits_4_bits(weights) else 8, ranges_kept=(1.0,))


def fits_4_bits(weights: torch.Tensor) -> bool:
    """Whether 4 bits lose no more of a matrix than 8 would, as they do if it was unpacked from 4 bits.

    Args:
        weights: floating [out_channels, in_channels].
    """
    rows = weights[:: max(1, len(weights) // PROBED_ROWS)]
    matrix = quantize(rows, 4, ranges_kept=(1.0,))
    restored = matrix.dequantize()
    eighth_step = matrix.scales.float().mul(15 / 255).repeat_interleave(DEFAULT_GROUP_SIZE, dim=1)
    lost_in_8_bits = eighth_step[:, : rows.shape[1]].square() / 12
    return bool((restored - rows.float()).square().sum() <= lost_in_8_bits.sum())


def _quantize_rows(
    rows: torch.Tensor, bits: int, group_size: int, ranges_kept: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    groups = -(-rows.shape[1] // group_size)
    # Padding repeats the last weight, so that it widens no range.
    padded = rows[:, torch.arange(groups * group_size, device=rows.device).clamp_(max=rows.shape[1] - 1)]
    grouped = padded.float().view(len(rows), groups, group_size)
    low, high = grouped.aminmax(dim=2)
    _check_finite(low, high)
    best = None
    for kept in ranges_kept:
        cut = (high - low) * (1.0 - kept) / 2.0
        scales, minimums = _round_range(low + cut, high - cut, bits, SCALE_DTYPE)
        steps = scales.float().unsqueeze(2).clamp(min=torch.finfo(torch.float32).tiny)
        offsets = minimums.float().unsqueeze(2)
        values = ((grouped - offsets) / steps).round_().clamp_(0, (1 << bits) - 1)
        if len(ranges_kept) == 1:
            best = values, scales, minimums
            break
        errors = (values * steps + offsets - grouped).square_().sum(dim=2)
        if best is None:
            best, least = (values, scales, minimums), errors
            continue
        better = errors < least
        least = torch.where(better, errors, least)
        best = (
            torch.where(better.unsqueeze(2), values, best[0]),
            torch.where(better, scales, best[1]),
            torch.where(better, minimums, best[2]),
        )
    values, scales, minimums = best
    return _pack(values.to(torch.uint8).view(len(rows), -1), bits), scales, minimums


def _quantize_rows_fast(
    rows: torch.Tensor, bits: int, group_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same for float32 rows on the CPU whose whole ranges are kept, twenty times faster."""
    from kernels.linear.cpu_pack_groups import group_ranges, pack_groups

    low, high = group_ranges(rows, group_size)
    # A sum tells of every NaN, which a range need not do.
    _check_finite(low, high, rows.sum())
    scales, minimums = _round_range(low, high, bits, SCALE_DTYPE)
    return pack_groups(rows, scales, minimums, bits, group_size), scales, minimums


def _check_finite(*figures: torch.Tensor) -> None:
    if not all(figure.isfinite().all() for figure in figures):
        raise ValueError("weights that are not finite cannot be quantised")


def _round_range(
    low: torch.Tensor, high: torch.Tensor, bits: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and minimum in `dtype` whose values still reach from `low` to `high`, but for half a step."""
    levels = (1 << bits) - 1
    minimums = low.to(dtype)
    minimums = torch.where(minimums.float() > low, _nudge(low, -1.0, dtype), minimums)
    steps = (high - minimums.float()) / levels
    scales = steps.to(dtype)
    falls_short = scales.float() * (levels + 0.5) < high - minimums.float()
    return torch.where(falls_short, _nudge(steps, 1.0, dtype), scales), minimums


def _nudge(values: torch.Tensor, direction: float, dtype: torch.dtype) -> torch.Tensor:
    """`values` rounded to `dtype` on the side of `direction`."""
    precision = torch.finfo(dtype)
    return (values + direction * (values.abs() * precision.eps + precision.smallest_normal * precision.eps)).to(dtype)


def _pack(values: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 [out_channels, padded_channels] -> int32 [out_channels, words], as `naive_dequantize` reads them."""
    fields = values.view(len(values), -1, 32 // bits, 4).to(torch.int32)  # [out_channels, runs, fields, words]
    packed = torch.zeros_like(fields[:, :, 0])
    for field in range(32 // bits):
        packed |= fields[:, :, field] << field * bits
    return packed.view(len(values), -1)
