"""Choose the pages and attend to them, one after the other."""

from __future__ import annotations

import torch

from kernels.cpu.choose_pages import choose_pages
from kernels.cpu.decode_attention import sparse_decode_attention
from kernels.reference import KvScales


def choose_and_attend(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    summary: str,
    scale: float,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    summary_scales: torch.Tensor | None = None,
    kv_scales: KvScales | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_choose_and_attend`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for another dtype, device or summary.
    """
    page_ids, page_counts, missed_share = choose_pages(
        query, page_summaries, page_table, context_tokens, key_pages.shape[2], summary, scale, summary_scales,
        budget_pages, sink_pages, recent_pages,
    )  # fmt: skip
    attended = sparse_decode_attention(
        query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale, kv_scales
    )
    return attended, page_ids, page_counts, missed_share
