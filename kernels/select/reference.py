"""Which pages are read: those always read, then the best scores."""

from __future__ import annotations

import math

import torch

from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView, check_selection
from kernels.score.reference import naive_page_scores, score_summaries
from kernels.select.coarse_to_fine import SUPERPAGE_PAGES, candidate_pages, is_coarse_to_fine


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
    importance = _importance(scores[:, :, :pages], logits)
    page_ids, page_counts, best = _take_best(importance, budget)
    return SelectedPages(page_ids, page_counts, 1.0 - importance.gather(1, best).sum(dim=1) if logits else None)


def _importance(scores: torch.Tensor, logits: bool) -> torch.Tensor:
    """What pages are ranked by, float32 [kv_heads, pages]."""
    return scores.softmax(dim=2).mean(dim=1) if logits else scores[:, 0]


def _take_best(
    importance: torch.Tensor, budget: PageBudget
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Select among the pages of a sequence by their importance, float32 [kv_heads, pages].

    Returns:
        page_ids, page_counts: as in `SelectedPages`.
        best: int64 [kv_heads, count], the same pages, the best first.
    """
    kv_heads, pages = importance.shape
    ranked = importance.clone()
    ranked[:, : budget.sink_pages] = float("inf")
    ranked[:, max(0, pages - 1 - budget.recent_pages) :] = float("inf")
    count = min(budget.pages, pages)
    best = ranked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    page_ids = torch.full((kv_heads, budget.pages), -1, dtype=torch.int32, device=importance.device)
    page_ids[:, :count] = best.sort(dim=1).values.int()
    return page_ids, torch.full((kv_heads,), count, dtype=torch.int32, device=importance.device), best


def naive_choose_pages(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> SelectedPages:
    """Score pages and select the best; arguments as for `naive_page_scores` and `naive_select_pages`.

    Where `is_coarse_to_fine` says so, only the pages of the best superpages are scored. Superpages are selected as
    pages are; those with pages that are always read are always among them. For the softmax mass, every page of the
    other superpages has its superpage's logit.

    Raises:
        ValueError: if the budget is smaller than what is always read.
    """
    layout, logits = cache.layout, cache.layout.summary.scores_are_logits
    scores = naive_page_scores(query, cache, sequence, scale)
    if not is_coarse_to_fine(layout.summary_levels, sequence.logical_pages, budget.pages):
        return naive_select_pages(scores, sequence.length_tokens, layout.page_size, budget, logits)
    check_selection(scores, budget, logits)
    ranked, others = _keep_candidates(scores, query, cache, sequence, budget, scale)
    if not logits:
        page_ids, page_counts, _ = _take_best(ranked[:, 0], budget)
        return SelectedPages(page_ids, page_counts)
    importance = torch.cat((ranked, others), dim=2).softmax(dim=2)[:, :, :-1].mean(dim=1)
    page_ids, page_counts, best = _take_best(importance, budget)
    return SelectedPages(page_ids, page_counts, 1.0 - importance.gather(1, best).sum(dim=1))


def _keep_candidates(
    scores: torch.Tensor,
    query: torch.Tensor,
    cache: LayerCache,
    sequence: SequenceView,
    budget: PageBudget,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the scores of the candidates, the pages of the best superpages.

    Returns:
        float32 [kv_heads, rows, pages of the sequence], -inf for pages that are no candidates; and [kv_heads, rows, 1],
        one logit for all of those together, each taken with its superpage's logit.
    """
    summary = cache.layout.summary
    pages = -(-int(sequence.length_tokens) // cache.layout.page_size)
    superpages = -(-pages // SUPERPAGE_PAGES)
    last_pages = (torch.arange(1, superpages + 1, device=scores.device) * SUPERPAGE_PAGES).clamp(max=pages) - 1
    of_superpage = slice(summary.vectors, None)
    superpage_scores = score_summaries(query, cache, sequence.page_table[last_pages], of_superpage, scale)
    importance = _importance(superpage_scores, summary.scores_are_logits)
    always = (-(-each // SUPERPAGE_PAGES) for each in (budget.sink_pages, budget.recent_pages))
    _, _, best = _take_best(importance, PageBudget(candidate_pages(budget.pages) // SUPERPAGE_PAGES, *always))
    chosen = torch.zeros_like(importance, dtype=torch.bool).scatter_(1, best, True)[:, None]
    candidates = chosen.repeat_interleave(SUPERPAGE_PAGES, dim=2)[:, :, :pages]
    others = superpage_scores.masked_fill(chosen, float("-inf")).logsumexp(dim=2, keepdim=True)
    return scores[:, :, :pages].masked_fill(~candidates, float("-inf")), others + math.log(SUPERPAGE_PAGES)
