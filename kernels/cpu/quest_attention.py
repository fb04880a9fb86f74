"""Choose pages and attend to them, one after the other."""

from __future__ import annotations

import torch

from kernels.cpu.choose_pages import choose_pages
from kernels.cpu.decode_attention import sparse_decode_attention


def quest_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_quest_attention`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for another dtype, device or summary.
    """
    page_size = key_pages.shape[2]
    chosen = choose_pages(
        query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales,
        budget_pages, sink_pages, recent_pages,
    )  # fmt: skip
    attended = sparse_decode_attention(query, key_pages, value_pages, page_table, *chosen[:2], context_tokens, scale)
    return attended, *chosen
