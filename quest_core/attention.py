"""Attention over a paged cache: causal prefill, dense decode and Quest decode.

Chooses the kernels of the device and, per layer, whether to read all pages or the selected ones. Knows nothing of
projections or positions.
"""

from __future__ import annotations

from collections import defaultdict
from types import ModuleType
from typing import Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels.reference import PageChoice, StepOutcome
from quest_core.config import QuestConfig
from quest_core.eviction import TokenEviction
from quest_core.page_selection import PageSelection, SelectedPages
from quest_core.paged_kv_cache import CacheView
from quest_core.read_trace import ReadTrace


def kernels_for(device: torch.device) -> ModuleType:
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

    def __call__(self, layer: int, query: torch.Tensor, cache: CacheView) -> torch.Tensor: ...


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
        kernels: ModuleType,
        trace: ReadTrace,
    ) -> None:
        self._config = config
        self._scale = scale
        self.kernels = kernels
        self._trace = trace
        self._policy = policy
        self._selections = defaultdict(lambda: policy(config, page_size, kernels))
        self._budget_pages = config.budget_pages(page_size) if config.attention == "quest" else 0

    @property
    def fits_whole_step(self) -> bool:
        """Whether a `WholeStep` can attend in its place, as `choice` says."""
        return self._config.attention == "dense" or self._policy.scores_summaries

    def choice(self, cache: CacheView) -> PageChoice | None:
        """Which pages a whole step is to read; None for all of them."""
        config = self._config
        if config.attention == "dense" or len(cache.page_table) <= self._budget_pages:
            return None
        return PageChoice(
            config.dense_layers,
            self._budget_pages,
            config.sink_pages,
            config.recent_pages,
            self._policy.scores_are_logits,
        )

    def note(self, outcome: StepOutcome) -> None:
        """Take up what a whole step has selected."""
        for place, page_ids in enumerate(outcome.page_ids):
            missed_share = None if outcome.missed_share is None else outcome.missed_share[place]
            selected = SelectedPages(page_ids, outcome.page_counts, missed_share)
            self._trace.note(outcome.first_layer + place, selected)

    def __call__(self, layer: int, query: torch.Tensor, cache: CacheView) -> torch.Tensor:
        """Attend with `query` [query_heads, head_dim], whose token is in the cache; returns its shape and dtype."""
        pages, context_tokens = cache.pool.layers[layer], cache.context_tokens
        sparse = self._config.attention == "quest" and layer >= self._config.dense_layers
        if sparse and isinstance(self._policy, TokenEviction):
            attended, kept = self._policy.attend(layer, query, pages, cache.page_table, cache.past_tokens)
            self._trace.note_tokens(layer, kept)
            return attended
        # A table within the budget is read whole: no score could leave anything out.
        if not sparse or (len(cache.page_table) <= self._budget_pages and not self._policy.stateful):
            return self.kernels.dense_decode_attention(
                query,
                pages.key_pages,
                pages.value_pages,
                cache.page_table,
                context_tokens,
                self._scale,
                pages.kv_scales,
            )
        attended, selected = self._selections[layer].attend(
            query, pages, cache.page_table, context_tokens, self._scale
        )
        self._trace.note(layer, selected)
        return attended
