"""Which pages a decode step reads: one class per policy, behind one interface.

A policy sees one layer's query and cache and returns a set of logical pages per kv head. It does not attend, and knows
nothing of tokens or text.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch

from quest_core.config import QuestConfig
from quest_core.paged_kv_cache import LayerPages


@dataclass(frozen=True)
class SelectedPages:
    """Logical page ids, ascending, padded with -1.

    Args:
        page_ids: int32 [kv_heads, budget_pages].
        page_counts: int32 [kv_heads], how many of them are real.
    """

    page_ids: torch.Tensor
    page_counts: torch.Tensor


class PageSelection(Protocol):
    """A selection policy."""

    def select(
        self, query: torch.Tensor, pages: LayerPages, page_table: torch.Tensor, context_tokens: torch.Tensor
    ) -> SelectedPages:
        """Choose the pages one layer reads.

        Args:
            query: [query_heads, head_dim], after RoPE.
            pages: the layer's part of the pool.
            page_table: int32 [logical_pages].
            context_tokens: int32 [1] on the device, the current token included.
        """


class QuestSelection:
    """The pages whose bound on the attention logits is highest (arXiv 2406.10774, algorithm 1).

    Beyond the paper the first `sink_pages`, the last `recent_pages` full pages and the current page are always in.
    """

    def __init__(self, config: QuestConfig, page_size: int, kernels: ModuleType) -> None:
        self._config = config
        self._page_size = page_size
        self._budget_pages = config.budget_pages(page_size)
        self._kernels = kernels

    def select(
        self, query: torch.Tensor, pages: LayerPages, page_table: torch.Tensor, context_tokens: torch.Tensor
    ) -> SelectedPages:
        scores = self._kernels.page_scores(query, pages.page_bounds, page_table, context_tokens, self._page_size)
        page_ids, page_counts = self._kernels.select_pages(
            scores,
            context_tokens,
            self._page_size,
            self._budget_pages,
            self._config.sink_pages,
            self._config.recent_pages,
        )
        return SelectedPages(page_ids, page_counts)
