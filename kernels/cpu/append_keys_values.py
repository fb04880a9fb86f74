"""Write new keys and values into KV pages and refresh the bounds of those pages; Numba, float32."""

from __future__ import annotations

import torch

from kernels.cpu.compile import compiled, require_float32


@compiled
def _append_keys_values(keys, values, key_pages, value_pages, page_bounds, page_table, start):
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
            for d in range(head_dim):
                page_bounds[page, head, 0, d] = key_pages[page, head, 0, d]
                page_bounds[page, head, 1, d] = key_pages[page, head, 0, d]
            for slot in range(1, filled):
                for d in range(head_dim):
                    key = key_pages[page, head, slot, d]
                    page_bounds[page, head, 0, d] = min(page_bounds[page, head, 0, d], key)
                    page_bounds[page, head, 1, d] = max(page_bounds[page, head, 1, d], key)


def append_keys_values(
    keys: torch.Tensor,
    values: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_bounds: torch.Tensor,
    page_table: torch.Tensor,
    start_token: torch.Tensor,
) -> None:
    """As `kernels.reference.naive_append_keys_values`; float32 only.

    Raises:
        ValueError: for another dtype or device.
    """
    require_float32(
        keys=keys, values=values, key_pages=key_pages, value_pages=value_pages, page_bounds=page_bounds
    )
    _append_keys_values(
        keys.numpy(),
        values.numpy(),
        key_pages.numpy(),
        value_pages.numpy(),
        page_bounds.numpy(),
        page_table.numpy(),
        int(start_token),
    )
