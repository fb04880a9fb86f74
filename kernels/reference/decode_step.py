"""The operators of one decode step besides attention, each as much of a layer as one pass over its data can do.

A layer is `norm_linear` (queries, keys and values), `rotate_and_append`, attention, `linear_add` (output projection),
`norm_swiglu`, `linear_add` (down projection). Prefill, which has many rows, composes the smaller operators instead.
"""

from __future__ import annotations

import torch

from kernels.reference.matrices import Matrix, PackedMatrix, naive_quantized_linear
from kernels.reference.page_summaries import KvScales, naive_append_keys_values
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
    """Norm and rotate one token's queries and keys, and write its key and value to their page.

    Args:
        projected: [1, (query_heads + 2 * kv_heads) * head_dim]: queries, keys, values.
        query_norm, key_norm: [head_dim], of Qwen3's norms of each head; None without.
        epsilon: of these norms.
        cosines, sines: float32 [max_tokens, head_dim // 2].
        key_pages ... kv_scales: as for `naive_append_keys_values`.

    Returns:
        The queries, [query_heads, head_dim] in the dtype of the pages; over 8-bit pages, in that of `projected`.
    """
    kv_heads, head_dim = key_pages.shape[1], key_pages.shape[3]
    heads = projected.float().view(1, -1, head_dim)
    queries, keys, values = heads.split((heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads), dim=1)
    if query_norm is not None:
        queries, keys = naive_rms_norm(queries, query_norm, epsilon), naive_rms_norm(keys, key_norm, epsilon)
    queries, keys = queries.clone(), keys.clone()
    naive_apply_rope(queries, keys, cosines, sines, start_token)
    naive_append_keys_values(
        keys, values, key_pages, value_pages, page_summaries, page_table, start_token, summary, summary_scales,
        kv_scales,
    )  # fmt: skip
    return queries[0].to(key_pages.dtype if kv_scales is None else projected.dtype)


def _multiply(hidden: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """float32 [rows, out_channels]."""
    if isinstance(matrix, PackedMatrix):
        return naive_quantized_linear(hidden, *matrix, bias)
    product = hidden @ matrix.float().T
    return product if bias is None else product + bias.float()
