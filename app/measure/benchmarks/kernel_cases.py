"""What `bench kernels` measures on: attention shapes, page layouts, and the random caches of several layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType

import torch

from app.measure.benchmarks.byte_bounds import dense_attention_bytes, quest_attention_bytes
from app.measure.benchmarks.random_pages import fill_pages
from quest_core.config import ModelConfig, RopeConfig
from quest_core.page_selection import POLICIES
from quest_core.paged_kv_cache import LayerPages, PagePool

MIN_LAYERS = 4
# Bytes read between two visits to a layer, over the size of the processor's own cache.
CACHE_TURNOVER = 4
SHARE_OF_FREE_MEMORY = 0.85


@dataclass(frozen=True)
class AttentionShape:
    """Heads of one layer, as the benchmark's rows name them."""

    q_heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class PageLayout:
    """How the cache is cut into pages and summarised, which decides what a Quest step reads.

    Args:
        selection: the policy that scores pages.
        page_size: tokens in a page.
        summary_bits: 8, or 16 for the cache's own dtype.
        kv_bits: of keys and values, likewise.
        summary_levels: 2 for summaries of superpages too.
    """

    selection: str
    page_size: int
    summary_bits: int
    kv_bits: int = 16
    summary_levels: int = 1

    def of_pool(self, dtype: torch.dtype) -> tuple[torch.dtype, str, bool, int, int]:
        """What a `PagePool` takes from `dtype` on."""
        return dtype, POLICIES[self.selection].summary, self.summary_bits == 8, self.kv_bits, self.summary_levels


SHAPES = (AttentionShape(32, 32, 128), AttentionShape(32, 8, 128))
PAPER_LAYOUT = PageLayout("quest", 16, 16)


@dataclass(frozen=True)
class KernelCase:
    """One attention shape at one context length: several layers' random caches, over one permuted page table."""

    shape: AttentionShape
    layout: PageLayout
    pool: PagePool
    page_table: torch.Tensor  # int32 [logical_pages]
    context_tokens: torch.Tensor  # int32 [1]
    queries: torch.Tensor  # [layers, query_heads, head_dim]

    @property
    def layers(self) -> list[LayerPages]:
        return self.pool.layers

    @property
    def scale(self) -> float:
        return 1.0 / math.sqrt(self.shape.head_dim)


def choose_layers(
    shape: AttentionShape,
    layout: PageLayout,
    context_tokens: int,
    smallest_budget: int,
    dtype: torch.dtype,
    cache_bytes: int,
    free_bytes: int,
) -> int:
    """How many layers' caches to read in rotation, so that none finds its own in the processor's cache again.

    What counts is what the most frugal contestant reads, Quest with the smallest budget. Each layer is kept twice: in
    pages, and contiguous for SDPA.

    Args:
        cache_bytes: size of the processor's cache.
        free_bytes: memory left.

    Returns:
        At least MIN_LAYERS, or as many as fit; 0 if not even one does.
    """
    config = _pool_config(shape, 1, context_tokens)
    # A pool of one page knows the sizes of its parts.
    pool = PagePool(config, 1, layout.page_size, torch.device("cpu"), *layout.of_pool(dtype))
    kv_bytes = dense_attention_bytes(shape.kv_heads, shape.head_dim * dtype.itemsize, context_tokens)
    pages = -(-context_tokens // layout.page_size)
    paged_bytes = pool.bytes * pages
    scored_bytes = pool.scored_bytes(pages, smallest_budget // layout.page_size)
    read_bytes = quest_attention_bytes(
        shape.kv_heads, pool.vector_bytes, context_tokens, smallest_budget, layout.page_size, scored_bytes
    )
    wanted = max(MIN_LAYERS, -(-CACHE_TURNOVER * cache_bytes // read_bytes))
    return min(wanted, int(free_bytes * SHARE_OF_FREE_MEMORY) // (paged_bytes + kv_bytes))


def build_case(
    shape: AttentionShape,
    layout: PageLayout,
    context_tokens: int,
    layers: int,
    dtype: torch.dtype,
    device: torch.device,
    kernels: ModuleType,
) -> KernelCase:
    """Random caches and queries; the same for the same arguments."""
    generator = torch.Generator(device).manual_seed(0)
    summary = POLICIES[layout.selection].summary
    pages = -(-context_tokens // layout.page_size)
    config = _pool_config(shape, layers, context_tokens)
    pool = PagePool(config, pages, layout.page_size, device, *layout.of_pool(dtype))
    page_table = torch.randperm(pages, generator=generator, device=device, dtype=torch.int32)
    for layer in pool.layers:
        fill_pages(layer, page_table, context_tokens, summary, kernels, generator)
    queries = torch.randn((layers, shape.q_heads, shape.head_dim), generator=generator, device=device).to(dtype)
    length = torch.tensor([context_tokens], dtype=torch.int32, device=device)
    return KernelCase(shape, layout, pool, page_table, length, queries)


def _pool_config(shape: AttentionShape, layers: int, context_tokens: int) -> ModelConfig:
    """A model of nothing but attention, which is all that a page pool asks about."""
    return ModelConfig(
        family="llama",
        vocab_size=1,
        hidden_size=shape.q_heads * shape.head_dim,
        intermediate_size=1,
        num_layers=layers,
        num_query_heads=shape.q_heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rms_norm_epsilon=1e-5,
        rope=RopeConfig(),
        context_tokens=context_tokens,
    )
