"""Write new keys and values into KV pages and refresh the summaries of those pages; Numba."""

from __future__ import annotations

import numpy as np
import torch

from kernels.contract import (
    INT8_LEVELS,
    ROUNDING_MARGIN,
    SCALE_MARGIN,
    HeadNorms,
    LayerCache,
    RopeTables,
    SequenceView,
)
from kernels.cpu_tools.arrays import BOUNDS, cache_arrays, sequence_arrays
from kernels.cpu_tools.checks import require_cache
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.vectors import address_of, load_element, store_element
from kernels.prefill.cpu import apply_rope, rms_norm


@compiled
def _summarise_bounds(page_keys, filled, lowest, highest):
    for d in range(page_keys.shape[1]):
        lowest[d] = highest[d] = page_keys[0, d]
    for slot in range(1, filled):
        for d in range(page_keys.shape[1]):
            lowest[d] = min(lowest[d], page_keys[slot, d])
            highest[d] = max(highest[d], page_keys[slot, d])


@compiled
def _summarise_mean(page_keys, filled, mean):
    weight = np.float32(1.0) / np.float32(filled)
    mean[:] = 0.0
    for slot in range(filled):
        for d in range(page_keys.shape[1]):
            mean[d] += page_keys[slot, d] * weight


@compiled
def _summarise(page_keys, filled, kind, vectors):
    if kind == BOUNDS:
        _summarise_bounds(page_keys, filled, vectors[0], vectors[1])
    else:
        _summarise_mean(page_keys, filled, vectors[0])


@compiled
def _round_to_int8(vectors, outwards, steps, scales):
    for v in range(vectors.shape[0]):
        longest = np.float32(0.0)
        for d in range(vectors.shape[1]):
            longest = max(longest, abs(vectors[v, d]))
        scales[v] = longest / np.float32(INT8_LEVELS) * np.float32(1 + SCALE_MARGIN)
        inverse = np.float32(1.0) / max(scales[v], np.float32(1e-30))
        for d in range(vectors.shape[1]):
            step = vectors[v, d] * inverse
            if not outwards:
                step = np.floor(step + np.float32(0.5))
            elif v == 0:
                step = np.floor(step - np.float32(ROUNDING_MARGIN))
            else:
                step = np.ceil(step + np.float32(ROUNDING_MARGIN))
            steps[v, d] = np.int8(max(np.float32(-INT8_LEVELS), min(np.float32(INT8_LEVELS), step)))


@compiled
def append_tokens(keys, values, cache, sequence):
    """As `append_keys_values`, with keys and values float32."""
    new_tokens, kv_heads, head_dim = keys.shape
    key_pages, value_pages, summaries, summary_scales, kind = cache
    page_size = key_pages.shape[2]
    end = sequence.length_tokens
    start = end - new_tokens
    page_keys = np.empty((page_size, head_dim), dtype=np.float32)
    unrounded = np.empty((summaries.shape[2], head_dim), dtype=np.float32)
    for logical in range(start // page_size, (end - 1) // page_size + 1):
        page = np.int64(sequence.page_table[logical])
        first_token = logical * page_size
        filled = min(page_size, end - first_token)
        written_from = max(start - first_token, 0)
        for head in range(kv_heads):
            offset = (page * kv_heads + head) * key_pages.strides[1]
            page_key_bits, page_value_bits = address_of(key_pages) + offset, address_of(value_pages) + offset
            for slot in range(written_from, filled):
                token = first_token + slot - start
                for d in range(head_dim):
                    store_element(key_pages.dtype, page_key_bits, slot * head_dim + d, keys[token, head, d])
                    store_element(value_pages.dtype, page_value_bits, slot * head_dim + d, values[token, head, d])
            for slot in range(filled):
                for d in range(head_dim):
                    page_keys[slot, d] = load_element(key_pages.dtype, page_key_bits, slot * head_dim + d)
            _summarise(page_keys, filled, kind, unrounded)
            if summary_scales.size == 0:
                summary = address_of(summaries) + (page * kv_heads + head) * summaries.strides[1]
                for v in range(len(unrounded)):
                    for d in range(head_dim):
                        store_element(summaries.dtype, summary, v * head_dim + d, unrounded[v, d])
            else:
                _round_to_int8(unrounded, kind == BOUNDS, summaries[page, head], summary_scales[page, head])


def append_keys_values(
    keys: torch.Tensor, values: torch.Tensor, cache: LayerCache, sequence: SequenceView
) -> None:
    """As `kernels.reference.naive_append_keys_values`.

    Raises:
        ValueError: for another dtype, device or layout, or 8-bit pages.
    """
    require_cache(cache)
    append_tokens(keys.float().numpy(), values.float().numpy(), cache_arrays(cache), sequence_arrays(sequence))


def rotate_and_append(
    projected: torch.Tensor,
    norms: HeadNorms | None,
    rope: RopeTables,
    cache: LayerCache,
    sequence: SequenceView,
) -> torch.Tensor:
    """As `kernels.reference.naive_rotate_and_append`; raises as `append_keys_values`."""
    layout = cache.layout
    heads = projected.view(len(projected), -1, layout.head_dim)
    query_heads = heads.shape[1] - 2 * layout.kv_heads
    queries, keys, values = heads.split((query_heads, layout.kv_heads, layout.kv_heads), dim=1)
    if norms is not None:
        queries, keys = rms_norm(queries, norms.query, norms.epsilon), rms_norm(keys, norms.key, norms.epsilon)
    queries, keys, values = (each.to(layout.dtype) for each in (queries, keys, values))
    apply_rope(queries, keys, rope, sequence.last_positions(len(projected)))
    append_keys_values(keys, values, cache, sequence)
    return queries
