"""What a decode step attends with: the whole sequence, or the pages of it that Quest selects (arXiv 2406.10774).

`DecodeAttention.budget_for` is the one place that decides, for a layer of a step, whether everything is read. Of steps
that are captured only the host knows the length: there `DecodeAttention.attention_for` decides before. How pages are
scored, selected and attended is the kernels' work. What an evaluation compares with Quest takes the place of
`QuestMethod`; nothing here knows of it.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch

from kernels.contract import CacheLayout, Kernels, LayerCache, PageBudget, SelectedPages, SequenceView, StepOutcome
from quest_core.cache.cache_layout import dense_bytes, scored_bytes
from quest_core.config import QuestConfig
from quest_core.decode.read_costs import ChoosingCosts, LayerBytes, reading_all_is_not_slower
from quest_core.decode.read_trace import ReadTrace, StepReads


def kernels_for(device: torch.device) -> Kernels:
    """The operators for `device`, all with the signatures of `kernels.reference`."""
    if device.type == "cuda":
        import kernels.gpu

        return kernels.gpu
    import kernels.cpu

    return kernels.cpu


def page_budget(config: QuestConfig, page_size: int) -> PageBudget:
    """What `config` lets a token read of each kv head.

    Raises:
        ValueError: if the budget cannot hold the pages that are always read.
    """
    return PageBudget(config.budget_pages(page_size), config.sink_pages, config.recent_pages)


class Attention(Protocol):
    """Attends with one token; see `DecodeAttention.__call__`."""

    def __call__(
        self, layer: int, query: torch.Tensor, cache: LayerCache, sequence: SequenceView
    ) -> torch.Tensor: ...


class AnswerAttention(Attention, Protocol):
    """Attends in the steps of one answer, one after the other."""

    def finish_step(self, num_pages: int) -> StepReads:
        """What the step that has just run over `num_pages` pages has read; only of steps that are not dense."""
        ...


class AttentionMethod(Protocol):
    """How one session attends while it decodes: `QuestMethod`, or what an evaluation compares with it.

    Attributes:
        observes_prefill: whether it has to see every token that is prefilled, in order, since the first. What it has
            seen is not in the pages, so that it must be seen again once tokens have been forgotten.
    """

    observes_prefill: bool

    def observe_prefill(self, layer: int, queries: torch.Tensor, keys: torch.Tensor) -> None:
        """See one layer of a chunk of a prefill.

        Args:
            layer: whose queries and keys these are.
            queries: [new_tokens, query_heads, head_dim], the last `new_tokens` positions, after RoPE.
            keys: [kv_heads, context_tokens, head_dim], after RoPE.
        """
        ...

    def begin_answer(self, quest: QuestConfig) -> AnswerAttention:
        """What the steps of the next answer attend with.

        Raises:
            ValueError: if the budget is smaller than what is always read.
        """
        ...

    def fork(self) -> AttentionMethod:
        """For a second session with the same tokens."""
        ...

    def forget(self) -> None:
        """The session has forgotten some of its last tokens."""
        ...


class QuestMethod:
    """Dense or Quest, as each answer wants it: an `AttentionMethod` that remembers nothing, and serves all sessions.

    Args:
        kernels: the device's operators.
        layout: of the cache.
        num_layers: of the model.
        scale: of the logits.
        costs: of choosing pages on the device.
    """

    observes_prefill = False

    def __init__(
        self, kernels: Kernels, layout: CacheLayout, num_layers: int, scale: float, costs: ChoosingCosts
    ) -> None:
        self.kernels = kernels
        self.layout = layout
        self.num_layers = num_layers
        self.scale = scale
        self.costs = costs

    def observe_prefill(self, layer: int, queries: torch.Tensor, keys: torch.Tensor) -> None:
        """Nothing is remembered."""

    def begin_answer(self, quest: QuestConfig) -> DecodeAttention:
        """See `AttentionMethod.begin_answer`."""
        return DecodeAttention(quest, self.layout, self.num_layers, self.scale, self.kernels, self.costs)

    def fork(self) -> QuestMethod:
        """The same: sessions share nothing by it."""
        return self

    def forget(self) -> None:
        """Nothing is remembered."""


class DecodeAttention:
    """Attention of one new token, dense or Quest, for every layer of a decode step.

    Args:
        quest: what to read.
        layout: of the cache.
        num_layers: of the model.
        scale: of the logits.
        kernels: the device's operators.
        costs: of choosing pages on the device.

    Attributes:
        quest: what to read.
        dense_layers: the first layers, which read everything.
        trace: of the pages that were selected.

    Raises:
        ValueError: if the budget is smaller than what is always read.
    """

    def __init__(
        self,
        quest: QuestConfig,
        layout: CacheLayout,
        num_layers: int,
        scale: float,
        kernels: Kernels,
        costs: ChoosingCosts,
    ) -> None:
        self.quest = quest
        self.dense_layers = quest.dense_layers
        self.scale = scale
        self.kernels = kernels
        self.trace = ReadTrace(quest, layout, num_layers)
        self._layout = layout
        self._costs = costs
        self._budget = page_budget(quest, layout.page_size) if quest.selects else None

    def attention_for(self, pages: int, table_pages: int) -> Literal["dense", "quest"]:
        """What a step over a sequence of `pages` pages is; "auto" depends on their number.

        Args:
            pages: of the sequence.
            table_pages: of the page table, all of which are ranked; no fewer.
        """
        if self._budget is None or self.quest.attention == "auto" and self._budget.reads_all(pages):
            return "dense"
        if self.quest.attention == "quest":
            return "quest"
        layout, budget_pages = self._layout, self._budget.pages
        summary_bytes = layout.kv_heads * scored_bytes(layout, pages)
        read = LayerBytes(dense_bytes(layout, pages), dense_bytes(layout, budget_pages), summary_bytes, layout.kv_heads)
        return "dense" if reading_all_is_not_slower(self._costs, read, table_pages) else "quest"

    def budget_for(self, layer: int, sequence: SequenceView) -> PageBudget | None:
        """How many pages a layer is to select; None if it reads everything."""
        pages = sequence.logical_pages
        if layer < self.dense_layers or self.attention_for(pages, pages) == "dense" or self._budget.reads_all(pages):
            return None
        return self._budget

    def listed_pages(self, sequence: SequenceView) -> SelectedPages | None:
        """What a whole step reads in the layers with a budget, see `WholeStep`; None if they are to select."""
        return None

    def __call__(self, layer: int, query: torch.Tensor, cache: LayerCache, sequence: SequenceView) -> torch.Tensor:
        """Attend with one token, whose key and value are in the cache.

        Args:
            layer: whose query and cache these are.
            query: [query_heads, head_dim], after RoPE.
            cache: of the layer.
            sequence: the token included.

        Returns:
            What is attended, in the query's shape and dtype.
        """
        budget = self.budget_for(layer, sequence)
        if budget is None:
            return self.kernels.dense_decode_attention(query, cache, sequence, self.scale)
        attended, selected = self.kernels.choose_and_attend(query, cache, sequence, budget, self.scale)
        self.trace.note(layer, selected)
        return attended

    def note(self, outcome: StepOutcome) -> None:
        """Take up what a whole step has selected in its place."""
        if outcome.selected is None:
            return
        page_ids, page_counts, missed_mass = outcome.selected
        for index, of_layer in enumerate(page_ids):
            missed = None if missed_mass is None else missed_mass[index]
            self.trace.note(outcome.first_layer + index, SelectedPages(of_layer, page_counts, missed))

    def finish_step(self, num_pages: int) -> StepReads:
        """See `AnswerAttention.finish_step`."""
        return self.trace.finish_step(num_pages)
