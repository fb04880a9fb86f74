"""KV pages that hold random keys and values, with the summaries that go with them.

What a decode step costs depends on how much is cached, not on what: a cache of any length is filled in moments
instead of prefilled in minutes.
"""

from __future__ import annotations

from types import ModuleType

import torch

from quest_core.paged_kv_cache import LayerPages

# Tokens written at once; a copy of their keys and values is all the extra memory it takes.
CHUNK_TOKENS = 8192


@torch.inference_mode()
def fill_pages(
    pages: LayerPages,
    page_table: torch.Tensor,
    length_tokens: int,
    summary: str,
    kernels: ModuleType,
    generator: torch.Generator,
) -> None:
    """Write normal keys and values to the first `length_tokens` positions of one layer, in place.

    They are written as a prefill writes them, so that the summaries are what selection expects.

    Args:
        pages: the layer's part of a pool.
        page_table: int32 [logical_pages].
        length_tokens: positions to fill, from 0.
        summary: which one the pool keeps.
        kernels: the device's operators.
        generator: on the pages' device.
    """
    _, kv_heads, _, head_dim = pages.key_pages.shape
    # What a model would hand to pages of 8 bits.
    dtype = pages.key_pages.dtype if pages.kv_scales is None else torch.bfloat16
    store = {"dtype": dtype, "device": pages.key_pages.device}
    for first in range(0, length_tokens, CHUNK_TOKENS):
        shape = (2, min(CHUNK_TOKENS, length_tokens - first), kv_heads, head_dim)
        keys, values = torch.empty(shape, **store).normal_(generator=generator)
        start = torch.tensor([first], dtype=torch.int32, device=store["device"])
        kernels.append_keys_values(
            keys,
            values,
            pages.key_pages,
            pages.value_pages,
            pages.page_summaries,
            page_table,
            start,
            summary,
            pages.summary_scales,
            pages.kv_scales,
        )
