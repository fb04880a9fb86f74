"""How much attention tokens give to spans of their context, computed beside a prefill of these tokens.

The queries and keys of a prefill are what a decode step would have, whatever pages that step then reads: so it tells
where the model looks with dense attention and with any selection. Knows nothing of what the spans hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Logits that are held at once, so that a long context of many heads needs no more memory than a short one.
_MOST_LOGITS = 1 << 24


class SpanAttention:
    """Takes up the queries and keys of a prefill; an `ObservePrefill`.

    Args:
        spans: start and end token of each, end excluded, in order and without overlap; all before the tokens
            that are observed.
        scale: of the logits.
    """

    def __init__(self, spans: Sequence[tuple[int, int]], scale: float) -> None:
        self._spans = list(spans)
        self._scale = scale
        self._mass: dict[int, list[torch.Tensor]] = {}

    def __call__(self, layer: int, queries: torch.Tensor, keys: torch.Tensor) -> None:
        """Note one layer's part.

        Args:
            layer: whose queries and keys these are.
            queries: [new_tokens, query_heads, head_dim], the last `new_tokens` positions, after RoPE.
            keys: [kv_heads, context_tokens, head_dim], after RoPE.
        """
        new_tokens, query_heads, _ = queries.shape
        rows = max(1, _MOST_LOGITS // (query_heads * keys.shape[1]))
        first_position = keys.shape[1] - new_tokens
        for start in range(0, new_tokens, rows):
            part = queries[start : start + rows]
            self._mass.setdefault(layer, []).append(self._of_rows(part, keys, first_position + start))

    def _of_rows(self, queries: torch.Tensor, keys: torch.Tensor, position: int) -> torch.Tensor:
        """float32 [tokens, spans], averaged over the heads, of tokens from `position` on."""
        tokens, query_heads, head_dim = queries.shape
        kv_heads, context_tokens, _ = keys.shape
        folded = queries.view(tokens, kv_heads, -1, head_dim).permute(1, 2, 0, 3).reshape(kv_heads, -1, head_dim)
        logits = torch.matmul(folded, keys.to(folded.dtype).transpose(1, 2)).float().mul_(self._scale)
        logits = logits.view(query_heads, tokens, context_tokens)
        context = torch.arange(context_tokens, device=logits.device)
        is_later = context[None, :] > torch.arange(position, position + tokens, device=logits.device)[:, None]
        mass = logits.masked_fill_(is_later, float("-inf")).softmax(dim=2).mean(dim=0)  # [tokens, context]
        return torch.stack([mass[:, start:end].sum(dim=1) for start, end in self._spans], dim=1)

    def mass(self) -> torch.Tensor:
        """float32 [layers, tokens, spans] on the host: the softmax mass that tokens gave each span."""
        return torch.stack([torch.cat(self._mass[layer]) for layer in sorted(self._mass)]).cpu()
