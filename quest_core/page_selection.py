"""Which pages a decode step reads: one class per policy, behind one interface.

A policy sees one layer's query and cache and returns a set of logical pages per kv head. It does not attend, and knows
nothing of tokens or text. `EVALUATION.md` has what each loses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType

import torch
from torch.nn.functional import pad

from quest_core.config import QuestConfig
from quest_core.eviction import H2OEviction, TokenEviction, TovaEviction
from quest_core.paged_kv_cache import LayerPages


@dataclass(frozen=True)
class SelectedPages:
    """Logical page ids, ascending, padded with -1.

    Args:
        page_ids: int32 [kv_heads, budget_pages].
        page_counts: int32 [kv_heads], how many of them are real.
        missed_share: float32 [] on the device, the share of attention that the policy gives to the other pages, meaned
            over the heads; None from a policy that knows no shares.
    """

    page_ids: torch.Tensor
    page_counts: torch.Tensor
    missed_share: torch.Tensor | None = None


class PageSelection:
    """Selects the best pages by the scores that a policy gives; the rest is the same for all.

    The first `sink_pages`, the last `recent_pages` full pages and the current page are always in.

    Args:
        config: budget and pages always read.
        page_size: tokens in a page.
        kernels: the device's operators.
    """

    summary = "bounds"  # what the page pool must keep of a page's keys, see `kernels.reference`
    scores_are_shares = False  # whether a kv head's scores add up to one
    stateful = False  # whether it must see every step, even those that read the whole context
    capturable = True  # whether a selection is launches alone, fit for a CUDA graph

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
        scores = self.score(grouped, pages, page_table, context_tokens)
        page_ids, page_counts = self._kernels.select_pages(
            scores,
            context_tokens,
            self._page_size,
            self._budget_pages,
            self._config.sink_pages,
            self._config.recent_pages,
        )
        return SelectedPages(page_ids, page_counts, self._missed_share(scores, page_ids))

    def _missed_share(self, scores: torch.Tensor, page_ids: torch.Tensor) -> torch.Tensor | None:
        if not self.scores_are_shares:
            return None
        read = scores.gather(1, page_ids.clamp(min=0).long()).masked_fill(page_ids < 0, 0.0)
        return 1.0 - read.sum() / len(scores)

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
            weights.unsqueeze(1),
            pages.page_summaries,
            page_table,
            context_tokens,
            self._page_size,
            pages.summary_scales,
        )[:, 0]


class MeanSelection(PageSelection):
    """The share of attention that each query head would give a page whose keys all equalled their mean.

    Each query head turns its logits into shares by a softmax over the pages, and the group's shares are meaned. A mean
    of logits would let the head with the largest logits decide for the others. With pages of 4 a mean says enough:
    finer pages are worth more than a second vector.
    """

    summary = "mean"
    scores_are_shares = True

    def score(self, queries, pages, page_table, context_tokens):
        weights = self._query_weights(queries) / math.sqrt(queries.shape[2])
        logits = self._kernels.page_scores(
            weights, pages.page_summaries, page_table, context_tokens, self._page_size, pages.summary_scales
        )
        return logits.softmax(dim=2).mean(dim=1)

    def _query_weights(self, queries: torch.Tensor) -> torch.Tensor:
        """The functions of the query that the summary's vectors are dotted with: [kv_heads, group, vectors, dim]."""
        return queries.unsqueeze(2)


class SpreadSelection(MeanSelection):
    """As `MeanSelection`, with a page's logit at `q @ mean + |q| @ deviation` (ArkVale, NeurIPS 2024)."""

    summary = "spread"

    def _query_weights(self, queries):
        return torch.stack((queries, queries.abs()), dim=2)


class OracleSelection(PageSelection):
    """The pages that truly get most of the attention, meaned over the group: what a budget could do at best.

    Reads every key to know; for evaluation.
    """

    scores_are_shares = True
    capturable = False

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


class RaasSelection(QuestSelection):
    """The whole prompt, and the generated pages that were important most recently (RaaS, arXiv 2502.11147).

    Quest's scores, turned into shares by a softmax over the pages still kept, stamp every page whose share exceeds
    `SHARE_THRESHOLD` with the step. Once more pages have been generated than the budget holds, the one with the oldest
    stamp is evicted for good; of equal stamps the earlier page. The prompt's pages do not count against the budget and
    are always read; the prompt is all that an answer finds in the cache. One instance serves one layer of one answer.
    """

    stateful = True
    capturable = False
    SHARE_THRESHOLD = 1e-4  # alpha in the paper

    def __init__(self, config: QuestConfig, page_size: int, kernels: ModuleType) -> None:
        super().__init__(config, page_size, kernels)
        self._step = 0
        self._pinned_pages = 0
        self._evicted_pages = 0  # per kv head
        self._stamps: torch.Tensor | None = None  # int64 [kv_heads, logical_pages], -1 for an evicted page

    def select(self, query, pages, page_table, context_tokens):
        kv_heads = pages.key_pages.shape[1]
        num_pages = len(page_table)
        if self._stamps is None:
            prompt_pages = -(-(int(context_tokens) - 1) // self._page_size)
            self._pinned_pages = max(prompt_pages, self._config.sink_pages)
            self._stamps = torch.zeros((kv_heads, prompt_pages), dtype=torch.int64, device=query.device)
        self._step += 1
        self._stamps = pad(self._stamps, (0, num_pages - self._stamps.shape[1]))
        grouped = query.float().view(kv_heads, -1, query.shape[1])
        self._stamp(self.score(grouped, pages, page_table, context_tokens) / math.sqrt(query.shape[1]))
        if num_pages - self._pinned_pages - self._evicted_pages > self._budget_pages:
            self._evict_oldest()
        return self._kept_pages()

    def _stamp(self, logits: torch.Tensor) -> None:
        evicted = self._stamps < 0
        shares = logits.masked_fill(evicted, float("-inf")).softmax(dim=1)
        self._stamps.masked_fill_(shares > self.SHARE_THRESHOLD, self._step)
        # The page being written is as recent as a page can be, whatever its share.
        self._stamps[:, -1] = self._step

    def _evict_oldest(self) -> None:
        num_pages = self._stamps.shape[1]
        evictable = self._stamps[:, self._pinned_pages : num_pages - 1 - self._config.recent_pages]
        age_order = evictable * num_pages + torch.arange(evictable.shape[1], device=evictable.device)
        oldest = age_order.masked_fill(evictable < 0, torch.iinfo(torch.int64).max).argmin(dim=1, keepdim=True)
        evictable.scatter_(1, oldest, -1)
        self._evicted_pages += 1

    def _kept_pages(self) -> SelectedPages:
        kv_heads, num_pages = self._stamps.shape
        count = num_pages - self._evicted_pages
        page_ids = torch.arange(num_pages, dtype=torch.int32, device=self._stamps.device).expand(kv_heads, -1)
        # Sorting the evicted to the end, rather than indexing with a mask, leaves the host nothing to wait for.
        page_ids = page_ids.masked_fill(self._stamps < 0, num_pages).sort(dim=1).values[:, :count].contiguous()
        return SelectedPages(page_ids, torch.full((kv_heads,), count, dtype=torch.int32, device=page_ids.device))


POLICIES: dict[str, type[PageSelection] | type[TokenEviction]] = {
    "mean": MeanSelection,
    "spread": SpreadSelection,
    "quest": QuestSelection,
    "oracle": OracleSelection,
    "streaming": StreamingSelection,
    "raas": RaasSelection,
    "h2o": H2OEviction,
    "tova": TovaEviction,
}
