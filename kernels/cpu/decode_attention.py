"""Attention of one token over KV pages, selected or all; Numba, float32.

One pass over the keys for the logits, one over the values for their weighted sum; a kv head's pages are read once for
all query heads of its group.
"""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import compiled, refuse_kv_scales, require_float32
from kernels.cpu.exponentials import exponentiate
from kernels.reference import KvScales


@compiled
def _attend_head(query, key_pages, value_pages, page_table, head, page_ids, count, context_tokens, scale, attended):
    group, head_dim = query.shape
    page_size = key_pages.shape[2]
    logits = np.empty((group, count * page_size), dtype=np.float32)
    highest = np.full(group, -np.inf, dtype=np.float32)
    tokens = 0
    for index in range(count):
        keys = key_pages[page_table[page_ids[index]], head]
        visible = min(page_size, context_tokens - page_ids[index] * page_size)
        for slot in range(visible):
            for member in range(group):
                logit = np.float32(0.0)
                for d in range(head_dim):
                    logit += query[member, d] * keys[slot, d]
                logits[member, tokens] = logit * scale
            tokens += 1
    for member in range(group):
        for token in range(tokens):
            highest[member] = max(highest[member], logits[member, token])
        seen = logits[member, :tokens]
        inverse = np.float32(1.0) / exponentiate(seen, highest[member], seen)
        for token in range(tokens):
            logits[member, token] *= inverse
    attended[:] = 0.0
    token = 0
    for index in range(count):
        values = value_pages[page_table[page_ids[index]], head]
        visible = min(page_size, context_tokens - page_ids[index] * page_size)
        for slot in range(visible):
            for member in range(group):
                weight = logits[member, token]
                for d in range(head_dim):
                    attended[member, d] += weight * values[slot, d]
            token += 1


@compiled
def _attend(query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale, attended):
    kv_heads = key_pages.shape[1]
    group = query.shape[0] // kv_heads
    for head in range(kv_heads):
        rows = slice(head * group, (head + 1) * group)
        _attend_head(
            query[rows],
            key_pages,
            value_pages,
            page_table,
            head,
            page_ids[head],
            page_counts[head],
            context_tokens,
            scale,
            attended[rows],
        )


def sparse_decode_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    page_ids: torch.Tensor,
    page_counts: torch.Tensor,
    context_tokens: torch.Tensor,
    scale: float,
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_sparse_decode_attention`; float32 only.

    Raises:
        ValueError: for another dtype or device, or 8-bit pages.
    """
    refuse_kv_scales(kv_scales)
    require_float32(query=query, key_pages=key_pages, value_pages=value_pages)
    attended = torch.empty(query.shape)
    _attend(
        query.numpy(),
        key_pages.numpy(),
        value_pages.numpy(),
        page_table.numpy(),
        page_ids.numpy(),
        page_counts.numpy(),
        int(context_tokens),
        np.float32(scale),
        attended.numpy(),
    )
    return attended


def dense_decode_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    scale: float,
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_dense_decode_attention`; float32 only.

    Raises:
        ValueError: for another dtype or device.
    """
    kv_heads, page_size = key_pages.shape[1:3]
    pages = -(-int(context_tokens) // page_size)
    page_ids = torch.arange(pages, dtype=torch.int32).repeat(kv_heads, 1)
    page_counts = torch.full((kv_heads,), pages, dtype=torch.int32)
    return sparse_decode_attention(
        query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale, kv_scales
    )
