"""Score pages and select the best of them; selection goes on with what scoring has summed up."""

from __future__ import annotations

import torch

from kernels.gpu.narrow_pages import narrow_and_score
from kernels.gpu.page_scores import score_and_sum_up
from kernels.gpu.select_pages import select_from
from kernels.reference import SUMMARY_LOGITS, check_budget, check_levels, narrows


def choose_pages(
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_choose_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or a tensor is not on a GPU or of a matching
            shape and dtype, or for another summary.
    """
    check_budget(budget_pages, sink_pages, recent_pages)
    scoring = (query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales)
    plan = (context_tokens, page_size, budget_pages, sink_pages, recent_pages)
    if narrows(check_levels(page_summaries, summary), len(page_table), budget_pages):
        superpage_ids, *ranking = narrow_and_score(*scoring, budget_pages, sink_pages, recent_pages, early=False)
        return select_from(*ranking, *plan, len(page_table), superpage_ids)
    return select_from(*score_and_sum_up(*scoring, shares=SUMMARY_LOGITS[summary]), *plan)
