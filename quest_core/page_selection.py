"""Which pages a decode step reads: one class per policy, behind one interface.

A policy sees one layer's query and cache and returns a set of logical pages per kv head. It does not attend, and knows
nothing of tokens or text. `EVALUATION.md` has what each loses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType

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


class PageSelection:
    """Selects the best pages by the scores that a policy gives; the rest is the same for all.

    The first `sink_pages`, the last `recent_pages` full pages and the current page are always in.

    Args:
        config: budget and pages always read.
        page_size: tokens in a page.
        kernels: the device's operators.
    """

    summary = "bounds"  # what the page pool must keep of a page's keys, see `kernels.reference`

    def __init__(self, config: QuestConfig, page_size: int, kernels: ModuleType) -> None:
        self._config = config
        self._page_size = page_size
        self._budget_pages = config.budget_pages(page_size)
        self._kernels = kernels

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
        grouped = query.float().view(pages.key_pages.shape[1], -1, query.shape[1])
        page_ids, page_counts = self._kernels.select_pages(
            self.score(grouped, pages, page_table, context_tokens),
            context_tokens,
            self._page_size,
            self._budget_pages,
            self._config.sink_pages,
            self._config.recent_pages,
        )
        return SelectedPages(page_ids, page_counts)

    def score(
        self, queries: torch.Tensor, pages: LayerPages, page_table: torch.Tensor, context_tokens: torch.Tensor
    ) -> torch.Tensor:
        """How much each page is worth reading.

        Args:
            queries: float32 [kv_heads, group, head_dim].

        Returns:
            float32 [kv_heads, logical_pages].
        """
        raise NotImplementedError


class QuestSelection(PageSelection):
    """The upper bound of a page's attention logits (arXiv 2406.10774, algorithm 1), meaned over the group.

    `sum_d max(q_d min_d, q_d max_d)` is `relu(q) @ max - relu(-q) @ min`, which is linear in relu(q) and relu(-q):
    their means over the group are taken first, so that a kv head is scored once.
    """

    def score(self, queries, pages, page_table, context_tokens):
        weights = torch.stack((-(-queries).relu().mean(dim=1), queries.relu().mean(dim=1)), dim=1)
        return self._kernels.page_scores(
            weights.unsqueeze(1), pages.page_summaries, page_table, context_tokens, self._page_size
        )[:, 0]


class SpreadSelection(PageSelection):
    """The share of attention that each query head would give a page, estimated from its keys' mean and deviation.

    A page's logit is `q @ mean + |q| @ deviation` (ArkVale, NeurIPS 2024); each query head turns its logits into shares
    by a softmax over the pages, and the group's shares are meaned. A mean of logits would let the head with the largest
    logits decide for the others.
    """

    summary = "spread"

    def score(self, queries, pages, page_table, context_tokens):
        weights = torch.stack((queries, queries.abs()), dim=2) / math.sqrt(queries.shape[2])
        logits = self._kernels.page_scores(
            weights, pages.page_summaries, page_table, context_tokens, self._page_size
        )
        return logits.softmax(dim=2).mean(dim=1)


class OracleSelection(PageSelection):
    """The pages that truly get most of the attention, meaned over the group: what a budget could do at best.

    Reads every key to know; for evaluation.
    """

    def score(self, queries, pages, page_table, context_tokens):
        keys = pages.key_pages[page_table.long()].float()  # [logical_pages, kv_heads, page_size, head_dim]
        logits = torch.einsum("hgd,phsd->hgps", queries, keys) / math.sqrt(queries.shape[2])
        tokens = torch.arange(logits.shape[2] * self._page_size, device=logits.device).view(logits.shape[2:])
        logits = logits.masked_fill(tokens >= context_tokens, float("-inf"))
        return logits.flatten(2).softmax(dim=2).view(logits.shape).sum(dim=3).mean(dim=1)


class StreamingSelection(PageSelection):
    """The first page and the most recent ones (attention sinks, arXiv 2309.17453)."""

    def score(self, queries, pages, page_table, context_tokens):
        recency = torch.arange(len(page_table), dtype=torch.float32, device=queries.device)
        return recency.expand(len(queries), -1).contiguous()


POLICIES: dict[str, type[PageSelection]] = {
    "spread": SpreadSelection,
    "quest": QuestSelection,
    "oracle": OracleSelection,
    "streaming": StreamingSelection,
}
