"""What `bench kernels` measures on: attention shapes, page layouts, and the random caches of several layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from app.measure.benchmarks.instruments.byte_bounds import dense_attention_bytes, quest_attention_bytes
from app.measure.benchmarks.subjects.random_pages import fill_pages
from kernels.contract import CacheLayout, Kernels, LayerCache, SequenceView
from kernels.float8 import FLOAT8
from quest_core.cache.cache_layout import SUMMARY_OF, page_bytes
from quest_core.cache.paged_kv_cache import PagePool

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
        selection: what pages are chosen by.
        page_size: tokens in a page.
        summary_bits: 8, or 16 for the cache's own dtype.
        kv_bits: of keys and values, likewise.
    """

    selection: str
    page_size: int
    summary_bits: int
    kv_bits: int = 16

    def of_cache(self, shape: AttentionShape, dtype: torch.dtype) -> CacheLayout:
        """What a cache of `shape` in `dtype` keeps."""
        return CacheLayout(
            page_size=self.page_size,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            dtype=FLOAT8 if self.kv_bits == 8 else dtype,
            summary=SUMMARY_OF[self.selection],
            summary_dtype=torch.int8 if self.summary_bits == 8 else dtype,
        )


SHAPES = (AttentionShape(32, 32, 128), AttentionShape(32, 8, 128))
PAPER_LAYOUT = PageLayout("quest", 16, 16)


@dataclass(frozen=True)
class KernelCase:
    """One attention shape at one context length: several layers' random caches, over one permuted page table."""

    shape: AttentionShape
    layout: PageLayout
    pool: PagePool
    sequence: SequenceView
    queries: torch.Tensor  # [layers, query_heads, head_dim]

    @property
    def layers(self) -> list[LayerCache]:
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
    cache_layout = layout.of_cache(shape, dtype)
    kv_bytes = dense_attention_bytes(shape.kv_heads, shape.head_dim * dtype.itemsize, context_tokens)
    paged_bytes = page_bytes(cache_layout, 1) * -(-context_tokens // layout.page_size)
    read_bytes = quest_attention_bytes(cache_layout, context_tokens, smallest_budget)
    wanted = max(MIN_LAYERS, -(-CACHE_TURNOVER * cache_bytes // read_bytes))
    return min(wanted, int(free_bytes * SHARE_OF_FREE_MEMORY) // (paged_bytes + kv_bytes))


def build_case(
    shape: AttentionShape,
    layout: PageLayout,
    context_tokens: int,
    layers: int,
    dtype: torch.dtype,
    device: torch.device,
    kernels: Kernels,
) -> KernelCase:
    """Random caches and queries; the same for the same arguments."""
    generator = torch.Generator(device).manual_seed(0)
    pages = -(-context_tokens // layout.page_size)
    pool = PagePool(layout.of_cache(shape, dtype), layers, pages, device)
    page_table = torch.randperm(pages, generator=generator, device=device, dtype=torch.int32)
    for layer in pool.layers:
        fill_pages(layer, page_table, context_tokens, kernels, generator)
    queries = torch.randn((layers, shape.q_heads, shape.head_dim), generator=generator, device=device).to(dtype)
    length = torch.tensor([context_tokens], dtype=torch.int32, device=device)
    return KernelCase(shape, layout, pool, SequenceView(page_table, length), queries)
