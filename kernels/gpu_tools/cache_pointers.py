"""A layer's cache as kernels take it.

Kernels take flat pointers, and a `CacheLayout` as a compile-time constant. Their first lines bundle the pointers into
the tuples that the functions they call take.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton.language as tl

from kernels.contract import LayerCache
from kernels.gpu_tools.float8 import as_codes


class Pages(NamedTuple):
    """Where keys, values and their scales are, as `LayerCache` says, and the page table of a sequence."""

    key_ptr: tl.tensor
    value_ptr: tl.tensor
    key_scale_ptr: tl.tensor
    value_scale_ptr: tl.tensor
    table_ptr: tl.tensor


class Summaries(NamedTuple):
    """Where summaries and their scales are, as `LayerCache` says, and the page table of a sequence."""

    vector_ptr: tl.tensor
    scale_ptr: tl.tensor
    table_ptr: tl.tensor


def page_pointers(cache: LayerCache) -> tuple[torch.Tensor, ...]:
    """The first four of `Pages`; without scales, other tensors are passed instead and not read."""
    keys, values = as_codes(cache.key_pages), as_codes(cache.value_pages)
    if cache.key_scales is None:
        return keys, values, keys, values
    return keys, values, cache.key_scales, cache.value_scales


def summary_pointers(cache: LayerCache) -> tuple[torch.Tensor, torch.Tensor]:
    """The first two of `Summaries`, likewise."""
    return cache.summaries, cache.summaries if cache.summary_scales is None else cache.summary_scales
