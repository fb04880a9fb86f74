"""KV pages that hold random keys and values, with the summaries that go with them.

What a decode step costs depends on how much is cached, not on what: a cache of any length is filled in moments
instead of prefilled in minutes.
"""

from __future__ import annotations

import torch

from kernels.contract import Kernels, LayerCache, SequenceView

# Tokens written at once; a copy of their keys and values is all the extra memory it takes.
CHUNK_TOKENS = 8192


@torch.inference_mode()
def fill_pages(
    cache: LayerCache, page_table: torch.Tensor, length_tokens: int, kernels: Kernels, generator: torch.Generator
) -> None:
    """Write normal keys and values to the first `length_tokens` positions of one layer, in place.

    They are written as a prefill writes them, so that the summaries are what selection expects.

    Args:
        cache: of the layer.
        page_table: int32 [logical_pages].
        length_tokens: positions to fill, from 0.
        kernels: the device's operators.
        generator: on the pages' device.
    """
    layout, device = cache.layout, cache.key_pages.device
    # What a model would hand to pages of 8 bits.
    dtype = torch.bfloat16 if layout.is_float8 else layout.dtype
    for first in range(0, length_tokens, CHUNK_TOKENS):
        last = min(first + CHUNK_TOKENS, length_tokens)
        shape = (2, last - first, layout.kv_heads, layout.head_dim)
        keys, values = torch.empty(shape, dtype=dtype, device=device).normal_(generator=generator)
        length = torch.tensor([last], dtype=torch.int32, device=device)
        kernels.append_keys_values(keys, values, cache, SequenceView(page_table, length))
