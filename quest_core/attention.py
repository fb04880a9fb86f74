"""Attention over a paged cache: causal prefill, dense decode and Quest decode.

Chooses the kernels of the device and, per layer, whether to read all pages or the selected ones. Knows nothing of
projections or positions.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

import torch

from kernels.contract import Kernels, LayerCache, PageBudget, SelectedPages, SequenceView, StepOutcome
from quest_core.config import QuestConfig
from quest_core.eviction import TokenEviction
from quest_core.page_selection import PageSelection, page_budget
from quest_core.read_trace import ReadTrace


def kernels_for(device: torch.device) -> Kernels:
    """The operators for `device`, all with the signatures of `kernels.reference`."""
    if device.type == "cuda":
        import kernels.gpu

        return kernels.gpu
    import kernels.cpu

    return kernels.cpu


class Attention(Protocol):
    """What a decode step attends with; see `DecodeAttention.__call__`."""

    def __call__(
        self, layer: int, query: torch.Tensor, cache: LayerCache, sequence: SequenceView
    ) -> torch.Tensor: ...


class DecodeAttention:
    """Attention of one new token, dense or Quest, for every layer of one decode step.

    Args:
        config: what to read.
        policy: chooses the pages that Quest reads; each layer has its own instance, which may remember its steps. Or
            the session's token eviction, which attends by itself.
        page_size: tokens in a page.
        scale: of the logits.
        kernels: the device's operators.
        trace: where the selected pages or kept tokens are noted.
    """

    def __init__(
        self,
        config: QuestConfig,
        policy: type[PageSelection] | TokenEviction,
        page_size: int,
        scale: float,
        kernels: Kernels,
        trace: ReadTrace,
    ) -> None:
        self.dense_layers = config.dense_layers
        self.kernels = kernels
        self.scale = scale
        self._trace = trace
        self._policy = policy
        self._budget = page_budget(config, page_size) if config.attention == "quest" else None
        self._selections = defaultdict(lambda: policy(self._budget, kernels))

    @property
    def fits_whole_step(self) -> bool:
        """Whether a `WholeStep` can attend in its place, as `budget_for` says."""
        return self._budget is None or self._policy.scores_summaries

    def budget_for(self, sequence: SequenceView) -> PageBudget | None:
        """The budget of layers that select pages of `sequence`; None if all layers read all of it."""
        # A table within the budget is read whole: no score could leave anything out.
        if self._budget is None or sequence.logical_pages <= self._budget.pages:
            return None
        return self._budget

    def note(self, outcome: StepOutcome) -> None:
        """Take up what a whole step has selected."""
        if outcome.selected is None:
            return
        page_ids, page_counts, missed_mass = outcome.selected
        for place, of_layer in enumerate(page_ids):
            missed = None if missed_mass is None else missed_mass[place]
            self._trace.note(outcome.first_layer + place, SelectedPages(of_layer, page_counts, missed))

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
        sparse = self._budget is not None and layer >= self.dense_layers
        if sparse and isinstance(self._policy, TokenEviction):
            attended, kept = self._policy.attend(layer, query, cache, sequence)
            self._trace.note_tokens(layer, kept)
            return attended
        if not sparse or (self.budget_for(sequence) is None and not self._policy.stateful):
            return self.kernels.dense_decode_attention(query, cache, sequence, self.scale)
        attended, selected = self._selections[layer].attend(query, cache, sequence, self.scale)
        self._trace.note(layer, selected)
        return attended
