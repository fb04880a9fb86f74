"""What a decode step does between its first product and attention, composed of smaller operators."""

from __future__ import annotations

import torch

from kernels.gpu.append_keys_values import append_keys_values
from kernels.gpu.apply_rope import apply_rope
from kernels.gpu.rms_norm import rms_norm


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
) -> torch.Tensor:
    """As `kernels.reference.naive_rotate_and_append`."""
    kv_heads, head_dim = key_pages.shape[1], key_pages.shape[3]
    heads = projected.view(1, -1, head_dim)
    queries, keys, values = heads.split((heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads), dim=1)
    if query_norm is not None:
        queries = rms_norm(queries.contiguous(), query_norm, epsilon)
        keys = rms_norm(keys.contiguous(), key_norm, epsilon)
    queries, keys, values = (each.to(key_pages.dtype) for each in (queries, keys, values))
    apply_rope(queries, keys, cosines, sines, start_token)
    append_keys_values(
        keys, values, key_pages, value_pages, page_summaries, page_table, start_token, summary, summary_scales
    )
    return queries[0]
