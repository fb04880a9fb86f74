"""Choose the pages to read from their scores; Numba.

Finds the lowest score that still gets in by partitioning, then collects the pages in order: a set needs no sort.
"""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import compiled, require_float32
from kernels.cpu.exponentials import exponentiate
from kernels.reference import check_selection


@compiled
def _add_shares(logits, shares):
    """Add a row's softmax to `shares`."""
    highest = np.float32(-np.inf)
    for page in range(len(logits)):
        highest = max(highest, logits[page])
    weights = np.empty(len(logits), dtype=np.float32)
    inverse = np.float32(1.0) / exponentiate(logits, highest, weights)
    for page in range(len(logits)):
        shares[page] += weights[page] * inverse


@compiled
def _select_pages(scores, pages, sink_pages, recent_pages, logits, page_ids, missed_share):
    kv_heads, budget_pages = page_ids.shape
    rows = scores.shape[1]
    count = min(budget_pages, pages)
    for head in range(kv_heads):
        worth = np.zeros(pages, dtype=np.float32)
        if logits:
            for row in range(rows):
                _add_shares(scores[head, row, :pages], worth)
        else:
            worth[:] = scores[head, 0, :pages]
        ranked = worth.copy()
        ranked[:sink_pages] = np.inf
        ranked[max(0, pages - 1 - recent_pages) :] = np.inf
        lowest = np.partition(ranked, pages - count)[pages - count]
        ties = count
        for logical in range(pages):
            if ranked[logical] > lowest:
                ties -= 1
        taken = 0
        read = np.float32(0.0)
        for logical in range(pages):
            if ranked[logical] > lowest or (ranked[logical] == lowest and ties > 0):
                if ranked[logical] == lowest:
                    ties -= 1
                page_ids[head, taken] = logical
                taken += 1
                read += worth[logical]
        page_ids[head, count:] = -1
        missed_share[head] = 1.0 - read / rows


def select_pages(
    scores: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    logits: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, several rows are no logits, or scores are not
            float32.
    """
    require_float32(scores=scores)
    check_selection(scores, budget_pages, sink_pages, recent_pages, logits)
    pages = -(-int(context_tokens) // page_size)
    page_ids = torch.empty(scores.shape[0], budget_pages, dtype=torch.int32)
    missed_share = torch.empty(scores.shape[0])
    _select_pages(
        scores.numpy(), pages, sink_pages, recent_pages, logits, page_ids.numpy(), missed_share.numpy()
    )
    page_counts = torch.full((scores.shape[0],), min(budget_pages, pages), dtype=torch.int32)
    return page_ids, page_counts, missed_share if logits else None
