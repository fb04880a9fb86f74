"""Other ways to choose the pages that a decode step reads: one class a policy, behind one interface.

A policy sees one layer's query and cache and returns a set of logical pages for each kv head.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch.nn.functional import pad

from kernels.contract import Kernels, LayerCache, PageBudget, SelectedPages, SequenceView
from quest_core.config import QuestConfig
from quest_core.decode.attention import DecodeAttention, QuestMethod, page_budget
from quest_core.decode.read_trace import StepReads


class PagePolicy:
    """Chooses the pages of one layer in the steps of one answer.

    Args:
        budget: of pages.
        kernels: the device's operators.
    """

    sees_every_step = False  # even those that read the whole sequence

    def __init__(self, budget: PageBudget, kernels: Kernels) -> None:
        self._budget = budget
        self._kernels = kernels

    def select(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
    ) -> SelectedPages:
        """Choose the pages to read.

        Args:
            query: [query_heads, head_dim], after RoPE.
            cache: of the layer.
            sequence: the current token included.
            scale: of the attention's logits.
        """
        raise NotImplementedError


class ScoredPages(PagePolicy):
    """The pages with the best scores, and those that Quest always reads."""

    scores_are_logits = False  # whether a softmax over the pages makes attention of them

    def select(self, query, cache, sequence, scale):
        scores = self.score(query, cache, sequence, scale)
        page_size, logits = cache.layout.page_size, self.scores_are_logits
        return self._kernels.select_pages(scores, sequence.length_tokens, page_size, self._budget, logits)

    def score(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
    ) -> torch.Tensor:
        """How important each page is; arguments as for `select`.

        Returns:
            float32 [kv_heads, rows, logical_pages]; with several rows a kv head, they are logits.
        """
        raise NotImplementedError


class OraclePages(ScoredPages):
    """The pages that truly get most of the attention, averaged over the group: what a budget could do at best.

    A page's logit is the logarithm of its keys' summed weights. Reads every key to know.
    """

    scores_are_logits = True

    def score(self, query, cache, sequence, scale):
        layout = cache.layout
        queries = query.float().view(layout.kv_heads, -1, layout.head_dim)
        keys = cache.keys_at(sequence.page_table.long())  # [logical_pages, kv_heads, page_size, head_dim]
        logits = torch.einsum("hgd,phsd->hgps", queries, keys) * scale
        tokens = torch.arange(logits.shape[2] * layout.page_size, device=logits.device).view(logits.shape[2:])
        return logits.masked_fill(tokens >= sequence.length_tokens, float("-inf")).logsumexp(dim=3)


class StreamingPages(ScoredPages):
    """The first page and the most recent ones (attention sinks, arXiv 2309.17453)."""

    def score(self, query, cache, sequence, scale):
        recency = torch.arange(sequence.logical_pages, dtype=torch.float32, device=query.device)
        return recency.expand(cache.layout.kv_heads, 1, -1).contiguous()


class RaasPages(PagePolicy):
    """The whole prompt, and the generated pages that were important most recently (RaaS, arXiv 2502.11147).

    Quest's scores, of which a softmax over the pages still kept makes attention, stamp every page that gets more than
    `STAMPED_MASS` with the step. Once more pages have been generated than the budget holds, the one with the oldest
    stamp is evicted for good; of equal stamps the earlier page. The prompt's pages do not count against the budget and
    are always read; the prompt is all that an answer finds in the cache.
    """

    sees_every_step = True
    STAMPED_MASS = 1e-4  # alpha in the paper

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

    def score(self, query, cache, sequence, scale):
        """float32 [kv_heads, 1, logical_pages], Quest's scores."""
        return self._kernels.page_scores(query, cache, sequence, scale)

    def _stamp(self, logits: torch.Tensor) -> None:
        evicted = self._stamps < 0
        mass = logits.masked_fill(evicted, float("-inf")).softmax(dim=1)
        self._stamps.masked_fill_(mass > self.STAMPED_MASS, self._step)
        # The page being written is as recent as a page can be, whatever it gets.
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


class PagePolicyMethod:
    """An `AttentionMethod` that attends to the pages of a policy.

    Args:
        quest: of the engine; its dense attention serves layers that read everything.
        policy: has an instance for each layer of each answer.
    """

    observes_prefill = False

    def __init__(self, quest: QuestMethod, policy: type[PagePolicy]) -> None:
        self._quest = quest
        self._policy = policy

    def observe_prefill(self, layer: int, queries: torch.Tensor, keys: torch.Tensor) -> None:
        """Nothing is remembered."""

    def begin_answer(self, quest: QuestConfig) -> DecodeAttention | PagePolicyAttention:
        """See `AttentionMethod.begin_answer`."""
        attention = self._quest.begin_answer(quest)
        if quest.attention != "quest":
            return attention
        budget = page_budget(quest, self._quest.layout.page_size)
        return PagePolicyAttention(attention, self._policy, budget)

    def fork(self) -> PagePolicyMethod:
        """The same: what a policy remembers ends with the answer."""
        return self

    def forget(self) -> None:
        """Nothing is remembered."""


class PagePolicyAttention:
    """An `AnswerAttention` over the pages of a policy.

    Args:
        quest: decides where everything is read, and attends there.
        policy: has an instance for each layer.
        budget: of each.
    """

    def __init__(self, quest: DecodeAttention, policy: type[PagePolicy], budget: PageBudget) -> None:
        self._quest = quest
        self._sees_every_step = policy.sees_every_step
        self._policies = defaultdict(lambda: policy(budget, quest.kernels))

    def __call__(self, layer: int, query: torch.Tensor, cache: LayerCache, sequence: SequenceView) -> torch.Tensor:
        """As `DecodeAttention.__call__`."""
        quest = self._quest
        must_see = self._sees_every_step and layer >= quest.dense_layers
        if quest.budget_for(layer, sequence) is None and not must_see:
            return quest(layer, query, cache, sequence)
        selected = self._policies[layer].select(query, cache, sequence, quest.scale)
        quest.trace.note(layer, selected)
        return quest.kernels.sparse_decode_attention(query, cache, sequence, selected, quest.scale)

    def finish_step(self, num_pages: int) -> StepReads:
        """See `AnswerAttention.finish_step`."""
        return self._quest.finish_step(num_pages)
