"""Write new keys and values into KV pages and refresh the summaries of those pages; Numba, float32."""

from __future__ import annotations

import numpy as np
import torch

from kernels.cpu.compile import compiled, require_float32
from kernels.reference import SUMMARIES


@compiled
def _summarise_bounds(page_keys, filled, lowest, highest):
    for d in range(page_keys.shape[1]):
        lowest[d] = highest[d] = page_keys[0, d]
    for slot in range(1, filled):
        for d in range(page_keys.shape[1]):
            lowest[d] = min(lowest[d], page_keys[slot, d])
            highest[d] = max(highest[d], page_keys[slot, d])


@compiled
def _summarise_spread(page_keys, filled, mean, deviation):
    weight = np.float32(1.0) / np.float32(filled)
    mean[:] = 0.0
    deviation[:] = 0.0
    for slot in range(filled):
        for d in range(page_keys.shape[1]):
            mean[d] += page_keys[slot, d] * weight
    for slot in range(filled):
        for d in range(page_keys.shape[1]):
            deviation[d] += abs(page_keys[slot, d] - mean[d]) * weight


@compiled
def _append_keys_values(keys, values, key_pages, value_pages, page_summaries, page_table, start, spread):
    new_tokens, kv_heads, head_dim = keys.shape
    page_size = key_pages.shape[2]
    end = start + new_tokens
    for logical in range(start // page_size, (end - 1) // page_size + 1):
        page = page_table[logical]
        first_token = logical * page_size
        filled = min(page_size, end - first_token)
        written_from = max(start - first_token, 0)
        for head in range(kv_heads):
            for slot in range(written_from, filled):
                token = first_token + slot - start
                for d in range(head_dim):
                    key_pages[page, head, slot, d] = keys[token, head, d]
                    value_pages[page, head, slot, d] = values[token, head, d]
            page_keys, first, second = (
                key_pages[page, head],
                page_summaries[page, head, 0],
                page_summaries[page, head, 1],
            )
            if spread:
                _summarise_spread(page_keys, filled, first, second)
            else:
                _summarise_bounds(page_keys, filled, first, second)


def append_keys_values(
    keys: torch.Tensor,
    values: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    start_token: torch.Tensor,
    summary: str,
) -> None:
    """As `kernels.reference.naive_append_keys_values`; float32 only.

    Raises:
        ValueError: for another dtype, device or summary.
    """
    require_float32(
        keys=keys, values=values, key_pages=key_pages, value_pages=value_pages, page_summaries=page_summaries
    )
    if summary not in SUMMARIES:
        raise ValueError(f"summary must be one of {SUMMARIES}, got {summary!r}")
    _append_keys_values(
        keys.numpy(),
        values.numpy(),
        key_pages.numpy(),
        value_pages.numpy(),
        page_summaries.numpy(),
        page_table.numpy(),
        int(start_token),
        summary == "spread",
    )
