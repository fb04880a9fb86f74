"""Attention over a paged cache: causal prefill, dense decode and Quest decode.

Chooses the kernels of the device and, per layer, whether to read all pages or the selected ones. Knows nothing of
projections or positions.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

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


def prefill_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal attention of the last tokens of a sequence over all of it.

    Args:
        queries: [new_tokens, query_heads, head_dim], the last `new_tokens` positions.
        keys, values: [kv_heads, context_tokens, head_dim] in the queries' dtype.
        scale: of the logits.

    Returns:
        [new_tokens, query_heads * head_dim].
    """
    if queries.device.type == "cpu":
        return _prefill_on_cpu(queries, keys.to(queries.dtype), values.to(queries.dtype), scale)
    new_tokens, query_heads, _ = queries.shape
    group = query_heads // keys.shape[0]
    if group > 1:
        keys, values = keys.repeat_interleave(group, dim=0), values.repeat_interleave(group, dim=0)
    # Imported here: it brings torch's compiler, a second's work that only a GPU's first prefill should pay for.
    from torch.nn.attention.bias import causal_lower_right

    mask = causal_lower_right(new_tokens, keys.shape[1])
    attended = scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, scale=scale
    )
    return attended[0].transpose(0, 1).reshape(new_tokens, -1)


def _prefill_on_cpu(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> torch.Tensor:
    """As `prefill_attention`: the new tokens among themselves, and then their prefix, which needs no mask.

    torch's flash kernel skips half of a causal square, but reads all of a mask. Without one, the query heads of a group
    are so many more queries of their kv head, and nothing is repeated. The sums of the exponentials merge the two.
    """
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    new_tokens, query_heads, head_dim = queries.shape
    kv_heads, context_tokens, _ = keys.shape
    past_tokens = context_tokens - new_tokens
    by_head = queries.transpose(0, 1)
    new_keys, new_values = (
        each[:, past_tokens:].repeat_interleave(query_heads // kv_heads, dim=0)[None] for each in (keys, values)
    )
    attended, log_sums = attend(by_head[None], new_keys, new_values, 0.0, True, scale=scale)
    if past_tokens > 0:
        folded = by_head.reshape(1, kv_heads, -1, head_dim)
        past, past_log_sums = attend(
            folded, keys[None, :, :past_tokens], values[None, :, :past_tokens], 0.0, False, scale=scale
        )
        share = torch.sigmoid(log_sums - past_log_sums.reshape(log_sums.shape)).unsqueeze(3).to(attended.dtype)
        attended = torch.lerp(past.reshape(attended.shape), attended, share)
    return attended[0].transpose(0, 1).reshape(new_tokens, -1)


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
