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
        missed_share: float32 [kv_heads] on the device, the share of attention that the policy gives to the other
            pages; None from a policy that knows no shares.
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
    scores_are_logits = False  # whether a softmax over the pages makes shares of attention of them
    stateful = False  # whether it must see every step, even those that read the whole context
    capturable = True  # whether a selection is launches alone, fit for a CUDA graph
    scores_summaries = True  # whether scores are `page_scores` of the pool's summaries, with no say of its own

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
        selected = self._kernels.choose_pages(
            query,
            pages.page_summaries,
            page_table,
            context_tokens,
            self._page_size,
            self.summary,
            1.0 / math.sqrt(query.shape[1]),
            pages.summary_scales,
            self._budget_pages,
            self._config.sink_pages,
            self._config.recent_pages,
        )
        return SelectedPages(*selected)

    def attend(
        self,
        query: torch.Tensor,
        pages: LayerPages,
        page_table: torch.Tensor,
        context_tokens: torch.Tensor,
        scale: float,
    ) -> tuple[torch.Tensor, SelectedPages]:
        """Choose the pages one layer reads and attend to them; arguments as for `select`, and the logits' scale.

        Returns:
            what is attended, [query_heads, head_dim] in the query's dtype, and the pages.
        """
        if self.scores_summaries:
            attended, *selected = self._kernels.choose_and_attend(
                query,
                pages.key_pages,
                pages.value_pages,
                pages.page_summaries,
                page_table,
                context_tokens,
                self.summary,
                scale,
                self._budget_pages,
                self._config.sink_pages,
                self._config.recent_pages,
                pages.summary_scales,
                pages.kv_scales,
            )
            return attended, SelectedPages(*selected)
        selected = self.select(query, pages, page_table, context_tokens)
        attended = self._kernels.sparse_decode_attention(
            query,
            pages.key_pages,
            pages.value_pages,
            page_table,
            selected.page_ids,
            selected.page_counts,
            context_tokens,
            scale,
            pages.kv_scales,
        )
        return attended, selected

    def score(
        self, query: torch.Tensor, pages: LayerPages, page_table: torch.Tensor, context_tokens: torch.Tensor
    ) -> torch.Tensor:
        """How much each page is worth reading; arguments as for `select`.

        Returns:
            float32 [kv_heads, rows, logical_pages]; with several rows a kv head, they are logits.
        """
        return self._kernels.page_scores(
            query,
            pages.page_summaries,
            page_table,
            context_tokens,
            self._page_size,
            self.summary,
            1.0 / math.sqrt(query.shape[1]),
            pages.summary_scales,
        )


class QuestSelection(PageSelection):
    """The upper bound of a page's attention logits, meaned over the group (arXiv 2406.10774, algorithm 1)."""


class MeanSelection(PageSelection):
    """The share of attention that each query head would give a page whose keys all equalled their mean.

    Each query head turns its logits into shares by a softmax over the pages, and the group's shares are meaned. A mean
    of logits would let the head with the largest logits decide for the others. With pages of 4 a mean says enough:
    finer pages are worth more than a second vector.
    """

    summary = "mean"
    scores_are_logits = True


class SpreadSelection(PageSelection):
    """As `MeanSelection`, with a page's logit at `q @ mean + |q| @ deviation` (ArkVale, NeurIPS 2024)."""

    summary = "spread"
    scores_are_logits = True


class ScoredSelection(PageSelection):
    """Selects by scores of its own instead of the summaries'."""

    def select(self, query, pages, page_table, context_tokens):
        selected = self._kernels.select_pages(
            self.score(query, pages, page_table, context_tokens),
            context_tokens,
            self._page_size,
            self._budget_pages,
            self._config.sink_pages,
            self._config.recent_pages,
            self.scores_are_logits,
        )
        return SelectedPages(*selected)


class OracleSelection(ScoredSelection):
    """The pages that truly get most of the attention, meaned over the group: what a budget could do at best.

    A page's logit is the logarithm of its keys' summed weights. Reads every key to know; for evaluation.
    """

    scores_are_logits = True
    capturable = False
    scores_summaries = False

    def score(self, query, pages, page_table, context_tokens):
        queries = query.float().view(pages.key_pages.shape[1], -1, query.shape[1])
        keys = pages.keys_at(page_table.long())  # [logical_pages, kv_heads, page_size, head_dim]
        logits = torch.einsum("hgd,phsd->hgps", queries, keys) / math.sqrt(query.shape[1])
        tokens = torch.arange(logits.shape[2] * self._page_size, device=logits.device).view(logits.shape[2:])
        return logits.masked_fill(tokens >= context_tokens, float("-inf")).logsumexp(dim=3)


class StreamingSelection(ScoredSelection):
    """The first page and the most recent ones (attention sinks, arXiv 2309.17453)."""

    scores_summaries = False

    def score(self, query, pages, page_table, context_tokens):
        recency = torch.arange(len(page_table), dtype=torch.float32, device=query.device)
        return recency.expand(pages.key_pages.shape[1], 1, -1).contiguous()


class RaasSelection(QuestSelection):
    """The whole prompt, and the generated pages that were important most recently (RaaS, arXiv 2502.11147).

    Quest's scores, turned into shares by a softmax over the pages still kept, stamp every page whose share exceeds
    `SHARE_THRESHOLD` with the step. Once more pages have been generated than the budget holds, the one with the oldest
    stamp is evicted for good; of equal stamps the earlier page. The prompt's pages do not count against the budget and
    are always read; the prompt is all that an answer finds in the cache. One instance serves one layer of one answer.
    """

    stateful = True
    capturable = False
    scores_summaries = False
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
        self._stamp(self.score(query, pages, page_table, context_tokens)[:, 0])
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
