"""Score KV pages from their summaries; Numba."""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import compiled, require_float32, require_summaries


@compiled
def _page_scores(query_weights, page_summaries, summary_scales, page_table, pages, scores):
    kv_heads, rows, vectors, head_dim = query_weights.shape
    for head in range(kv_heads):
        for logical in range(pages):
            page = page_table[logical]
            for row in range(rows):
                score = np.float32(0.0)
                for v in range(vectors):
                    product = np.float32(0.0)
                    for d in range(head_dim):
                        product += query_weights[head, row, v, d] * np.float32(page_summaries[page, head, v, d])
                    # Numba compiles only the branch that the type of `summary_scales` leaves.
                    if summary_scales is None:
                        score += product
                    else:
                        score += product * summary_scales[page, head, v]
                scores[head, row, logical] = score
        scores[head, :, pages:] = -np.inf


def page_scores(
    query_weights: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary_scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`; float32 query weights, float32 or int8 summaries.

    Raises:
        ValueError: for another dtype, device or shape.
    """
    require_float32(query_weights=query_weights)
    require_summaries(page_summaries, summary_scales, query_weights.shape[2])
    pages = -(-int(context_tokens) // page_size)
    scores = torch.empty(*query_weights.shape[:2], len(page_table))
    _page_scores(
        query_weights.numpy(),
        page_summaries.numpy(),
        None if summary_scales is None else summary_scales.numpy(),
        page_table.numpy(),
        pages,
        scores.numpy(),
    )
    return scores
