"""The operators of one decode step besides attention, each as much of a layer as one pass over its data can do.

A layer is `norm_linear` (queries, keys and values), `rotate_and_append`, attention, `linear_add` (output projection),
`norm_swiglu`, `linear_add` (down projection). Prefill, which has many rows, composes the smaller operators instead.
"""

from __future__ import annotations

import torch

from kernels.contract import HeadNorms, LayerCache, Matrix, PackedMatrix, RopeTables, SequenceView
from kernels.reference.matrices import naive_quantized_linear
from kernels.reference.page_summaries import naive_append_keys_values
from kernels.reference.tokens import naive_apply_rope, naive_rms_norm, naive_swiglu


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


def naive_rotate_and_append(
    projected: torch.Tensor,
    norms: HeadNorms | None,
    rope: RopeTables,
    cache: LayerCache,
    sequence: SequenceView,
) -> torch.Tensor:
    """Norm and rotate one token's queries and keys, and write its key and value to their page.

    Args:
        projected: [1, (query_heads + 2 * kv_heads) * head_dim]: queries, keys, values.
        norms: of each query and key; None without.
        rope: of all positions.
        cache, sequence: as for `naive_append_keys_values`.

    Returns:
        The queries, [query_heads, head_dim] in the dtype of the pages; over 8-bit pages, in that of `projected`.
    """
    layout = cache.layout
    heads = projected.float().view(1, -1, layout.head_dim)
    query_heads = heads.shape[1] - 2 * layout.kv_heads
    queries, keys, values = heads.split((query_heads, layout.kv_heads, layout.kv_heads), dim=1)
    if norms is not None:
        queries = naive_rms_norm(queries, norms.query, norms.epsilon)
        keys = naive_rms_norm(keys, norms.key, norms.epsilon)
    queries, keys = queries.clone(), keys.clone()
    naive_apply_rope(queries, keys, rope, sequence.length_tokens - 1)
    naive_append_keys_values(keys, values, cache, sequence)
    return queries[0].to(projected.dtype if layout.is_float8 else layout.dtype)


def _multiply(hidden: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """float32 [rows, out_channels]."""
    if isinstance(matrix, PackedMatrix):
        return naive_quantized_linear(hidden, matrix, bias)
    product = hidden @ matrix.float().T
    return product if bias is None else product + bias.float()
