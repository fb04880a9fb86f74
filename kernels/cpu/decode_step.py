"""The operators of one decode step besides attention, composed of the smaller ones."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from kernels.cpu.append_keys_values import append_keys_values
from kernels.cpu.quantized_linear import quantized_linear
from kernels.reference import KvScales, Matrix, PackedMatrix, naive_apply_rope, naive_rms_norm, naive_swiglu


def norm_linear(
    hidden: torch.Tensor,
    norm_weight: torch.Tensor,
    epsilon: float,
    matrix: Matrix,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_norm_linear`."""
    return _multiply(naive_rms_norm(hidden, norm_weight, epsilon), matrix, bias)


def norm_swiglu(hidden: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, gate_up: Matrix) -> torch.Tensor:
    """As `kernels.reference.naive_norm_swiglu`."""
    return naive_swiglu(_multiply(naive_rms_norm(hidden, norm_weight, epsilon), gate_up))


def linear_add(
    hidden: torch.Tensor, matrix: Matrix, residual: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    """As `kernels.reference.naive_linear_add`."""
    residual += _multiply(hidden.to(residual.dtype), matrix, bias)


def rotate_and_append(
    projected: torch.Tensor,
    query_norm: torch.Tensor | None,
    key_norm: torch.Tensor | None,
    epsilon: float,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    start_token: torch.Tensor,
    summary: str,
    summary_scales: torch.Tensor | None = None,
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_rotate_and_append`."""
    kv_heads, head_dim = key_pages.shape[1], key_pages.shape[3]
    heads = projected.view(1, -1, head_dim)
    queries, keys, values = heads.split((heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads), dim=1)
    if query_norm is not None:
        queries, keys = naive_rms_norm(queries, query_norm, epsilon), naive_rms_norm(keys, key_norm, epsilon)
    queries, keys, values = (each.to(key_pages.dtype) for each in (queries, keys, values))
    naive_apply_rope(queries, keys, cosines, sines, start_token)
    append_keys_values(
        keys, values, key_pages, value_pages, page_summaries, page_table, start_token, summary, summary_scales,
        kv_scales,
    )  # fmt: skip
    return queries[0]


def _multiply(hidden: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    if isinstance(matrix, PackedMatrix):
        return quantized_linear(hidden, *matrix, bias)
    return linear(hidden, matrix, bias)
