"""What a model takes of a device's memory, reckoned before any of it is taken.

Weights, the copies that a CPU decodes from, the page pool, and what a prefill works in. The engine plans its pool and
its chunks by the same figures. Knows nothing of files.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from quest_core.cache.cache_layout import cache_layout, page_bytes
from quest_core.config import EngineConfig, ModelConfig
from quest_core.errors import ModelError
from quest_core.model.quantization import quantized_bytes
from quest_core.model.weights import QUANTIZED, DecoderWeights, planned_bytes
from quest_core.prefill.prefill_attention import BLOCK_TOKENS

PREFILL_CHUNK_TOKENS = {"cuda": 8192, "cpu": 512}
MIN_PREFILL_CHUNK_TOKENS = 512
# Of what the pool leaves free; the rest is for graphs and what the kernels need to work in.
PREFILL_FRACTION_OF_FREE_MEMORY = 0.5
# Left free when the pool is planned: activations, the page's server and the rest of the system.
POOL_FRACTION_OF_FREE_MEMORY = {"cuda": 0.85, "cpu": 0.5}
# A GPU has nothing better to do with its memory. On the CPU the pool takes no more than this, or this fraction of the
# free memory, except that one window must fit: the embedded model should leave a small machine usable.
CPU_POOL_BYTES, CPU_POOL_FRACTION = 3 << 29, 1 / 16
# Measured on a CPU with 2 cores and windows of 4,096 to 16,384 tokens: what threads and allocators keep for themselves,
# and how often the keys and values of a layer, brought in order for a prefill, are there at once.
CPU_WORK_BYTES, CPU_GATHERS = 8 << 20, 2
# What allocators keep on top of weights and copies as these are made, in parts: 0 to 9 % was measured.
CPU_WEIGHTS_SLACK = 0.05
# Memory for the pool is asked for in pages of this size, which the system gives as a whole or not at all.
LARGE_PAGE_BYTES = 2 << 20
_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a model takes of its device.

    Args:
        weights: the model's tensors, as they are loaded.
        copies: of them, for decode steps on a CPU.
        tables: of positions.
        window: the KV cache of one conversation as long as the window, with the summaries of its pages.
        pool: all of the KV cache, which on a CPU is taken as it is filled and on a GPU at once.
        work: what a prefill of the whole window needs besides.
    """

    weights: int
    copies: int
    tables: int
    window: int
    pool: int
    work: int

    @property
    def with_one_window(self) -> int:
        """All together, with one conversation as long as the window."""
        return self.weights + self.copies + self.tables + self.window + self.work

    @property
    def with_pool(self) -> int:
        """All together, with a full pool."""
        return self.with_one_window - self.window + self.pool


@dataclass(frozen=True)
class MemoryPlanner:
    """Plans one model on one device.

    Args:
        model: its shape, with the window that it is to have.
        config: what the engine is to be loaded with.
        device: "cuda" or "cpu".
        dtype: of weights and activations.
        kv_dtype: of cached keys and values, before `kv_bits`.
        qkv_bias, output_bias: which biases it has.
        layers_in_4_bits: in how many layers the copy of a matrix has 4 bits, by the matrix' name or "head"; all others
            have 8.
    """

    model: ModelConfig
    config: EngineConfig
    device: str
    dtype: torch.dtype
    kv_dtype: torch.dtype
    qkv_bias: bool = False
    output_bias: bool = False
    layers_in_4_bits: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def page_bytes(self) -> int:
        """Of one page of the pool, over all layers."""
        layout = cache_layout(self.model, self.config, self.kv_dtype)
        return page_bytes(layout, self.model.num_layers)

    @cached_property
    def window_pages(self) -> int:
        """Pages of a sequence as long as the window, and one for the copy that a fork's first write makes."""
        return -(-self.model.context_tokens // self.config.page_size) + 1

    def plan(self, free_bytes: int) -> MemoryPlan:
        """What it takes of a device with so much free memory.

        Raises:
            ModelError: if one window does not fit beside the weights.
        """
        weights, copies = self._weights()
        tables = len(self.model.ropes) * self.model.context_tokens * self.model.head_dim * 4
        pages = plan_pages(self.model, self.config, self.device, self.page_bytes, free_bytes - weights - copies)
        window = self._resident(self.window_pages, pages)
        chunk = self.config.prefill_chunk_tokens or plan_chunk(
            self.model, self.device, self.dtype, free_bytes - weights - copies - tables - pages * self.page_bytes
        )
        work = self._work(chunk)
        if self.device == "cpu":
            work += int(CPU_WEIGHTS_SLACK * (weights + copies))
        return MemoryPlan(weights, copies, tables, window, pages * self.page_bytes, work)

    def _weights(self) -> tuple[int, int]:
        """Bytes of the weights and of their copies."""
        with torch.device("meta"):
            weights = DecoderWeights(self.model, qkv_bias=self.qkv_bias, output_bias=self.output_bias)
        total = planned_bytes(weights, self.dtype, self.config.weight_bits)
        if self.device != "cpu" or self.config.dtype != "auto" or self.config.weight_bits == 4:
            return total, 0
        copied = {"head": (weights.embedding.shape, 1)}
        if self.config.weight_bits == 16:
            layer = weights.layers[0]
            copied |= {name: (getattr(layer, name).shape, self.model.num_layers) for name in QUANTIZED}
        copies = 0
        for name, (shape, count) in copied.items():
            in_4_bits = self.layers_in_4_bits.get(name, 0)
            copies += in_4_bits * quantized_bytes(*shape, 4) + (count - in_4_bits) * quantized_bytes(*shape, 8)
        return total, copies

    def _resident(self, pages: int, pool_pages: int) -> int:
        """What so many pages of the pool take; on large pages each layer's part also takes what stands beside it."""
        taken_bytes = pages * self.page_bytes
        if self.device != "cpu" or not grants_large_pages():
            return taken_bytes
        # Keys and values of each layer; where they begin and end in a large page is a matter of chance.
        edges_bytes = 2 * self.model.num_layers * LARGE_PAGE_BYTES
        return min(taken_bytes + edges_bytes, pool_pages * self.page_bytes)

    def _work(self, chunk_tokens: int) -> int:
        model, item = self.model, self.dtype.itemsize
        chunk_tokens = min(chunk_tokens, model.context_tokens)
        rows = model.num_query_heads * model.head_dim, model.num_kv_heads * model.head_dim
        # In an MLP: residual stream, its norm and the block's result; gate, up and their product.
        mlp = 3 * (model.hidden_size + model.intermediate_size)
        attention = 3 * model.hidden_size + 4 * rows[0] + 2 * rows[1]
        activations = chunk_tokens * max(mlp, attention) * item
        if self.device == "cpu":
            gathered = 2 * model.context_tokens * rows[1] * item
            # For one product with the head its weights are laid out anew.
            head = model.vocab_size * model.hidden_size * item if self.config.weight_bits > 4 else 0
            return CPU_WORK_BYTES + activations + head + CPU_GATHERS * gathered
        gathered = 2 * min(model.context_tokens, BLOCK_TOKENS) * rows[1] * item
        logits = 4 * model.vocab_size * 4
        return activations + gathered + logits


def plan_pages(model: ModelConfig, config: EngineConfig, device: str, page_bytes: int, unused_bytes: int) -> int:
    """Pages of the pool on a device with so much free memory.

    Raises:
        ModelError: if one window does not fit.
    """
    window_pages = -(-model.context_tokens // config.page_size)
    free_bytes = int(unused_bytes * POOL_FRACTION_OF_FREE_MEMORY[device])
    # One page more than the window, for the copy that a fork's first write makes.
    if (window_pages + 1) * page_bytes > free_bytes:
        fitting_tokens = max(0, free_bytes // page_bytes - 1) * config.page_size
        raise ModelError(
            f"A window of {model.context_tokens} tokens needs {window_pages * page_bytes / 2**30:.1f} GiB for its KV "
            f"cache and {max(0, free_bytes) / 2**30:.1f} GiB can be used on {device}. Use --context-tokens "
            f"{fitting_tokens}."
        )
    pages = (window_pages + 1) * config.cached_contexts
    if device == "cpu":
        several_bytes = max(CPU_POOL_BYTES, int(unused_bytes * CPU_POOL_FRACTION))
        pages = min(pages, max(window_pages + 1, several_bytes // page_bytes))
    return min(pages, free_bytes // page_bytes)


def plan_chunk(model: ModelConfig, device: str, dtype: torch.dtype, unused_bytes: int) -> int:
    """Tokens of a prefill's chunk: as many as the device works well with, fewer where their activations do not fit."""
    chunk_tokens = PREFILL_CHUNK_TOKENS[device]
    # In an MLP: residual stream, its norm and the block's result; gate, up and their product.
    token_bytes = 3 * (model.hidden_size + model.intermediate_size) * dtype.itemsize
    free_bytes = unused_bytes * PREFILL_FRACTION_OF_FREE_MEMORY
    while chunk_tokens > MIN_PREFILL_CHUNK_TOKENS and chunk_tokens * token_bytes > free_bytes:
        chunk_tokens //= 2
    return chunk_tokens


def grants_large_pages() -> bool:
    """Whether memory for the pool comes in large pages."""
    try:
        return sys.platform == "linux" and "[never]" not in _LARGE_PAGES.read_text()
    except OSError:
        return False
