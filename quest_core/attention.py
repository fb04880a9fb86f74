"""Attention over a paged cache: causal prefill, dense decode and Quest decode.

Chooses the kernels of the device and, per layer, whether to read all pages or the selected ones. Knows nothing of
projections or positions.
"""

from __future__ import annotations

from collections import defaultdict
from types import ModuleType
from typing import Protocol

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from quest_core.config import QuestConfig
from quest_core.eviction import TokenEviction
from quest_core.page_selection import PageSelection
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
        keys, values: [kv_heads, context_tokens, head_dim].
        scale: of the logits.

    Returns:
        [new_tokens, query_heads * head_dim].
    """
    new_tokens, query_heads, _ = queries.shape
    group = query_heads // keys.shape[0]
    if group > 1:
        keys, values = keys.repeat_interleave(group, dim=0), values.repeat_interleave(group, dim=0)
    mask = causal_lower_right(new_tokens, keys.shape[1])
    if queries.device.type == "cpu":
        # torch's CPU flash kernel takes the mask as a tensor, and only as float does it keep its speed.
        mask = torch.full((new_tokens, keys.shape[1]), float("-inf"), dtype=queries.dtype)
        mask = mask.triu_(keys.shape[1] - new_tokens + 1)
    attended = scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, scale=scale
    )
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
        selected = self._selections[layer].select(query, pages, cache.page_table, context_tokens)
        self._trace.note(layer, selected)
        return self.kernels.sparse_decode_attention(
            query,
            pages.key_pages,
            pages.value_pages,
            cache.page_table,
            selected.page_ids,
            selected.page_counts,
            context_tokens,
            self._scale,
            pages.kv_scales,
        )
