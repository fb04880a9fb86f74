"""Products of a decode step with a layer's matrices, floating or quantised."""

from __future__ import annotations

import torch

from kernels.contract import Matrix, PackedMatrix
from kernels.prefill.reference import naive_rms_norm, naive_swiglu


def naive_dequantize(matrix: PackedMatrix, in_channels: int, dtype: torch.dtype) -> torch.Tensor:
    """Unpack a quantised matrix.

    Args:
        in_channels: without the padding.
        dtype: of the result.

    Returns:
        [out_channels, in_channels].
    """
    packed, scales, minimums, bits = matrix
    rows, groups = scales.shape
    shifts = torch.arange(0, 32, bits, device=packed.device).unsqueeze(1)
    values = packed.view(rows, -1, 1, 4) >> shifts & (1 << bits) - 1  # [rows, runs, fields, words]
    grouped = values.reshape(rows, groups, -1).float()
    weights = grouped * scales.float().unsqueeze(2) + minimums.float().unsqueeze(2)
    return weights.view(rows, -1)[:, :in_channels].to(dtype)


def naive_quantized_linear(
    hidden: torch.Tensor, matrix: PackedMatrix, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply with a quantised matrix.

    Args:
        hidden: [new_tokens, in_channels].
        bias: [out_channels].

    Returns:
        [new_tokens, out_channels], in the dtype of `hidden`.
    """
    product = hidden.float() @ naive_dequantize(matrix, hidden.shape[1], torch.float32).T
    return (product if bias is None else product + bias.float()).to(hidden.dtype)


def naive_norm_linear(
    hidden: torch.Tensor,
    norm_weight: torch.Tensor,
    epsilon: float,
    matrix: Matrix,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multiply the root mean square norm of `hidden` with a matrix.

    Args:
        hidden: [rows, in_channels].
        norm_weight: [in_channels].
        matrix: floating [out_channels, in_channels], or quantised.
        bias: [out_channels].

    Returns:
        [rows, out_channels], in the dtype of `hidden`.
    """
    return _multiply(naive_rms_norm(hidden.float(), norm_weight, epsilon), matrix, bias).to(hidden.dtype)


def naive_norm_swiglu(
    hidden: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, gate_up: Matrix
) -> torch.Tensor:
    """`silu(gate) * up` (arXiv 2002.05202) of the norm of `hidden`.

    Args:
        hidden: [rows, in_channels].
        norm_weight: [in_channels].
        gate_up: floating [2 * intermediate_size, in_channels], the gate's rows first; or quantised.

    Returns:
        [rows, intermediate_size], in the dtype of `hidden`.
    """
    return naive_swiglu(_multiply(naive_rms_norm(hidden.float(), norm_weight, epsilon), gate_up)).to(hidden.dtype)


def naive_linear_add(
    hidden: torch.Tensor, matrix: Matrix, residual: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    """Add the product of `hidden` with a matrix to `residual`, in place.

    Args:
        hidden: floating [rows, in_channels], of any dtype.
        matrix: floating [out_channels, in_channels], or quantised.
        residual: [rows, out_channels].
        bias: [out_channels].
    """
    residual.copy_(residual.float() + _multiply(hidden.float(), matrix, bias))


def _multiply(hidden: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """float32 [rows, out_channels]."""
    if isinstance(matrix, PackedMatrix):
        return naive_quantized_linear(hidden, matrix, bias)
    product = hidden @ matrix.float().T
    return product if bias is None else product + bias.float()
