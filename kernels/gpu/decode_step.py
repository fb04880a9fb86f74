"""The operators of one decode step besides attention, composed of the smaller ones."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from kernels.gpu.quantized_linear import quantized_linear
from kernels.gpu.rms_norm import rms_norm
from kernels.gpu.swiglu import swiglu
from kernels.reference import Matrix, PackedMatrix


def norm_linear(
    hidden: torch.Tensor,
    norm_weight: torch.Tensor,
    epsilon: float,
    matrix: Matrix,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_norm_linear`."""
    return _multiply(rms_norm(hidden, norm_weight, epsilon), matrix, bias)


def norm_swiglu(hidden: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, gate_up: Matrix) -> torch.Tensor:
    """As `kernels.reference.naive_norm_swiglu`."""
    return swiglu(_multiply(rms_norm(hidden, norm_weight, epsilon), gate_up))


def linear_add(
    hidden: torch.Tensor, matrix: Matrix, residual: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    """As `kernels.reference.naive_linear_add`."""
    residual += _multiply(hidden.to(residual.dtype), matrix, bias)


def _multiply(hidden: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    if isinstance(matrix, PackedMatrix):
        return quantized_linear(hidden, *matrix, bias)
    return linear(hidden, matrix, bias)
