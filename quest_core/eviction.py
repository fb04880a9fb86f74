"""Token eviction: what a decode step attends to when tokens, once dropped, never return.

The rivals of choosing pages by the query: H2O (arXiv 2306.14048, algorithm 1) and TOVA (arXiv 2401.06104, section 3).
Both judge a cached token by the shares of attention it got, keep as many as the budget says, and attend to these and
the current token. In plain torch: made to be compared with, not to be fast. Knows nothing of page summaries, of text,
or of where queries and keys come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from kernels.contract import LayerCache, SequenceView
from quest_core.config import ModelConfig

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
        model: its shape.
        max_tokens: longest sequence.
    """

    summary = "bounds"  # never read, but the page pool keeps one
    capturable = False  # what is kept depends on the host
    scores_summaries = False

    def __init__(self, model: ModelConfig, max_tokens: int) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._budget_tokens = 0
        self._scores: torch.Tensor | None = None  # float32 [layers, rows, max_tokens], from the first tokens on
        self._kept: dict[int, torch.Tensor] = {}  # layer -> int64 [rows, kept], ascending

    def observe_prefill(self, layer: int, queries: torch.Tensor, keys: torch.Tensor) -> None:
        """Score what prefilled tokens attended to; must see all of a session's, in order.

        Args:
            layer: whose queries and keys these are.
            queries: [new_tokens, query_heads, head_dim], the last `new_tokens` positions, after RoPE.
            keys: [kv_heads, context_tokens, head_dim], after RoPE.
        """
        if self._scores is None:
            shape = (self._model.num_layers, self._rows, self._max_tokens)
            self._scores = torch.zeros(shape, dtype=torch.float32, device=queries.device)
        self._score_prefill(self._scores[layer], queries, keys)

    def begin_answer(self, budget_tokens: int) -> None:
        """Start from the whole cache, and keep `budget_tokens` of it per layer and kv head from now on."""
        self._budget_tokens = budget_tokens
        self._kept = {}

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
        shares = (grouped @ keys.transpose(1, 2) * self._model.softmax_scale).softmax(dim=2)
        self._score_step(scores, token_ids, shares)
        self._kept[layer] = self._evict(token_ids, scores)
        attended = (shares @ values).view_as(query).to(query.dtype)
        return attended, KeptTokens(token_ids, max(0, past_tokens - self._recent_tokens))

    def fork(self) -> TokenEviction:
        """The same scores for a second session."""
        other = type(self)(self._model, self._max_tokens)
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

    def _score_step(self, scores: torch.Tensor, token_ids: torch.Tensor, shares: torch.Tensor) -> None:
        """Update a layer's `scores` in place with a step's `shares` [kv_heads, group, kept] of `token_ids`."""
        raise NotImplementedError


class H2OEviction(TokenEviction):
    """Half the budget for the most recent tokens, half for those that all queries so far attended to most.

    Each kv head keeps its own tokens, by the shares of its query heads added up.
    """

    @property
    def _rows(self):
        return self._model.num_kv_heads

    @property
    def _recent_tokens(self):
        return self._budget_tokens // 2

    def _score_prefill(self, scores, queries, keys):
        for head, shares in _causal_shares(queries, keys, self._model.softmax_scale):
            scores[head, : shares.shape[2]] += shares.sum(dim=(0, 1))

    def _score_step(self, scores, token_ids, shares):
        scores.scatter_add_(1, token_ids, shares.sum(dim=1))


class TovaEviction(TokenEviction):
    """The tokens that the last query attended to most, meaned over all query heads: one set for a layer.

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
        for _, shares in _causal_shares(queries[-1:], keys, self._model.softmax_scale):
            scores[0, : shares.shape[2]] += shares.sum(dim=(0, 1)) / self._model.num_query_heads

    def _score_step(self, scores, token_ids, shares):
        scores.zero_().scatter_(1, token_ids, shares.mean(dim=(0, 1)).unsqueeze(0))


def _causal_shares(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> Iterator[tuple[int, torch.Tensor]]:
    """The shares of attention of the last tokens of a sequence, in blocks, so that memory stays bounded.

    Args:
        queries: [new_tokens, query_heads, head_dim], the last `new_tokens` positions.
        keys: [kv_heads, context_tokens, head_dim].
        scale: of the logits.

    Yields:
        A kv head, and float32 [group, block, visible]: the shares that a block of its queries gives the first tokens.
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
