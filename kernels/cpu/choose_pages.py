"""Score pages and select the best of them, one after the other."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView
from kernels.cpu.page_scores import page_scores
from kernels.cpu.select_pages import select_pages


def choose_pages(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> SelectedPages:
    """As `kernels.reference.naive_choose_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for another dtype, device or layout.
    """
    layout = cache.layout
    scores = page_scores(query, cache, sequence, scale)
    return select_pages(scores, sequence.length_tokens, layout.page_size, budget, layout.summary.scores_are_logits)
