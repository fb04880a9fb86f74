"""The operators of one decode step besides attention, composed of the smaller ones."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from kernels.contract import HeadNorms, LayerCache, Matrix, PackedMatrix, RopeTables, SequenceView
from kernels.cpu.append_keys_values import append_keys_values
from kernels.cpu.quantized_linear import quantized_linear
from kernels.cpu.tokens import apply_rope, rms_norm, swiglu


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


def rotate_and_append(
    projected: torch.Tensor,
    norms: HeadNorms | None,
    rope: RopeTables,
    cache: LayerCache,
    sequence: SequenceView,
) -> torch.Tensor:
    """As `kernels.reference.naive_rotate_and_append`; raises as `append_keys_values`."""
    layout = cache.layout
    heads = projected.view(1, -1, layout.head_dim)
    query_heads = heads.shape[1] - 2 * layout.kv_heads
    queries, keys, values = heads.split((query_heads, layout.kv_heads, layout.kv_heads), dim=1)
    if norms is not None:
        queries, keys = rms_norm(queries, norms.query, norms.epsilon), rms_norm(keys, norms.key, norms.epsilon)
    queries, keys, values = (each.to(layout.dtype) for each in (queries, keys, values))
    apply_rope(queries, keys, rope, sequence.length_tokens - 1)
    append_keys_values(keys, values, cache, sequence)
    return queries[0]


def _multiply(hidden: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    if isinstance(matrix, PackedMatrix):
        return quantized_linear(hidden, matrix, bias)
    return linear(hidden, matrix, bias)
