"""Score KV pages by the upper bound of their attention logits; Numba, float32."""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import compiled, require_float32


@compiled
def _page_scores(query, page_bounds, page_table, pages, scores):
    query_heads, head_dim = query.shape
    kv_heads = page_bounds.shape[1]
    group = query_heads // kv_heads
    positive = np.zeros(head_dim, dtype=np.float32)
    negative = np.zeros(head_dim, dtype=np.float32)
    for head in range(kv_heads):
        for d in range(head_dim):
            above, below = np.float32(0.0), np.float32(0.0)
            for member in range(head * group, (head + 1) * group):
                above += max(query[member, d], np.float32(0.0))
                below += min(query[member, d], np.float32(0.0))
            positive[d], negative[d] = above / np.float32(group), below / np.float32(group)
        for logical in range(pages):
            bounds = page_bounds[page_table[logical], head]
            score = np.float32(0.0)
            for d in range(head_dim):
                score += positive[d] * bounds[1, d] + negative[d] * bounds[0, d]
            scores[head, logical] = score
        for logical in range(pages, scores.shape[1]):
            scores[head, logical] = -np.inf


def page_scores(
    query: torch.Tensor,
    page_bounds: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`; float32 only.

    Raises:
        ValueError: for another dtype or device.
    """
    require_float32(query=query, page_bounds=page_bounds)
    pages = -(-int(context_tokens) // page_size)
    scores = torch.empty(page_bounds.shape[1], len(page_table))
    _page_scores(query.numpy(), page_bounds.numpy(), page_table.numpy(), pages, scores.numpy())
    return scores
