"""Which pages a decode step reads: one class per policy, behind one interface.

A policy sees one layer's query and cache and returns a set of logical pages per kv head. It does not attend, and knows
nothing of tokens or text. `EVALUATION.md` has what each loses.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from kernels.contract import Kernels, LayerCache, PageBudget, SelectedPages, SequenceView
from quest_core.config import QuestConfig
from quest_core.eviction import H2OEviction, TokenEviction, TovaEviction


def page_budget(config: QuestConfig, page_size: int) -> PageBudget:
    """What `config` lets a token read of each kv head.

    Raises:
        ValueError: if the budget cannot hold the pages that are always read.
    """
    return PageBudget(config.budget_pages(page_size), config.sink_pages, config.recent_pages)


class PageSelection:
    """Selects the best pages by the scores that a policy gives; the rest is the same for all.

    The first `sink_pages`, the last `recent_pages` full pages and the current page are always in.

    Args:
        budget: of pages.
        kernels: the device's operators.
    """

    summary = "bounds"  # what the page pool must keep of a page's keys, of `kernels.contract.SUMMARIES`
    scores_are_logits = False  # whether a softmax over the pages makes attention of them
    stateful = False  # whether it must see every step, even those that read the whole context
    capturable = True  # whether a selection is launches alone, fit for a CUDA graph
    scores_summaries = True  # whether scores are `page_scores` of the pool's summaries, with no say of its own

    def __init__(self, budget: PageBudget, kernels: Kernels) -> None:
        self._budget = budget
        self._kernels = kernels

    def select(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
    ) -> SelectedPages:
        """Choose the pages one layer reads.

        Args:
            query: [query_heads, head_dim], after RoPE.
            cache: of the layer.
            sequence: the current token included.
            scale: of the attention's logits.
        """
        return self._kernels.choose_pages(query, cache, sequence, self._budget, scale)

    def attend(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
    ) -> tuple[torch.Tensor, SelectedPages]:
        """Choose the pages one layer reads and attend to them; arguments as for `select`.

        Returns:
            what is attended, [query_heads, head_dim] in the query's dtype, and the pages.
        """
        if self.scores_summaries:
            return self._kernels.choose_and_attend(query, cache, sequence, self._budget, scale)
        selected = self.select(query, cache, sequence, scale)
        return self._kernels.sparse_decode_attention(query, cache, sequence, selected, scale), selected

    def score(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
    ) -> torch.Tensor:
        """How important each page is; arguments as for `select`.

        Returns:
            float32 [kv_heads, rows, logical_pages]; with several rows a kv head, they are logits.
        """
        return self._kernels.page_scores(query, cache, sequence, scale)


class QuestSelection(PageSelection):
    """The upper bound of a page's attention logits, averaged over the group (arXiv 2406.10774, algorithm 1)."""


class MeanSelection(PageSelection):
    """The softmax mass that each query head would give a page whose keys all equalled their mean.

    Each query head turns its logits into mass by a softmax over the pages, and the group's is averaged. A mean of
    logits would let the head with the largest logits decide for the others. With pages of 4 a mean says enough: finer
    pages gain more than a second vector.
    """

    summary = "mean"
    scores_are_logits = True


class SpreadSelection(PageSelection):
    """As `MeanSelection`, with a page's logit at `q @ mean + |q| @ deviation` (ArkVale, NeurIPS 2024)."""

    summary = "spread"
    scores_are_logits = True


class ScoredSelection(PageSelection):
    """Selects by scores of its own instead of the summaries'."""

    def select(self, query, cache, sequence, scale):
        scores = self.score(query, cache, sequence, scale)
        page_size, logits = cache.layout.page_size, self.scores_are_logits
        return self._kernels.select_pages(scores, sequence.length_tokens, page_size, self._budget, logits)


class OracleSelection(ScoredSelection):
    """The pages that truly get most of the attention, averaged over the group: what a budget could do at best.

    A page's logit is the logarithm of its keys' summed weights. Reads every key to know; for evaluation.
    """

    scores_are_logits = True
    capturable = False
    scores_summaries = False

    def score(self, query, cache, sequence, scale):
        layout = cache.layout
        queries = query.float().view(layout.kv_heads, -1, layout.head_dim)
        keys = cache.keys_at(sequence.page_table.long())  # [logical_pages, kv_heads, page_size, head_dim]
        logits = torch.einsum("hgd,phsd->hgps", queries, keys) * scale
        tokens = torch.arange(logits.shape[2] * layout.page_size, device=logits.device).view(logits.shape[2:])
        return logits.masked_fill(tokens >= sequence.length_tokens, float("-inf")).logsumexp(dim=3)


class StreamingSelection(ScoredSelection):
    """The first page and the most recent ones (attention sinks, arXiv 2309.17453)."""

    scores_summaries = False

    def score(self, query, cache, sequence, scale):
        recency = torch.arange(sequence.logical_pages, dtype=torch.float32, device=query.device)
        return recency.expand(cache.layout.kv_heads, 1, -1).contiguous()


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

    def __init__(self, budget: PageBudget, kernels: Kernels) -> None:
        super().__init__(budget, kernels)
        self._step = 0
        self._pinned_pages = 0
        self._evicted_pages = 0  # per kv head
        self._stamps: torch.Tensor | None = None  # int64 [kv_heads, logical_pages], -1 for an evicted page

    def select(self, query, cache, sequence, scale):
        num_pages = sequence.logical_pages
        if self._stamps is None:
            prompt_pages = -(-(int(sequence.length_tokens) - 1) // cache.layout.page_size)
            self._pinned_pages = max(prompt_pages, self._budget.sink_pages)
            stamps = (cache.layout.kv_heads, prompt_pages)
            self._stamps = torch.zeros(stamps, dtype=torch.int64, device=query.device)
        self._step += 1
        self._stamps = pad(self._stamps, (0, num_pages - self._stamps.shape[1]))
        self._stamp(self.score(query, cache, sequence, scale)[:, 0])
        if num_pages - self._pinned_pages - self._evicted_pages > self._budget.pages:
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
        evictable = self._stamps[:, self._pinned_pages : num_pages - 1 - self._budget.recent_pages]
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
