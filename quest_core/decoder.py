"""The Llama-family transformer over a paged KV cache.

Turns token ids into logits, and keys and values into cache pages. Knows nothing of text, sampling or sessions.
Architecture: Llama 2 (arXiv 2307.09288) with GQA; Qwen2's QKV bias; Qwen3's normed queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import embedding, linear

from kernels.reference import Matrix
from quest_core.attention import Attention, kernels_for, prefill_attention
from quest_core.config import ModelConfig
from quest_core.paged_kv_cache import CacheView, SequenceCache
from quest_core.quantization import QuantizedMatrix
from quest_core.rope import rope_tables
from quest_core.weights import DecoderWeights, LayerWeights

# (layer, queries [new_tokens, query_heads, head_dim], keys [kv_heads, context_tokens, head_dim]) of a prefill
ObservePrefill = Callable[[int, torch.Tensor, torch.Tensor], None]


class Decoder:
    """Runs a model's layers on new tokens of one sequence.

    Args:
        config: shape of the model.
        weights: its parameters, on the device to run on.
        kv_dtype: that queries and keys are rotated in, before the cache rounds them if it keeps 8 bits.
    """

    def __init__(self, config: ModelConfig, weights: DecoderWeights, kv_dtype: torch.dtype) -> None:
        self.config = config
        self.device = weights.embedding.device
        self.kernels = kernels_for(self.device)
        self._weights = weights
        self._head = weights.embedding if weights.lm_head is None else weights.lm_head
        self._kv_dtype = kv_dtype
        self._cosines, self._sines = rope_tables(config, self.device)

    @torch.inference_mode()
    def prefill(
        self, token_ids: torch.Tensor, cache: SequenceCache, observe: ObservePrefill | None = None
    ) -> torch.Tensor:
        """Append `token_ids` to the sequence with dense causal attention.

        Args:
            token_ids: int64 [new_tokens] on the device.
            cache: of the sequence; grows by `new_tokens`.
            observe: told of each layer's queries and keys.

        Returns:
            float32 [vocab_size], the logits after the last token.
        """
        weights, kernels, epsilon = self._weights, self.kernels, self.config.rms_norm_epsilon
        start, new_tokens = cache.length_tokens, len(token_ids)
        context_tokens = start + new_tokens
        cache.reserve(new_tokens)
        start_token = torch.tensor([start], dtype=torch.int32, device=self.device)
        positions = torch.arange(start, context_tokens, dtype=torch.int32, device=self.device)
        residual = embedding(token_ids, weights.embedding)
        branch = None  # what the previous block adds to the residual stream
        for index, layer in enumerate(weights.layers):
            hidden = self._norm(branch, residual, layer.attention_norm)
            queries = self._attention_inputs(index, layer, hidden, positions, start_token, cache)
            keys, values = cache.gather(index, context_tokens)
            if observe is not None:
                observe(index, queries, keys)
            attended = prefill_attention(queries, keys, values, self.config.softmax_scale).to(hidden.dtype)
            branch = self._linear(attended, layer.output, layer.output_bias)
            hidden = self._norm(branch, residual, layer.mlp_norm)
            branch = self._linear(kernels.swiglu(self._linear(hidden, layer.gate_up)), layer.down)
        cache.advance(new_tokens)
        last = residual[-1:] + branch[-1:]
        return kernels.norm_linear(last, weights.final_norm, epsilon, self._head)[0].float()

    @torch.inference_mode()
    def decode(self, token_id: torch.Tensor, cache: CacheView, attention: Attention) -> torch.Tensor:
        """Run one token, reading the cache as `attention` says; a function of tensors alone, which can be captured.

        Args:
            token_id: int64 [1] on the device.
            cache: of the sequence; the token's key and value are written to it, whoever calls counts them.
            attention: dense or Quest.

        Returns:
            float32 [vocab_size], the logits after the token.
        """
        weights, kernels, epsilon = self._weights, self.kernels, self.config.rms_norm_epsilon
        residual = embedding(token_id, weights.embedding)
        for index, layer in enumerate(weights.layers):
            pages = cache.pool.layers[index]
            projected = kernels.norm_linear(
                residual, layer.attention_norm, epsilon, _operand(layer.qkv), layer.qkv_bias
            )
            query = kernels.rotate_and_append(
                projected,
                layer.query_norm,
                layer.key_norm,
                epsilon,
                self._cosines,
                self._sines,
                pages.key_pages,
                pages.value_pages,
                pages.page_summaries,
                cache.page_table,
                cache.start_token,
                cache.pool.summary,
                pages.summary_scales,
                pages.kv_scales,
            )
            attended = attention(index, query, cache).view(1, -1)
            kernels.linear_add(attended, _operand(layer.output), residual, layer.output_bias)
            gated = kernels.norm_swiglu(residual, layer.mlp_norm, epsilon, _operand(layer.gate_up))
            kernels.linear_add(gated, _operand(layer.down), residual)
        return kernels.norm_linear(residual, weights.final_norm, epsilon, self._head)[0].float()

    def _linear(
        self, hidden: torch.Tensor, matrix: torch.Tensor | QuantizedMatrix, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        if isinstance(matrix, QuantizedMatrix):
            return self.kernels.quantized_linear(hidden, *matrix.operand, bias)
        return linear(hidden, matrix, bias)

    def _norm(self, branch: torch.Tensor | None, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Add `branch` to `residual` in place, and norm the sum."""
        if branch is None:
            return self.kernels.rms_norm(residual, weight, self.config.rms_norm_epsilon)
        return self.kernels.rms_norm(branch, weight, self.config.rms_norm_epsilon, residual)

    def _attention_inputs(
        self,
        index: int,
        layer: LayerWeights,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        start_token: torch.Tensor,
        cache: SequenceCache,
    ) -> torch.Tensor:
        """Project, norm and rotate; write keys and values to the cache; return queries [tokens, heads, head_dim]."""
        config, kernels = self.config, self.kernels
        projected = self._linear(hidden, layer.qkv, layer.qkv_bias)
        queries, keys, values = projected.view(len(hidden), -1, config.head_dim).split(
            (config.num_query_heads, config.num_kv_heads, config.num_kv_heads), dim=1
        )
        if layer.query_norm is not None:
            queries = kernels.rms_norm(queries.contiguous(), layer.query_norm, config.rms_norm_epsilon)
            keys = kernels.rms_norm(keys.contiguous(), layer.key_norm, config.rms_norm_epsilon)
        queries, keys, values = (heads.to(self._kv_dtype) for heads in (queries, keys, values))
        kernels.apply_rope(queries, keys, self._cosines, self._sines, positions)
        pages = cache.pool.layers[index]
        kernels.append_keys_values(
            keys,
            values,
            pages.key_pages,
            pages.value_pages,
            pages.page_summaries,
            cache.page_table,
            start_token,
            cache.pool.summary,
            pages.summary_scales,
            pages.kv_scales,
        )
        return queries


def _operand(matrix: torch.Tensor | QuantizedMatrix) -> Matrix:
    """As the kernels of a decode step take it."""
    return matrix.operand if isinstance(matrix, QuantizedMatrix) else matrix
