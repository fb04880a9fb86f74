"""Score KV pages from their summaries; Numba."""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import compiled, require_float32, require_summaries
from kernels.reference import check_summary


@compiled
def _page_scores(functions, page_summaries, summary_scales, page_table, pages, scores):
    kv_heads, rows, vectors, head_dim = functions.shape
    for head in range(kv_heads):
        for logical in range(pages):
            page = page_table[logical]
            for row in range(rows):
                score = np.float32(0.0)
                for v in range(vectors):
                    product = np.float32(0.0)
                    for d in range(head_dim):
                        product += functions[head, row, v, d] * np.float32(page_summaries[page, head, v, d])
                    # Numba compiles only the branch that the type of `summary_scales` leaves.
                    if summary_scales is None:
                        score += product
                    else:
                        score += product * summary_scales[page, head, v]
                scores[head, row, logical] = score
        scores[head, :, pages:] = -np.inf


def page_scores(
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`; float32 queries, float32 or int8 summaries.

    Raises:
        ValueError: for another dtype, device or summary.
    """
    require_float32(query=query)
    require_summaries(page_summaries, summary_scales, check_summary(summary))
    functions = _query_functions(query.numpy() * np.float32(scale), page_summaries.shape[1], summary)
    pages = -(-int(context_tokens) // page_size)
    scores = torch.empty(*functions.shape[:2], len(page_table))
    _page_scores(
        functions,
        page_summaries.numpy(),
        None if summary_scales is None else summary_scales.numpy(),
        page_table.numpy(),
        pages,
        scores.numpy(),
    )
    return scores


def _query_functions(query: np.ndarray, kv_heads: int, summary: str) -> np.ndarray:
    """What the summary vectors are dotted with: [kv_heads, rows, vectors, head_dim]."""
    grouped = query.reshape(kv_heads, -1, query.shape[1])
    if summary == "bounds":
        return np.stack((np.minimum(grouped, 0).mean(axis=1), np.maximum(grouped, 0).mean(axis=1)), axis=1)[:, None]
    if summary == "mean":
        return grouped[:, :, None]
    return np.stack((grouped, np.abs(grouped)), axis=2)
