"""Choose the pages to read from their scores; Numba.

Finds the lowest score that still gets in by partitioning, then collects the pages in order: a set needs no sort.
"""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import compiled, require_float32


@compiled
def _select_pages(scores, pages, sink_pages, recent_pages, page_ids):
    kv_heads, budget_pages = page_ids.shape
    count = min(budget_pages, pages)
    for head in range(kv_heads):
        ranked = scores[head, :pages].copy()
        ranked[:sink_pages] = np.inf
        ranked[max(0, pages - 1 - recent_pages) :] = np.inf
        lowest = np.partition(ranked, pages - count)[pages - count]
        ties = count
        for logical in range(pages):
            if ranked[logical] > lowest:
                ties -= 1
        taken = 0
        for logical in range(pages):
            if ranked[logical] > lowest:
                page_ids[head, taken] = logical
                taken += 1
            elif ranked[logical] == lowest and ties > 0:
                page_ids[head, taken] = logical
                taken += 1
                ties -= 1
        page_ids[head, count:] = -1


def select_pages(
    scores: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `kernels.reference.naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for scores that are not float32.
    """
    require_float32(scores=scores)
    if budget_pages < 1 + sink_pages + recent_pages:
        raise ValueError(f"budget_pages {budget_pages} is less than the pages that are always read")
    pages = -(-int(context_tokens) // page_size)
    page_ids = torch.empty(scores.shape[0], budget_pages, dtype=torch.int32)
    _select_pages(scores.numpy(), pages, sink_pages, recent_pages, page_ids.numpy())
    return page_ids, torch.full((scores.shape[0],), min(budget_pages, pages), dtype=torch.int32)
