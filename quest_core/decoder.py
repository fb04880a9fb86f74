"""The Llama-family transformer over a paged KV cache.

Turns token ids into logits, and keys and values into cache pages. Knows nothing of text, sampling or sessions.
Architecture: Llama 2 (arXiv 2307.09288) with GQA; Qwen2's QKV bias; Qwen3's normed queries and keys.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch.nn.functional import embedding, linear

from kernels.contract import LayerCache, SequenceView
from quest_core.cache.paged_kv_cache import PagePool, SequenceCache
from quest_core.config import ModelConfig, RopeConfig
from quest_core.decode.attention import Attention, DecodeAttention, kernels_for
from quest_core.model.decode_weights import DecodeWeights
from quest_core.model.quantization import QuantizedMatrix
from quest_core.model.rope import rope_tables
from quest_core.model.weights import DecoderWeights, LayerWeights
from quest_core.prefill.prefill_attention import prefill_attention_for

# (layer, queries [new_tokens, query_heads, head_dim], keys [kv_heads, context_tokens, head_dim]) of a prefill
ObservePrefill = Callable[[int, torch.Tensor, torch.Tensor], None]


class Decoder:
    """Runs a model's layers on new tokens of one sequence.

    Args:
        config: shape of the model.
        weights: its parameters, on the device to run on.
        decode_weights: what decode steps multiply with.
    """

    def __init__(self, config: ModelConfig, weights: DecoderWeights, decode_weights: DecodeWeights) -> None:
        self.config = config
        self.device = weights.embedding.device
        self.kernels = kernels_for(self.device)
        self._weights = weights
        self._decode_weights = decode_weights
        self._rope = rope_tables(config, self.device)
        self._prefill_attention = prefill_attention_for(config, self.device, weights.embedding.dtype, self.kernels)
        whole_step = self.kernels.WholeStep
        self._whole_step = whole_step and whole_step(
            decode_weights.layers, weights.final_norm, decode_weights.head, config.rms_norm_epsilon, self._rope
        )

    def with_rope(self, rope: RopeConfig) -> Decoder:
        """The same weights under another of the model's RoPEs."""
        other = copy.copy(self)
        other.config = self.config.with_rope(rope)
        other._rope = rope_tables(other.config, self.device)
        other._whole_step = self._whole_step and self._whole_step.with_rope(other._rope)
        return other

    @torch.inference_mode()
    def warm_up(self, pool: PagePool) -> None:
        """Have a decode step compiled, or read from the disk; writes to the first page of a pool that nobody uses."""
        if self._whole_step is not None:
            hidden = torch.zeros(1, self.config.hidden_size)
            first_token = SequenceView(torch.zeros(1, dtype=torch.int32), torch.ones(1, dtype=torch.int32))
            self._whole_step(hidden, pool.cache, first_token, None, self.config.softmax_scale)

    def close(self) -> None:
        """End the threads of decode steps."""
        if self._whole_step is not None:
            self._whole_step.close()

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
        sequence = cache.view(new_tokens)
        positions = torch.arange(start, context_tokens, dtype=torch.int32, device=self.device)
        residual = embedding(token_ids, weights.embedding)
        branch = None  # what the previous block adds to the residual stream
        for index, layer in enumerate(weights.layers):
            hidden = self._norm(branch, residual, layer.attention_norm)
            inputs = self._attention_inputs(index, layer, hidden, positions, cache.pool, sequence)
            if observe is not None:
                observe(index, inputs[0], cache.gather(index, context_tokens)[0])
            attended = self._prefill_attention(index, *inputs, cache).to(hidden.dtype)
            del inputs  # the memory is the MLP's to use
            branch = self._linear(attended, layer.output, layer.output_bias)
            hidden = self._norm(branch, residual, layer.mlp_norm)
            branch = self._linear(kernels.swiglu(self._linear(hidden, layer.gate_up)), layer.down)
        cache.advance(new_tokens)
        last = residual[-1:] + branch[-1:]
        return kernels.norm_linear(last, weights.final_norm, epsilon, weights.head)[0].float()

    @torch.inference_mode()
    def decode(
        self, token_id: torch.Tensor, pool: PagePool, sequence: SequenceView, attention: Attention
    ) -> torch.Tensor:
        """Run one token, reading the cache as `attention` says; a function of tensors alone, which can be captured.

        Args:
            token_id: int64 [1] on the device.
            pool: holds the sequence's pages; the token's key and value are written there, whoever calls counts them.
            sequence: the token included.
            attention: of all layers; where the device has a whole step, it attends itself in place of dense and Quest.

        Returns:
            float32 [vocab_size], the logits after the token.
        """
        residual = embedding(token_id, self._weights.embedding)
        if self._whole_step is not None and isinstance(attention, DecodeAttention):
            dense_layers = attention.dense_layers
            budget = attention.budget_for(dense_layers, sequence)
            pages = attention.listed_pages(sequence)
            outcome = self._whole_step(residual, pool.cache, sequence, budget, attention.scale, dense_layers, pages)
            attention.note(outcome)
            return outcome.logits[0]

        def attend(layer: int, queries: torch.Tensor, cache: LayerCache) -> torch.Tensor:
            return attention(layer, queries[0], cache, sequence)

        return self._run_layers(residual, pool, sequence, attend)[0]

    @torch.inference_mode()
    def verify(self, token_ids: torch.Tensor, pool: PagePool, sequence: SequenceView) -> torch.Tensor:
        """Run a few tokens that are known in one dense pass, each with the bits that a dense `decode` of it gives.

        Those of a `decode` with the same page table: its length, too, decides how the kernels cut their work.

        Args:
            token_ids: int64 [rows] on the device; on a GPU up to 8.
            pool: holds the sequence's pages; keys and values are written there, whoever calls counts them.
            sequence: the tokens included.

        Returns:
            float32 [rows, vocab_size], the logits after each.
        """
        hidden, scale = embedding(token_ids, self._weights.embedding), self.config.softmax_scale
        if self._whole_step is not None:
            return self._whole_step(hidden, pool.cache, sequence, None, scale).logits

        def attend(layer: int, queries: torch.Tensor, cache: LayerCache) -> torch.Tensor:
            return self.kernels.dense_decode_attention(queries, cache, sequence, scale)

        return self._run_layers(hidden, pool, sequence, attend)

    def _run_layers(
        self,
        residual: torch.Tensor,
        pool: PagePool,
        sequence: SequenceView,
        attend: Callable[[int, torch.Tensor, LayerCache], torch.Tensor],
    ) -> torch.Tensor:
        """Run the layers of a step, operator by operator.

        Args:
            residual: [rows, hidden_size], the embeddings of a sequence's last tokens; changed in place.
            pool: holds the sequence's pages, to which keys and values are written.
            sequence: the tokens included.
            attend: of a layer's index, its queries [rows, query_heads, head_dim] after RoPE, and its cache; returns
                what is attended, in any shape.

        Returns:
            float32 [rows, vocab_size], the logits after each token.
        """
        weights, kernels, epsilon = self._weights, self.kernels, self.config.rms_norm_epsilon
        for index, layer in enumerate(self._decode_weights.layers):
            cache, norms = pool.layers[index], layer.head_norms(epsilon)
            projected = kernels.norm_linear(residual, layer.attention_norm, epsilon, layer.qkv, layer.qkv_bias)
            queries = kernels.rotate_and_append(projected, norms, self._rope, cache, sequence)
            attended = attend(index, queries, cache).view(len(residual), -1)
            kernels.linear_add(attended, layer.output, residual, layer.output_bias)
            gated = kernels.norm_swiglu(residual, layer.mlp_norm, epsilon, layer.gate_up)
            kernels.linear_add(gated, layer.down, residual)
        return kernels.norm_linear(residual, weights.final_norm, epsilon, self._decode_weights.head).float()

    def _linear(
        self, hidden: torch.Tensor, matrix: torch.Tensor | QuantizedMatrix, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        if isinstance(matrix, QuantizedMatrix):
            return self.kernels.quantized_linear(hidden, matrix.packed_matrix, bias)
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
        pool: PagePool,
        sequence: SequenceView,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Project, norm and rotate; write keys and values to the cache.

        Returns:
            Queries, keys and values, [new_tokens, heads, head_dim] each.
        """
        config, kernels = self.config, self.kernels
        projected = self._linear(hidden, layer.qkv, layer.qkv_bias)
        queries, keys, values = projected.view(len(hidden), -1, config.head_dim).split(
            (config.num_query_heads, config.num_kv_heads, config.num_kv_heads), dim=1
        )
        if layer.query_norm is not None:
            queries = kernels.rms_norm(queries.contiguous(), layer.query_norm, config.rms_norm_epsilon)
            keys = kernels.rms_norm(keys.contiguous(), layer.key_norm, config.rms_norm_epsilon)
        kernels.apply_rope(queries, keys, self._rope, positions)
        kernels.append_keys_values(keys, values, pool.layers[index], sequence)
        return queries, keys, values
