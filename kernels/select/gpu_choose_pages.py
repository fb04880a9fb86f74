"""Score pages and select the best of them; selection starts from the block sums that scoring left."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView
from kernels.score.gpu import require_scoring, score
from kernels.select.gpu import select_from


def choose_pages(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> SelectedPages:
    """As `kernels.reference.naive_choose_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or a tensor is not on a GPU or of a matching
            shape and dtype.
    """
    budget.check()
    require_scoring(query, cache, sequence)
    return score_and_select(query, cache, sequence, budget, scale)


def score_and_select(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> SelectedPages:
    """As `choose_pages`, after all has been checked."""
    layout = cache.layout
    scored = score(query, cache, sequence, scale, sums_up=layout.summary.scores_are_logits)
    return select_from(scored, sequence.length_tokens, layout.page_size, budget)
