"""Token eviction: what a decode step attends to when tokens, once dropped, never return.

H2O (arXiv 2306.14048, algorithm 1) and TOVA (arXiv 2401.06104, section 3) judge a cached token by the attention it got,
keep as many as the budget says, and attend to these and the current token. In plain torch: made to be compared with,
not to be fast. Knows nothing of page summaries, of text, or of where queries and keys come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import pad

from kernels.contract import LayerCache, SequenceView
from quest_core.cache.cache_layout import dense_bytes, vector_bytes
from quest_core.config import QuestConfig
from quest_core.decode.attention import DecodeAttention, QuestMethod
from quest_core.decode.read_trace import StepReads

# Logits of one block of a prefill's queries; the block needs less than three times as much in all.
BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class KeptTokens:
    """The tokens that a layer attends to in one step.

    Args:
        token_ids: int64 [rows, kept], positions, ascending; a row for each kv head, or one for all.
        recent_from: tokens from this position on are in, whatever they score.
    """

    token_ids: torch.Tensor
    recent_from: int


class TokenEviction:
    """The scores of one session's tokens, and which of them its current answer has kept.

    Scores come from every prefilled token and from every step that goes through `attend`; a dense step adds none. Each
    answer starts from the whole cache, which the engine never frees: in a chat of several turns that favours these
    policies over their papers' engines. Between steps a layer keeps at most the budget; a step attends to one token
    more, its own. Of equal scores the earlier token stays.

    Args:
        quest: of the engine; its dense attention serves the layers that read everything.
        query_heads: of the model.
        max_tokens: longest sequence.
    """

    observes_prefill = True

    def __init__(self, quest: QuestMethod, query_heads: int, max_tokens: int) -> None:
        self.quest = quest
        self._query_heads = query_heads
        self._max_tokens = max_tokens
        self._budget_tokens = 0
        self._scores: torch.Tensor | None = None  # float32 [layers, rows, max_tokens], from the first tokens on
        self._kept: dict[int, torch.Tensor] = {}  # layer -> int64 [rows, kept], ascending

    def observe_prefill(self, layer: int, queries: torch.Tensor, keys: torch.Tensor) -> None:
        """Score what prefilled tokens attended to; see `AttentionMethod.observe_prefill`."""
        if self._scores is None:
            shape = (self.quest.num_layers, self._rows, self._max_tokens)
            self._scores = torch.zeros(shape, dtype=torch.float32, device=queries.device)
        self._score_prefill(self._scores[layer], queries, keys)

    def begin_answer(self, quest: QuestConfig) -> DecodeAttention | TokenEvictionAttention:
        """Start from the whole cache, and keep the budget of it in each layer and kv head from now on."""
        self._budget_tokens = quest.token_budget
        self._kept = {}
        attention = self.quest.begin_answer(quest)
        return attention if quest.attention != "quest" else TokenEvictionAttention(self, attention)

    def attend(
        self, layer: int, query: torch.Tensor, cache: LayerCache, sequence: SequenceView
    ) -> tuple[torch.Tensor, KeptTokens]:
        """Attend to the kept tokens and the current one, score them, and evict what is over the budget.

        Args:
            layer: whose query and cache these are.
            query: [query_heads, head_dim], after RoPE.
            cache: of the layer, the current token's key and value included.
            sequence: the current token included.

        Returns:
            [query_heads, head_dim] in the query's dtype, and the tokens attended to.
        """
        scores, past_tokens = self._scores[layer], int(sequence.length_tokens) - 1
        if layer not in self._kept:
            whole_cache = torch.arange(past_tokens, device=query.device).expand(self._rows, -1)
            self._kept[layer] = self._evict(whole_cache, scores)
        token_ids = pad(self._kept[layer], (0, 1), value=past_tokens)
        keys, values = _gather_tokens(cache, sequence.page_table, token_ids)
        grouped = query.float().view(len(keys), -1, query.shape[1])
        weights = (grouped @ keys.transpose(1, 2) * self.quest.scale).softmax(dim=2)
        self._score_step(scores, token_ids, weights)
        self._kept[layer] = self._evict(token_ids, scores)
        attended = (weights @ values).view_as(query).to(query.dtype)
        return attended, KeptTokens(token_ids, max(0, past_tokens - self._recent_tokens))

    def fork(self) -> TokenEviction:
        """The same scores for a second session."""
        other = type(self)(self.quest, self._query_heads, self._max_tokens)
        other._scores = None if self._scores is None else self._scores.clone()
        return other

    def forget(self) -> None:
        """Drop all scores; the next prefill must begin with the first token."""
        self._scores = None
        self._kept = {}

    def _evict(self, token_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if token_ids.shape[1] <= self._budget_tokens:
            return token_ids
        ranked = scores.gather(1, token_ids)
        ranked[:, ranked.shape[1] - self._recent_tokens :] = float("inf")
        best = ranked.sort(dim=1, descending=True, stable=True).indices[:, : self._budget_tokens]
        return token_ids.gather(1, best.sort(dim=1).values)

    @property
    def _rows(self) -> int:
        """Sets of kept tokens in a layer."""
        raise NotImplementedError

    @property
    def _recent_tokens(self) -> int:
        """Latest tokens that are never evicted."""
        raise NotImplementedError

    def _score_prefill(self, scores: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> None:
        """Update a layer's `scores` [rows, max_tokens] in place with those of prefilled tokens."""
        raise NotImplementedError

    def _score_step(self, scores: torch.Tensor, token_ids: torch.Tensor, weights: torch.Tensor) -> None:
        """Update a layer's `scores` in place with a step's `weights` [kv_heads, group, kept] of `token_ids`."""
        raise NotImplementedError


class TokenEvictionAttention:
    """An `AnswerAttention` over the tokens that an eviction keeps.

    Args:
        eviction: of the session.
        quest: attends in the layers that read everything.
    """

    def __init__(self, eviction: TokenEviction, quest: DecodeAttention) -> None:
        self._eviction = eviction
        self._quest = quest
        self._kept: dict[int, KeptTokens] = {}

    def __call__(self, layer: int, query: torch.Tensor, cache: LayerCache, sequence: SequenceView) -> torch.Tensor:
        """As `DecodeAttention.__call__`."""
        if layer < self._quest.dense_layers:
            return self._quest(layer, query, cache, sequence)
        attended, self._kept[layer] = self._eviction.attend(layer, query, cache, sequence)
        return attended

    def finish_step(self, num_pages: int) -> StepReads:
        """See `AnswerAttention.finish_step`; pages count as read of which any token was."""
        method, kept = self._eviction.quest, list(self._kept.values())
        if not kept:
            return self._quest.finish_step(num_pages)
        layout, num_layers = method.layout, method.num_layers
        page_reads = np.full((num_layers, num_pages), min(layout.kv_heads, 255), dtype=np.uint8)
        page_ids = torch.stack([layer.token_ids for layer in kept]) // layout.page_size  # [layers, rows, kept]
        _, rows, kept_tokens = page_ids.shape
        read = torch.zeros((*page_ids.shape[:2], num_pages), dtype=torch.int32, device=page_ids.device)
        counts = read.scatter_(2, page_ids, 1).sum(dim=1) * (layout.kv_heads // rows)
        page_reads[list(self._kept)] = counts.clamp_(max=255).to(torch.uint8).cpu().numpy()
        always_read = tuple(range(kept[0].recent_from // layout.page_size, num_pages))
        self._kept = {}
        kept_bytes = 2 * layout.kv_heads * kept_tokens * vector_bytes(layout)
        dense_layers = num_layers - len(kept)
        kv_bytes = dense_layers * dense_bytes(layout, num_pages) + len(kept) * kept_bytes
        return StepReads(page_reads, layout.kv_heads, always_read, self._quest.dense_layers, kv_bytes)


class H2OEviction(TokenEviction):
    """Half the budget for the most recent tokens, half for those that all queries so far attended to most.

    Each kv head keeps its own tokens, by the attention of its query heads added up.
    """

    @property
    def _rows(self):
        return self.quest.layout.kv_heads

    @property
    def _recent_tokens(self):
        return self._budget_tokens // 2

    def _score_prefill(self, scores, queries, keys):
        for head, weights in _causal_attention(queries, keys, self.quest.scale):
            scores[head, : weights.shape[2]] += weights.sum(dim=(0, 1))

    def _score_step(self, scores, token_ids, weights):
        scores.scatter_add_(1, token_ids, weights.sum(dim=1))


class TovaEviction(TokenEviction):
    """The tokens that the last query attended to most, averaged over all query heads: one set for a layer.

    Neither first nor recent tokens are safe; the current one may be evicted by its own query.
    """

    @property
    def _rows(self):
        return 1

    @property
    def _recent_tokens(self):
        return 0

    def _score_prefill(self, scores, queries, keys):
        scores.zero_()
        for _, weights in _causal_attention(queries[-1:], keys, self.quest.scale):
            scores[0, : weights.shape[2]] += weights.sum(dim=(0, 1)) / self._query_heads

    def _score_step(self, scores, token_ids, weights):
        scores.zero_().scatter_(1, token_ids, weights.mean(dim=(0, 1)).unsqueeze(0))


def _causal_attention(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> Iterator[tuple[int, torch.Tensor]]:
    """The attention of the last tokens of a sequence, in blocks, so that memory stays bounded.

    Args:
        queries: [new_tokens, query_heads, head_dim], the last `new_tokens` positions.
        keys: [kv_heads, context_tokens, head_dim].
        scale: of the logits.

    Yields:
        A kv head, and float32 [group, block, visible]: what a block of its queries gives the first tokens.
    """
    new_tokens, context_tokens = len(queries), keys.shape[1]
    group = queries.shape[1] // len(keys)
    block = max(1, BLOCK_BYTES // (4 * group * context_tokens))
    positions = torch.arange(context_tokens, device=keys.device)
    for head, head_keys in enumerate(keys):
        head_keys = head_keys.float()
        for start in range(0, new_tokens, block):
            rows = queries[start : start + block, head * group : (head + 1) * group].float() * scale
            first = context_tokens - new_tokens + start
            visible = first + len(rows)
            logits = rows.transpose(0, 1) @ head_keys[:visible].T
            future = positions[:visible] > positions[first:visible, None]
            yield head, logits.masked_fill_(future, float("-inf")).softmax(dim=2)


def _gather_tokens(
    cache: LayerCache, page_table: torch.Tensor, token_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of `token_ids` [kv_heads or 1, tokens], each float32 [kv_heads, tokens, head_dim]."""
    kv_heads, page_size = cache.layout.kv_heads, cache.layout.page_size
    heads = torch.arange(kv_heads, device=token_ids.device).unsqueeze(1)
    physical, slots = page_table.long()[token_ids // page_size], token_ids % page_size
    return cache.keys_at(physical, heads, slots), cache.values_at(physical, heads, slots)
