"""Which pages are read: those always read, then the best scores."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView, check_selection
from kernels.score.reference import naive_page_scores


def naive_select_pages(
    scores: torch.Tensor, length_tokens: torch.Tensor, page_size: int, budget: PageBudget, logits: bool
) -> SelectedPages:
    """The pages to read: those always read, then the best scores; of equal scores the earlier page.

    Always read are the page of the last token, the first `sink_pages`, and the `recent_pages` before the last.

    Args:
        scores: float32 [kv_heads, rows, logical_pages].
        length_tokens: int32 [1].
        page_size: tokens in a page.
        budget: pages to read per kv head.
        logits: whether the scores are logits. If so, a softmax over the pages gives each row's attention, and a page is
            ranked by its softmax mass, averaged over the rows. Otherwise there must be one row, which ranks the pages.

    Raises:
        ValueError: if the budget is smaller than what is always read, or several rows are no logits.
    """
    check_selection(scores, budget, logits)
    pages = -(-int(length_tokens) // page_size)
    importance = scores[:, :, :pages].softmax(dim=2).mean(dim=1) if logits else scores[:, 0, :pages]
    ranked = importance.clone()
    ranked[:, : budget.sink_pages] = float("inf")
    ranked[:, max(0, pages - 1 - budget.recent_pages) :] = float("inf")
    count = min(budget.pages, pages)
    best = ranked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    page_ids = torch.full((len(scores), budget.pages), -1, dtype=torch.int32, device=scores.device)
    page_ids[:, :count] = best.sort(dim=1).values.int()
    page_counts = torch.full((len(scores),), count, dtype=torch.int32, device=scores.device)
    return SelectedPages(page_ids, page_counts, 1.0 - importance.gather(1, best).sum(dim=1) if logits else None)


def naive_choose_pages(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> SelectedPages:
    """Score pages and select the best; arguments as for `naive_page_scores` and `naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read.
    """
    scores, layout = naive_page_scores(query, cache, sequence, scale), cache.layout
    logits = layout.summary.scores_are_logits
    return naive_select_pages(scores, sequence.length_tokens, layout.page_size, budget, logits)
