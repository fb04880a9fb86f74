"""All layers of one decode step and the head as one operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from kernels.reference.decode_step import (
    naive_linear_add,
    naive_norm_linear,
    naive_norm_swiglu,
    naive_rotate_and_append,
)
from kernels.reference.matrices import Matrix
from kernels.reference.pages import (
    naive_dense_decode_attention,
    naive_page_scores,
    naive_select_pages,
    naive_sparse_decode_attention,
)


class LayerOperands(NamedTuple):
    """One layer's weights, as the operators of `decode_step` take them; None for what the model does not have."""

    attention_norm: torch.Tensor
    qkv: Matrix
    output: Matrix
    mlp_norm: torch.Tensor
    gate_up: Matrix
    down: Matrix
    qkv_bias: torch.Tensor | None = None
    output_bias: torch.Tensor | None = None
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None


class StepPages(NamedTuple):
    """The page pool as `naive_append_keys_values` takes one layer's, with a dimension of layers first."""

    key_pages: torch.Tensor
    value_pages: torch.Tensor
    page_summaries: torch.Tensor
    summary_scales: torch.Tensor | None
    summary: str


class PageChoice(NamedTuple):
    """Which pages the layers read, as for `naive_select_pages`; the first `dense_layers` read all."""

    dense_layers: int
    budget_pages: int
    sink_pages: int
    recent_pages: int
    logits: bool


class StepOutcome(NamedTuple):
    """What a step gives.

    Args:
        logits: float32 [vocab_size].
        page_ids: int32 [selecting layers, kv_heads, budget_pages], as `naive_select_pages` returns them.
        page_counts: int32 [kv_heads], the same in each of these layers.
        missed_share: float32 [selecting layers, kv_heads]; None without logits.
        first_layer: the first of the selecting layers.
    """

    logits: torch.Tensor
    page_ids: torch.Tensor
    page_counts: torch.Tensor
    missed_share: torch.Tensor | None
    first_layer: int


class NaiveWholeStep:
    """The layers of one model, run on one token.

    Args:
        layers: operands of each layer.
        final_norm: [hidden_size].
        head: [vocab_size, hidden_size].
        epsilon: of all norms.
        cosines, sines: float32 [max_tokens, head_dim // 2].
    """

    def __init__(
        self,
        layers: Sequence[LayerOperands],
        final_norm: torch.Tensor,
        head: Matrix,
        epsilon: float,
        cosines: torch.Tensor,
        sines: torch.Tensor,
    ) -> None:
        self._layers = layers
        self._final_norm = final_norm
        self._head = head
        self._epsilon = epsilon
        self._rope = cosines, sines

    def __call__(
        self,
        hidden: torch.Tensor,
        pages: StepPages,
        page_table: torch.Tensor,
        start_token: torch.Tensor,
        scale: float,
        choice: PageChoice | None,
    ) -> StepOutcome:
        """Run one token, and write its keys and values to the pages.

        Args:
            hidden: [1, hidden_size], its embedding.
            pages: of all layers.
            page_table: int32 [logical_pages]; may be longer than the sequence.
            start_token: int32 [1], the token's position.
            scale: of the attention's logits.
            choice: which pages are read; None for all.
        """
        residual = hidden.float().clone()
        context_tokens = start_token + 1
        page_size, kv_heads = pages.key_pages.shape[3], pages.key_pages.shape[2]
        dense_layers = len(self._layers) if choice is None else choice.dense_layers
        selections = []
        for index, layer in enumerate(self._layers):
            keys, values, summaries = pages.key_pages[index], pages.value_pages[index], pages.page_summaries[index]
            scales = None if pages.summary_scales is None else pages.summary_scales[index]
            projected = naive_norm_linear(residual, layer.attention_norm, self._epsilon, layer.qkv, layer.qkv_bias)
            query = naive_rotate_and_append(
                projected, layer.query_norm, layer.key_norm, self._epsilon, *self._rope, keys, values, summaries,
                page_table, start_token, pages.summary, scales,
            )  # fmt: skip
            if index < dense_layers:
                attended = naive_dense_decode_attention(query, keys, values, page_table, context_tokens, scale)
            else:
                scores = naive_page_scores(
                    query, summaries, page_table, context_tokens, page_size, pages.summary, scale, scales
                )
                selections.append(naive_select_pages(scores, context_tokens, page_size, *choice[1:]))
                attended = naive_sparse_decode_attention(
                    query, keys, values, page_table, *selections[-1][:2], context_tokens, scale
                )
            naive_linear_add(attended.view(1, -1), layer.output, residual, layer.output_bias)
            gated = naive_norm_swiglu(residual, layer.mlp_norm, self._epsilon, layer.gate_up)
            naive_linear_add(gated, layer.down, residual)
        logits = naive_norm_linear(residual, self._final_norm, self._epsilon, self._head)[0].float()
        if not selections:
            no_ids = torch.empty((0, kv_heads, 0), dtype=torch.int32, device=hidden.device)
            no_counts = torch.zeros(kv_heads, dtype=torch.int32, device=hidden.device)
            return StepOutcome(logits, no_ids, no_counts, None, dense_layers)
        ids, counts, missed = zip(*selections, strict=True)
        missed_share = torch.stack(missed) if choice.logits else None
        return StepOutcome(logits, torch.stack(ids), counts[0], missed_share, dense_layers)
