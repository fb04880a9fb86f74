"""The data of `kernels.contract` as compiled code takes them: named tuples of arrays and scalars."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from kernels.contract import LayerCache, SequenceView
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.vectors import address_of

BOUNDS, MEAN = 0, 1
KINDS = {"bounds": BOUNDS, "mean": MEAN}
LINE_FLOATS = 16  # float32 in a cache line


class CacheArrays(NamedTuple):
    """A `LayerCache`, of one layer or of all.

    Args:
        key_pages, value_pages, summaries: as there; 16-bit floats as their bits, see `emitted.KINDS`.
        summary_scales: as there; empty if there are none, so that there is one version of the code.
        kind: of the summary, one of `KINDS`.
    """

    key_pages: np.ndarray
    value_pages: np.ndarray
    summaries: np.ndarray
    summary_scales: np.ndarray
    kind: int


def as_array(store: torch.Tensor) -> np.ndarray:
    """The same memory for compiled code, which takes 16-bit floats as their bits, see `emitted.KINDS`."""
    bits = {torch.float16: torch.int16, torch.bfloat16: torch.uint16}.get(store.dtype)
    return (store if bits is None else store.view(bits)).numpy()


def cache_arrays(cache: LayerCache) -> CacheArrays:
    """The same memory for compiled code."""
    scales = cache.summary_scales
    if scales is None:
        scales = torch.empty((*cache.key_pages.shape[:-4], 0, 0, 0))
    return CacheArrays(
        as_array(cache.key_pages),
        as_array(cache.value_pages),
        as_array(cache.summaries),
        scales.numpy(),
        KINDS[cache.layout.summary.name],
    )


def sequence_arrays(sequence: SequenceView) -> SequenceView:
    """The same view, with an array as its table and an integer as its length."""
    return SequenceView(sequence.page_table.numpy(), int(sequence.length_tokens))


@compiled
def layer_of(cache, layer):
    """One layer of the `CacheArrays` of all."""
    return CacheArrays(
        cache.key_pages[layer],
        cache.value_pages[layer],
        cache.summaries[layer],
        cache.summary_scales[layer],
        cache.kind,
    )


@compiled
def empty_on_lines(rows, floats):
    """float32 [rows, floats] that begins with a cache line: a vector that lies in two takes two loads."""
    memory = np.empty(rows * floats + LINE_FLOATS, np.float32)
    first = -(address_of(memory) // 4) % LINE_FLOATS
    return memory[first : first + rows * floats].reshape(rows, floats)
