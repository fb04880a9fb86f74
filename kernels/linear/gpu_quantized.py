"""Products with a quantised matrix: for a few rows straight from the packed weights, for many over a 16-bit copy."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from kernels.contract import PackedMatrix
from kernels.gpu_tools.checks import FEW_ROWS, FLOATING, require
from kernels.linear.gpu import linear_of_few_rows
from kernels.linear.gpu_dequantize import dequantize


def quantized_linear(
    hidden: torch.Tensor, matrix: PackedMatrix, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """As `kernels.reference.naive_quantized_linear`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    require(hidden, "hidden", (None, None), FLOATING)
    rows, in_channels = hidden.shape
    if bias is not None:
        require(bias, "bias", (matrix.packed.shape[0],), (hidden.dtype,))
    if rows <= FEW_ROWS:
        return linear_of_few_rows(hidden, matrix, bias)
    return linear(hidden, dequantize(matrix, in_channels, hidden.dtype), bias)
