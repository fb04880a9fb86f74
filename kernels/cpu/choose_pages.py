"""Score pages and select the best of them, one after the other."""

from __future__ import annotations

import torch

from kernels.cpu.page_scores import page_scores
from kernels.cpu.select_pages import select_pages
from kernels.reference import SUMMARY_LOGITS


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
        ValueError: if the budget is smaller than what is always read, or for another dtype, device or summary.
    """
    scores = page_scores(query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales)
    logits = SUMMARY_LOGITS[summary]
    return select_pages(scores, context_tokens, page_size, budget_pages, sink_pages, recent_pages, logits)
