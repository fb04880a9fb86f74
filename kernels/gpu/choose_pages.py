"""Score pages and select the best of them; selection goes on with what scoring has summed up."""

from __future__ import annotations

import torch

from kernels.gpu.page_scores import score_and_sum_up
from kernels.gpu.select_pages import select_from
from kernels.reference import SUMMARY_LOGITS, check_selection


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
    logits = SUMMARY_LOGITS[summary]
    scores, highest, total = score_and_sum_up(
        query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales, shares=logits
    )
    check_selection(scores, budget_pages, sink_pages, recent_pages, logits)
    return select_from(scores, highest, total, context_tokens, page_size, budget_pages, sink_pages, recent_pages)
