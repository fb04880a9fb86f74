"""How an engine lays out its KV cache, and the bytes that parts of it take.

Only says what is to be kept; allocating it is `paged_kv_cache`'s work.
"""

from __future__ import annotations

import torch

from kernels.contract import SUMMARIES, CacheLayout
from kernels.float8 import FLOAT8
from quest_core.config import EngineConfig, ModelConfig

# What each selection scores: the upper bound of a page's logits, as the paper does, or the softmax mass that each query
# head would give a page whose keys all equalled their mean.
SUMMARY_OF = {"mean": SUMMARIES["mean"], "quest": SUMMARIES["bounds"]}


def cache_layout(model: ModelConfig, config: EngineConfig, dtype: torch.dtype) -> CacheLayout:
    """The layout that `config` asks for.

    Args:
        model: whose heads are cached.
        config: page size, selection and bits.
        dtype: of keys and values, and of summaries that are not in 8 bits, where `config` does not ask for 8 bits.
    """
    return CacheLayout(
        page_size=config.page_size,
        kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        dtype=FLOAT8 if config.kv_bits == 8 else dtype,
        summary=SUMMARY_OF[config.selection],
        summary_dtype=torch.int8 if config.summary_bits == 8 else dtype,
    )


def page_bytes(layout: CacheLayout, layers: int) -> int:
    """Bytes of one physical page over all layers: keys, values and summaries."""
    return layers * sum(spec.bytes for spec in layout.specs(1).values())


def vector_bytes(layout: CacheLayout) -> int:
    """Bytes of one token's key, or value, of one kv head of one layer, with its scale."""
    return _bytes(layout, "key_pages", "key_scales") // (layout.kv_heads * layout.page_size)


def dense_bytes(layout: CacheLayout, num_pages: int) -> int:
    """Bytes of the keys and values in so many pages of one layer."""
    return 2 * layout.kv_heads * num_pages * layout.page_size * vector_bytes(layout)


def scored_bytes(layout: CacheLayout, num_pages: int) -> int:
    """Bytes of the summaries that one kv head of one layer reads to select among so many pages."""
    return num_pages * _bytes(layout, "summaries", "summary_scales") // layout.kv_heads


def _bytes(layout: CacheLayout, *names: str) -> int:
    """Of these tensors of a page, as far as there are such."""
    specs = layout.specs(1)
    return sum(specs[name].bytes for name in names if name in specs)
