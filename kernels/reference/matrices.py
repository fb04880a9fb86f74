"""Products with matrices of quantised weights."""

from __future__ import annotations

from typing import NamedTuple

import torch


class PackedMatrix(NamedTuple):
    """A matrix of quantised weights, as `naive_dequantize` lays them out.

    Args:
        packed: int32 [out_channels, words].
        scales, minimums: floating [out_channels, groups].
        bits: of each weight, 4 or 8.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    minimums: torch.Tensor
    bits: int


# What a step multiplies with: [out_channels, in_channels] in a floating dtype, or quantised.
Matrix = torch.Tensor | PackedMatrix


def naive_dequantize(
    packed: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor,
    bits: int,
    in_channels: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Unpack a matrix whose weights are `scale * q + minimum`, with a scale and a minimum for each group of inputs.

    A row is cut into runs of 16 bytes, what one thread of a GPU loads at once: four words with 32 / bits fields each.
    Word j of a run holds the run's channels j, 4 + j, 8 + j ... from its lowest bits, so that field k of the four
    words meets four neighbours of the input. A row's last group is padded to its full size.

    Args:
        packed: int32 [out_channels, words], the unsigned q.
        scales, minimums: floating [out_channels, groups].
        bits: of each q, 4 or 8.
        in_channels: without the padding.
        dtype: of the result.

    Returns:
        [out_channels, in_channels].
    """
    rows, groups = scales.shape
    shifts = torch.arange(0, 32, bits, device=packed.device).unsqueeze(1)
    values = packed.view(rows, -1, 1, 4) >> shifts & (1 << bits) - 1  # [rows, runs, fields, words]
    grouped = values.reshape(rows, groups, -1).float()
    weights = grouped * scales.float().unsqueeze(2) + minimums.float().unsqueeze(2)
    return weights.view(rows, -1)[:, :in_channels].to(dtype)


def naive_quantized_linear(
    hidden: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor,
    bits: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multiply with a quantised matrix; `packed`, `scales`, `minimums` and `bits` as for `naive_dequantize`.

    Args:
        hidden: [new_tokens, in_channels].
        bias: [out_channels].

    Returns:
        [new_tokens, out_channels], in the dtype of `hidden`.
    """
    weights = naive_dequantize(packed, scales, minimums, bits, hidden.shape[1], torch.float32)
    product = hidden.float() @ weights.T
    return (product if bias is None else product + bias.float()).to(hidden.dtype)
