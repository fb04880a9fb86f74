"""Score KV pages from their summaries; Numba, float32."""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import compiled, require_float32


@compiled
def _page_scores(query_weights, page_summaries, page_table, pages, scores):
    kv_heads, rows, _, head_dim = query_weights.shape
    for head in range(kv_heads):
        for logical in range(pages):
            summary = page_summaries[page_table[logical], head]
            for row in range(rows):
                weights = query_weights[head, row]
                score = np.float32(0.0)
                for d in range(head_dim):
                    score += weights[0, d] * summary[0, d] + weights[1, d] * summary[1, d]
                scores[head, row, logical] = score
        scores[head, :, pages:] = -np.inf


def page_scores(
    query_weights: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`; float32 only.

    Raises:
        ValueError: for another dtype or device.
    """
    require_float32(query_weights=query_weights, page_summaries=page_summaries)
    pages = -(-int(context_tokens) // page_size)
    scores = torch.empty(*query_weights.shape[:2], len(page_table))
    _page_scores(query_weights.numpy(), page_summaries.numpy(), page_table.numpy(), pages, scores.numpy())
    return scores
