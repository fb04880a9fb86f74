"""Choose the pages and attend to them, one after the other."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView
from kernels.cpu.choose_pages import choose_pages
from kernels.cpu.decode_attention import sparse_decode_attention


def choose_and_attend(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> tuple[torch.Tensor, SelectedPages]:
    """As `kernels.reference.naive_choose_and_attend`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for another dtype, device or layout.
    """
    selected = choose_pages(query, cache, sequence, budget, scale)
    return sparse_decode_attention(query, cache, sequence, selected, scale), selected
